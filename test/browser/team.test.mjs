// One project, four people: its owner, an editor, a viewer, a stranger. Both
// writers change the same file from Workbench, Jupyter and a terminal; the viewer
// reads; the stranger finds nothing; who is removed keeps nothing.
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { chownSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { launch, person, picture } from './lib/chromium.mjs'
import { expectText } from './lib/expect.mjs'
import { Notebook } from './lib/notebook.mjs'
import { inside, openApp, setUp, signIn, state } from './lib/portal.mjs'
import { asRoot, start } from './lib/quire.mjs'
import { until } from './lib/wait.mjs'

const names = ['ben', 'vic', 'eve']
const password = 'a bug in relay seventy'
let quire, browser, ada, ben, vic, eve, dir, terminal, shell

before(async () => {
  quire = await start()
  browser = await launch()
  ada = await person(browser)
  await setUp(ada.page, quire.address)
  for (const name of names) quire.commandWith(`${password}\n`, 'admin', 'create', name, '--password-stdin', '--member')
  ;[ben, vic, eve] = await Promise.all(names.map(async (name) => {
    const one = await person(browser)
    await signIn(one.page, quire.portal, { name, password })
    return one
  }))
  await state(ada.page, 'running')
  dir = join(quire.dirs.projects, 'ada/Welcome')
})
after(async () => {
  await browser?.close()
  await quire?.stop()
})

const read = (name) => readFileSync(join(dir, name), 'utf8')
const contains = (name, word) => until(`${word} in ${name}`, () => { try { return read(name).includes(word) } catch { return false } })

// type enters a line into a terminal and waits for what it must print.
async function type(line, word) {
  await shell.locator('.xterm-helper-textarea').first().focus()
  await terminal.keyboard.insertText(line)
  await terminal.keyboard.press('Enter')
  if (word) await shell.locator('.xterm-rows', { hasText: word }).waitFor()
}

test('the owner shares with an editor and a viewer by name', async () => {
  const name = ada.page.getByLabel('User name to add')
  await name.pressSequentially('be')
  await ada.page.locator('datalist option[value="ben"]').waitFor({ state: 'attached' })
  await name.fill('ben')
  await ada.page.getByRole('button', { name: 'Add', exact: true }).click()
  await ada.page.getByRole('button', { name: 'Remove ben' }).waitFor()
  await name.fill('vic')
  await ada.page.getByLabel('Role', { exact: true }).selectOption('viewer')
  await ada.page.getByRole('button', { name: 'Add', exact: true }).click()
  await ada.page.getByRole('button', { name: 'Remove vic' }).waitFor()
})

test('both change one file: in a Workbench, in Jupyter, in a terminal, in the other Workbench', async () => {
  await ben.page.goto(`${quire.portal}/ada/Welcome`)
  terminal = await openApp(ben.page, 'Terminal')
  shell = await inside(terminal, '.xterm')
  await type('echo from a terminal > shared.txt && id -un', asRoot ? 'ben' : '')
  await contains('shared.txt', 'from a terminal')

  const list = await openApp(ada.page, 'Notebook')
  const view = await inside(list, '#notebook_list, #notebook-container')
  let page = list
  if (await view.locator('#notebook_list').count()) {
    ;[page] = await Promise.all([ada.context.waitForEvent('page'), view.getByRole('link', { name: 'Welcome.ipynb' }).click()])
  }
  ada.notebook = await new Notebook(page, await inside(page, '#notebook-container')).ready()
  await ada.notebook.answers('print(open("shared.txt").read(), file=open("seen.txt", "w")); print(open("shared.txt", "a").write("from jupyter\\n"))', '13')

  for (const [who, line] of [[ada, 'from her workbench'], [ben, 'from his workbench']]) {
    const tab = await openApp(who.page, 'Workbench')
    const bench = await inside(tab, '#tree')
    await bench.getByRole('treeitem', { name: 'shared.txt', exact: true }).dblclick()
    const text = bench.locator('.panel:not([hidden]) .cm-content').first()
    await expectText(text, 'from jupyter')
    await text.click()
    await tab.keyboard.press('Control+End')
    await tab.keyboard.insertText(`${line}\n`)
    await tab.keyboard.press('Control+s')
    await expectText(bench.locator('.panel:not([hidden]) .foot'), 'Saved at')
    await tab.close()
  }
  await type('grep -c from shared.txt | sed s/^/lines=/', 'lines=4')
  assert.deepEqual(read('shared.txt').trim().split('\n'), ['from a terminal', 'from jupyter', 'from her workbench', 'from his workbench'])
})

test('what one installs the other imports', async () => {
  const owner = statSync(join(dir, 'shared.txt'))
  writeFileSync(join(dir, 'wheel.py'), `import zipfile
with zipfile.ZipFile("friendly-1.0-py3-none-any.whl", "w") as z:
    z.writestr("friendly.py", "word = 'hello'")
    z.writestr("friendly-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: friendly\\nVersion: 1.0\\n")
    z.writestr("friendly-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    z.writestr("friendly-1.0.dist-info/RECORD", "")
`)
  chownSync(join(dir, 'wheel.py'), owner.uid, owner.gid)
  await type('clear; python3 wheel.py && envs/default/bin/pip install -q --no-index --no-deps ./friendly-1.0-py3-none-any.whl && echo in""stalled', 'installed')
  await ada.notebook.answers('import friendly; friendly.word', 'hello')
})

test('the viewer reads and does not write', async () => {
  await vic.page.goto(`${quire.portal}/ada/Welcome`)
  for (const title of ['Notebook', 'Terminal', 'Workbench']) assert.equal(await vic.page.getByRole('button', { name: `${title} opens in a new tab`, disabled: false }).count(), 0, title)
  const tab = await openApp(vic.page, 'Viewer')
  const view = await inside(tab, 'table.files')
  await view.getByRole('link', { name: 'shared.txt' }).click()
  await (await inside(tab, '.listing')).getByText('from his workbench').waitFor()
  await picture(tab, 'viewer-in-frame')
  assert.equal((await vic.page.goto(`${quire.portal}/ada/Welcome/terminal/`)).status(), 403)
  if (asRoot) {
    assert.match(execFileSync('/usr/sbin/runuser', ['-u', 'vic', '--', 'cat', join(dir, 'shared.txt')], { encoding: 'utf8' }), /from jupyter/)
    assert.throws(() => execFileSync('/usr/sbin/runuser', ['-u', 'vic', '--', 'sh', '-c', `echo x >> ${dir}/shared.txt || touch ${dir}/x`], { stdio: 'ignore' }))
  }
})

test('the stranger finds nothing', async () => {
  for (const path of ['', '/viewer/', '/terminal/', '/settings/team', '/sessions']) {
    assert.equal((await eve.page.goto(`${quire.portal}/ada/Welcome${path}`)).status(), 404, path)
  }
  await eve.page.goto(`${quire.portal}/search?q=Welcome`)
  assert.equal(await eve.page.getByRole('main').getByRole('link', { name: /Welcome/ }).count(), 0)
})

test('who is removed is out: his terminal, and what he runs elsewhere', async () => {
  let elsewhere
  if (asRoot) {
    elsewhere = spawn('/usr/sbin/runuser', ['-u', 'ben', '--', 'sh', '-c', 'cd "$1" && echo there && exec sleep 1000', 'sh', dir], { stdio: ['ignore', 'pipe', 'ignore'] })
    await new Promise((resolve) => elsewhere.stdout.once('data', resolve))
  }
  const closed = new Promise((resolve) => terminal.on('websocket', (socket) => socket.on('close', () => resolve('closed'))))
  await terminal.reload()
  shell = await inside(terminal, '.xterm')
  await ada.page.bringToFront()
  await ada.page.getByRole('button', { name: 'Remove ben' }).click()
  await ada.page.getByRole('button', { name: 'Remove ben' }).waitFor({ state: 'detached' })
  assert.equal(await Promise.race([closed, new Promise((resolve) => setTimeout(() => resolve('still open'), 5_000).unref())]), 'closed')
  await ada.page.getByText(/evoked on 1 of 1 nodes/).waitFor({ timeout: 15_000 })
  if (asRoot) {
    await until('what he ran elsewhere has ended', () => elsewhere.exitCode !== null || elsewhere.signalCode !== null, 5_000)
    await until('nothing of his runs', () => { try { execFileSync('pgrep', ['-u', 'ben']); return false } catch { return true } }, 5_000)
    assert.throws(() => execFileSync('/usr/sbin/runuser', ['-u', 'ben', '--', 'cat', join(dir, 'shared.txt')], { stdio: 'ignore' }))
  }
  assert.equal((await ben.page.goto(`${quire.portal}/ada/Welcome`)).status(), 404)
  await picture(ada.page, 'team-after-removal')
})
