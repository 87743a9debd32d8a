// Two people, one project: made from the form, shared by its address, worked in
// while every role dies once, and stopped.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { launch, person, picture } from './lib/chromium.mjs'
import { expectText } from './lib/expect.mjs'
import { Notebook } from './lib/notebook.mjs'
import { inside, newProject, openApp, setUp, signIn, state, stopProject } from './lib/portal.mjs'
import { start } from './lib/quire.mjs'

const grace = { name: 'grace', password: 'a bug in relay seventy' }
let quire, browser, ada, other, tab, notebook
before(async () => {
  quire = await start()
  browser = await launch()
  ada = await person(browser)
  await setUp(ada.page, quire.address)
  quire.commandWith(`${grace.password}\n`, 'admin', 'create', grace.name, '--password-stdin', '--member')
})
after(async () => {
  await browser?.close()
  await quire?.stop()
})

test('make a project and start it', async () => {
  await newProject(ada.page, quire.portal, 'engine', 'Bernoulli numbers')
  await state(ada.page, 'stopped')
  await ada.page.getByRole('button', { name: 'Start', exact: true }).click()
  await state(ada.page, 'running')
})

test('a notebook of her own answers and is saved', async () => {
  tab = await openApp(ada.page, 'Notebook')
  const list = await inside(tab, '#notebook_list')
  await list.getByRole('button', { name: 'New' }).click()
  const [page] = await Promise.all([
    ada.context.waitForEvent('page'),
    list.locator('#kernel-python3 a').click(),
  ])
  notebook = await new Notebook(page, await inside(page, '#notebook-container')).ready()
  await notebook.answers('6*7', '42')
  await notebook.answers('kept = 20 + 1; kept', '21')
  await notebook.save()
})

test('the kernel and its variables outlive every role, and the page reconnects by itself', async () => {
  for (const role of ['gateway', 'compute', 'spawner', 'server']) {
    if (role === 'spawner' && !quire.role('spawner')) continue
    await quire.kill(role)
    await state(ada.page, 'running', 10_000)
    // Jupyter's page waits twice as long after every try in vain: 1, 2, 4 … seconds.
    await notebook.view.locator('.kernel_idle_icon').waitFor({ state: 'attached', timeout: 90_000 })
    await notebook.answers(`print("after ${role}", kept * 2)`, `after ${role} 42`)
  }
})

test('a member opens the shared address in an app of her own', async () => {
  await ada.page.getByLabel('User name to add').fill(grace.name)
  await ada.page.getByRole('button', { name: 'Add', exact: true }).click()
  await ada.page.getByRole('button', { name: `Remove ${grace.name}` }).waitFor()

  other = await person(browser)
  await signIn(other.page, quire.portal, grace)
  const shared = `${quire.portal}/ada/engine/notebook/tree`
  await other.page.goto(shared)
  await other.page.getByRole('button', { name: 'Start Notebook' }).click()
  await inside(other.page, '#notebook_list a[href*="Untitled.ipynb"]')
  assert.notEqual(new URL(other.page.url()).origin, new URL(tab.url()).origin)
  // The same address leads ada to her own, which runs.
  const again = await ada.context.newPage()
  await again.goto(shared)
  await inside(again, '#notebook_list')
  assert.equal(new URL(again.url()).origin, new URL(tab.url()).origin)
  await again.close()
})

test('who is removed is out within five seconds: sockets close and nothing lets her in again', async () => {
  await other.page.goto(`${quire.portal}/ada/engine`)
  const terminal = await openApp(other.page, 'Terminal')
  await inside(terminal, '.xterm')
  const closed = new Promise((resolve) => terminal.on('websocket', (socket) => socket.on('close', () => resolve('closed'))))
  await terminal.reload()
  await inside(terminal, '.xterm')

  await ada.page.getByRole('button', { name: `Remove ${grace.name}` }).click()
  await ada.page.getByRole('button', { name: `Remove ${grace.name}` }).waitFor({ state: 'detached' })
  const slow = new Promise((resolve) => setTimeout(() => resolve('still open'), 5_000).unref())
  assert.equal(await Promise.race([closed, slow]), 'closed')

  // In a tab of its own: the page that was open notices, and loads anew by itself.
  const origin = new URL(terminal.url()).origin
  const late = await other.context.newPage()
  const answer = await late.goto(`${origin}/terminal/`)
  assert.equal(answer.status(), 404)
  const page = await late.goto(`${quire.portal}/ada/engine`)
  assert.equal(page.status(), 404)
  await late.close()
})

test('stop says whose work ends, and the open app says who stopped it', async () => {
  await ada.page.bringToFront()
  await stopProject(ada.page)
  await expectText(tab.locator('#state'), /stopped.*ada/i, 10_000)
  await tab.reload()
  await expectText((await inside(tab, 'h1:has-text("was stopped")')).locator('main'), /stopped.*ada/is)
  await picture(tab, 'stopped')
})
