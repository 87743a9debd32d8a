// The portal of several machines in a real browser. The Go story TestDataCenters
// has set them up and runs this, with the names that the browser shall find:
// FLEET_NAMES is what Chromium's --host-resolver-rules wants.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { barriers, launch, look, person } from './lib/chromium.mjs'
import { expectText } from './lib/expect.mjs'
import { Notebook } from './lib/notebook.mjs'
import { inside, newProject, openApp, signIn, state } from './lib/portal.mjs'

const { FLEET_PORTAL: portal, FLEET_NAMES: names, FLEET_PASSWORD: password } = process.env
let browser, ada
before(async () => {
  browser = await launch([`--host-resolver-rules=${names}`])
  ada = await person(browser)
  await signIn(ada.page, portal, { name: 'ada', password })
})
after(() => browser?.close())

test('data centers are seen, and how another one joins', async () => {
  await ada.page.goto(`${portal}/admin/data-centers`)
  for (const name of ['north', 'south']) {
    const center = ada.page.getByRole('region', { name: new RegExp(`^${name}`) })
    await expectText(center, 'Its gateway answers at')
    // What the machine that the test runs on lacks may be said, and nothing else.
    const { messages } = JSON.parse(await center.locator('code', { hasText: '"status"' }).textContent())
    assert.deepEqual(messages.filter((m) => !m.includes('fs.protected_')), [])
    assert.match(await center.textContent(), /([0-9A-F]{4} ){15}[0-9A-F]{4}/)
  }
  await look(ada.page, 'data-centers')
  await ada.page.getByLabel('Name').fill('west')
  await ada.page.getByRole('button', { name: 'Make a token' }).click()
  await expectText(ada.page.getByRole('status').first(), `quire gateway join --server ${portal} --token quire-join-`)
  await barriers(ada.page, 'a token')
  await ada.page.getByRole('button', { name: 'End the token for west' }).click()
  await expectText(ada.page.getByRole('main'), 'Saved.')
})

test('a resource is added, drained with a note that people read, and opened again', async () => {
  await ada.page.goto(`${portal}/admin/resources`)
  await look(ada.page, 'resources')
  await ada.page.getByLabel('URL').fill('file:///etc/passwd')
  await ada.page.getByLabel('Name').fill('n9')
  await ada.page.getByRole('button', { name: 'Add the resource' }).click()
  await expectText(ada.page.getByRole('main'), 'The address is like http://HOST:5002')
  await ada.page.getByLabel('URL').fill('http://localhost:5002')
  await ada.page.getByRole('button', { name: 'Add the resource' }).click()
  await expectText(ada.page.getByRole('status').first(), 'quire compute join --gateway http://')
  await ada.page.getByRole('link', { name: 'Change, drain or remove n1' }).click()
  await barriers(ada.page, 'a resource')
  await ada.page.getByLabel('What people are told').fill('Back on Monday.')
  await ada.page.getByRole('button', { name: 'Drain', exact: true }).click()
  await expectText(ada.page.getByRole('article', { name: /^n1/ }), 'Nothing new starts here. Back on Monday.')
  await ada.page.goto(`${portal}/new`)
  await expectText(ada.page.getByRole('group', { name: 'Where it runs' }), 'Takes no new projects. Back on Monday.')
  await barriers(ada.page, 'where a project runs')
  await ada.page.goto(`${portal}/admin/resources`)
  await ada.page.getByRole('link', { name: 'Change, drain or remove n1' }).click()
  await ada.page.getByRole('button', { name: 'Let projects start here' }).click()
  await expectText(ada.page.getByRole('main'), 'Saved.')
})

for (const [project, end] of [['North', '.north.site.test:8089'], ['South', '.south.site.test:8089']]) {
  test(`a cell runs in ${project}`, async () => {
    await ada.page.goto(`${portal}/ada/${project}`)
    await state(ada.page, 'running')
    const tab = await openApp(ada.page, 'Notebook')
    const list = await inside(tab, '#notebook_list')
    assert.ok(new URL(tab.url()).host.endsWith(end), tab.url())
    await list.getByRole('button', { name: 'New' }).click()
    const [page] = await Promise.all([ada.context.waitForEvent('page'), list.locator('#kernel-python3 a').click()])
    const notebook = await new Notebook(page, await inside(page, '#notebook-container')).ready()
    await notebook.answers('6*7', '42')
    await page.close()
    await tab.close()
  })
}

test('a project moves to another data center, and says how far it is', async () => {
  await newProject(ada.page, portal, 'Mover', 'Goes south')
  await ada.page.getByRole('button', { name: 'Start', exact: true }).click()
  await state(ada.page, 'running')
  await ada.page.goto(`${portal}/ada/Mover/settings/admin`)
  await look(ada.page, 'settings-move')
  const to = (await ada.page.goto(`${portal}/ada/Mover/settings/info`)) && /\bs1\b/.test(await ada.page.getByRole('main').innerText()) ? 'n1' : 's1'
  await ada.page.goto(`${portal}/ada/Mover/settings/admin`)
  const node = ada.page.getByLabel('Node', { exact: true })
  await node.selectOption({ label: (await node.locator('option').allTextContents()).find((o) => o.startsWith(`${to} in `)) })
  await ada.page.getByRole('button', { name: 'Move', exact: true }).click()
  await expectText(ada.page.getByRole('main'), 'The project is being moved.')
  await state(ada.page, 'running') // it ran, so it runs again
  await look(ada.page, 'project-moved')
  await ada.page.goto(`${portal}/ada/Mover/settings/info`)
  await expectText(ada.page.getByRole('main'), to)
  await ada.page.goto(`${portal}/ada/Mover/activity`)
  await expectText(ada.page.getByRole('main'), `moves the project: Mover to ${to}`)
})

// A form that was refused is a 400 in the console.
test('no page of ours complained', () => assert.deepEqual(ada.errors.filter((e) => !e.includes('status of 400')), []))
