// A stranger's first minutes: the printed address, a name and a password, the
// sample project, its notebook in real Jupyter, a cell that answers.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { expectText } from './lib/expect.mjs'
import { launch, look, person, picture } from './lib/chromium.mjs'
import { Notebook } from './lib/notebook.mjs'
import { admin, inside, openApp, setUp, state, stopProject } from './lib/portal.mjs'
import { start } from './lib/quire.mjs'

let quire, browser, ada
before(async () => {
  quire = await start({ plain: true })
  browser = await launch()
  ada = await person(browser)
})
after(async () => {
  await browser?.close()
  await quire?.stop()
})

// clicks counts what a person presses, in every frame of every tab.
async function counted(context) {
  let clicks = 0
  await context.exposeBinding('countClick', () => { clicks++ })
  await context.addInitScript(() => document.addEventListener('click', (event) => event.isTrusted && globalThis.countClick(), true))
  return () => clicks
}

test('the set-up page sees that this browser reaches the origins of apps', async () => {
  await ada.page.goto(quire.address)
  await ada.page.getByText('Yes, apps can be reached.').waitFor()
})

test('from the printed address to an answered cell in at most six clicks', async () => {
  const clicks = await counted(ada.context)
  await ada.page.goto(quire.address)
  await look(ada.page, 'setup')
  await setUp(ada.page, quire.address)
  assert.equal(new URL(ada.page.url()).pathname, `/${admin.name}/Welcome`)
  await state(ada.page, 'running')

  const tab = await openApp(ada.page, 'Notebook')
  await tab.waitForURL((url) => url.host.includes('.apps.localhost'))
  let view = await inside(tab, '#notebook-container, #notebook_list')
  let page = tab
  if (await view.locator('#notebook_list').count()) {
    ;[page] = await Promise.all([ada.context.waitForEvent('page'), view.getByRole('link', { name: 'Welcome.ipynb' }).click()])
    view = await inside(page, '#notebook-container')
  }
  const notebook = await new Notebook(page, view).ready()
  // The sample's first cell of code is run as it stands.
  const cell = view.locator('.code_cell').first()
  await cell.locator('.input_area').click()
  await view.locator('button[data-jupyter-action="jupyter-notebook:run-cell-and-select-next"]').click()
  await expectText(cell.locator('.input_prompt'), /\[1\]/)
  await cell.locator('.output_subarea').first().waitFor()
  const pressed = clicks()
  assert.ok(pressed <= 6, `${pressed} clicks`)
  await view.locator('.code_cell').nth(1).scrollIntoViewIfNeeded()
  await picture(page, 'notebook')

  await notebook.answers('6*7', '42')
  await notebook.save()
})

test('the project page shows the running notebook, and its look is right', async () => {
  await ada.page.bringToFront()
  await ada.page.getByRole('button', { name: /Stop Notebook/ }).waitFor()
  await look(ada.page, 'project')
})

test('the terminal keeps its scrollback when the tab is closed', async () => {
  let tab = await openApp(ada.page, 'Terminal')
  let view = await inside(tab, '.xterm')
  await view.locator('.xterm-helper-textarea').first().focus()
  await tab.keyboard.type('echo "$((40+2)) is the answer in $PROJECT_NAME"\n')
  await view.locator('.xterm-rows', { hasText: '42 is the answer in Welcome' }).waitFor()
  await picture(tab, 'terminal')
  await tab.close()

  tab = await openApp(ada.page, 'Terminal')
  view = await inside(tab, '.xterm')
  await view.locator('.xterm-rows', { hasText: '42 is the answer in Welcome' }).waitFor()
  await tab.close()
})

test('a second start says where Quire runs', () => {
  assert.match(quire.command('up'), new RegExp(`already running at ${quire.portal}`))
})

test('stop ends the sessions and says so', async () => {
  await stopProject(ada.page)
  await ada.page.getByText('Nobody runs anything right now.').waitFor()
})

test('no page wrote an error to the console', () => assert.deepEqual(ada.errors, []))
