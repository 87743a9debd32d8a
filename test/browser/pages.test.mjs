// Every page of the portal, with data, empty and broken: no barriers, nothing
// scrolls sideways, nothing in the console, at three widths in both themes.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { launch, look, person } from './lib/chromium.mjs'
import { admin, newProject, setUp, signIn, state } from './lib/portal.mjs'
import { start } from './lib/quire.mjs'

const grace = { name: 'grace', password: 'a bug in relay seventy' }
let quire, browser, ada
before(async () => {
  quire = await start()
  browser = await launch()
  ada = await person(browser)
  await setUp(ada.page, quire.address)
  quire.commandWith(`${grace.password}\n`, 'admin', 'create', grace.name, '--password-stdin', '--member')
  await newProject(ada.page, quire.portal, 'engine', 'Bernoulli numbers, by the thousand')
  await ada.page.goto(`${quire.portal}/ada/Welcome`)
  await state(ada.page, 'running')
})
after(async () => {
  await browser?.close()
  await quire?.stop()
})

const pages = {
  dashboard: '/', new: '/new', search: '/search?q=eng', people: '/people', account: '/account', password: '/account/password',
  logins: '/account/logins', log: '/account/log', admin: '/admin', 'admin-log': '/admin/log', users: '/admin/users', help: '/help', api: '/help/api', profile: '/ada',
  'project-stopped': '/ada/engine', 'project-running': '/ada/Welcome', activity: '/ada/Welcome/activity', sessions: '/ada/Welcome/sessions',
  settings: '/ada/Welcome/settings', team: '/ada/Welcome/settings/team', permissions: '/ada/Welcome/settings/permissions', 'settings-admin': '/ada/Welcome/settings/admin',
  info: '/ada/Welcome/settings/info', app: '/ada/engine/notebook/tree',
}

for (const [name, path] of Object.entries(pages)) {
  test(`${name} at ${path}`, async () => {
    const response = await ada.page.goto(quire.portal + path)
    assert.equal(response.status(), 200)
    await look(ada.page, name)
  })
}

test('the sign-in page', async () => {
  const stranger = await person(browser)
  await stranger.page.goto(`${quire.portal}/login`)
  await look(stranger.page, 'login')
  assert.deepEqual(stranger.errors, [])
  await stranger.close()
})

test('what does not exist and what is not hers look the same', async () => {
  const member = await person(browser)
  await signIn(member.page, quire.portal, grace)
  await look(member.page, 'dashboard-empty')
  assert.deepEqual(member.errors, [])
  const texts = []
  for (const path of ['/ada/engine', '/ada/enginf']) {
    const response = await member.page.goto(quire.portal + path)
    assert.equal(response.status(), 404)
    texts.push((await member.page.locator('main').innerText()).replace(/[a-z0-9]{8,}/gi, ''))
  }
  assert.equal(texts[0], texts[1])
  await look(member.page, 'not-found')
  await member.close()
})

test('a page whose server is away says so and comes back', async () => {
  await ada.page.goto(`${quire.portal}/ada/Welcome`)
  await quire.kill('server')
  await state(ada.page, 'running')
  await ada.page.reload()
  await state(ada.page, 'running')
})

test('no page wrote an error to the console', () => {
  // The stream that broke when the server was killed is the browser's to report.
  const ours = ada.errors.filter((line) => !/ERR_(CONNECTION|INCOMPLETE|EMPTY|NETWORK)/.test(line))
  assert.deepEqual(ours, [])
})
