// JupyterLab through the whole product: a notebook, its kernel while everything
// dies once, and a cell that ends while nobody looks.
import assert from 'node:assert/strict'
import { chownSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { launch, person, picture } from './lib/chromium.mjs'
import { Lab } from './lib/lab.mjs'
import { inside, newProject, openApp, setUp, state } from './lib/portal.mjs'
import { start } from './lib/quire.mjs'
import { until } from './lib/wait.mjs'

let quire, browser, ada, tab, lab, dir, owner
before(async () => {
  quire = await start()
  browser = await launch()
  ada = await person(browser)
  await setUp(ada.page, quire.address)
  await newProject(ada.page, quire.portal, 'engine', 'Bernoulli numbers')
  await ada.page.getByRole('button', { name: 'Start', exact: true }).click()
  await state(ada.page, 'running')
  dir = join(quire.dirs.projects, 'ada/engine')
  owner = statSync(dir)
  const cell = (id) => ({ cell_type: 'code', execution_count: null, id, metadata: {}, outputs: [], source: '' })
  put('first.ipynb', JSON.stringify({ cells: ['one', 'two', 'three'].map(cell), metadata: { kernelspec: { display_name: 'Python 3', language: 'python', name: 'python3' } }, nbformat: 4, nbformat_minor: 5 }))
})
after(async () => {
  await browser?.close()
  await quire?.stop()
})

// put writes a file as the project's owner would.
function put(name, content) {
  writeFileSync(join(dir, name), content)
  chownSync(join(dir, name), owner.uid, owner.gid)
}

// saved is what the file has of a cell.
function saved(id) {
  const cell = JSON.parse(readFileSync(join(dir, 'first.ipynb'), 'utf8')).cells.find((c) => c.id === id)
  return { source: [cell.source].flat().join(''), text: cell.outputs.map((o) => [o.text ?? o.data?.['text/plain'] ?? o.ename].flat().join('')).join(''), count: cell.execution_count }
}

// processes are the app's own, by their sub-command.
function processes(word) {
  return readdirSync('/proc').filter((entry) => /^\d+$/.test(entry)).filter((pid) => {
    try { return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')[1] === word } catch { return false }
  }).map(Number)
}

test('JupyterLab opens from the project, and a notebook answers and is saved', async () => {
  tab = await openApp(ada.page, 'JupyterLab')
  lab = new Lab(tab, await inside(tab, '.jp-DirListing-item'))
  await picture(tab, 'lab')
  await lab.open('first.ipynb')
  await lab.answers(0, '6*7', '42')
  await lab.answers(0, 'kept = 20 + 1; kept', '21')
  await lab.save()
  assert.equal(saved('one').text, '21')
  await picture(tab, 'lab-notebook')
})

test('the portal\'s address of a notebook and the Workbench lead to it', async () => {
  const page = await ada.context.newPage()
  await page.goto(`${quire.portal}/ada/engine/lab/tree/first.ipynb`)
  const there = new Lab(page, await inside(page, '.jp-NotebookPanel'))
  await there.cells.nth(0).getByText('kept = 20 + 1').waitFor()
  await page.close()
  const bench = await openApp(ada.page, 'Workbench')
  const tree = await inside(bench, '#tree')
  await tree.getByRole('treeitem', { name: 'first.ipynb', exact: true }).waitFor()
  const [opened] = await Promise.all([
    ada.context.waitForEvent('page'),
    tree.getByRole('treeitem', { name: 'first.ipynb', exact: true }).dblclick(),
  ])
  const again = new Lab(opened, await inside(opened, '.jp-NotebookPanel'))
  await again.cells.nth(0).getByText('kept = 20 + 1').waitFor()
  await opened.close()
  await bench.close()
})

test('the kernel and its variables outlive every role and the app itself', async () => {
  for (const role of ['gateway', 'compute', 'spawner', 'server', 'lab']) {
    if (role === 'spawner' && !quire.role('spawner')) continue
    if (role === 'lab') {
      const [old] = processes('lab')
      process.kill(old, 'SIGKILL')
      await until('the app is started again', () => processes('lab').some((pid) => pid !== old))
    } else {
      await quire.kill(role)
    }
    await lab.answers(1, `print("after ${role}", kept * 2)`, `after ${role} 42`)
  }
})

test('a cell ends although its page was closed, and is whole on return', async () => {
  await lab.type(2, 'import time, os\nfor i in range(5):\n    print("line", i, flush=True)\n    while not os.path.exists(f"go{i}"): time.sleep(.02)\nkept + 1')
  await lab.save()
  await tab.keyboard.press('Control+Enter')
  await lab.cells.nth(2).getByText('line 0').waitFor()
  await tab.close()
  for (const i of [0, 1]) put(`go${i}`, '')
  await until('what it said so far is in the file', () => saved('three').text.includes('line 2\n'))
  // Another browser, while it still runs: what was said is there, and what comes is shown.
  tab = await openApp(ada.page, 'JupyterLab')
  lab = new Lab(tab, await inside(tab, '.jp-DirListing-item'))
  await lab.status('busy')
  await lab.cells.nth(2).getByText('line 2').waitFor()
  await picture(tab, 'lab-midway')
  for (const i of [2, 3, 4]) put(`go${i}`, '')
  await lab.cells.nth(2).getByText('line 4').waitFor()
  await lab.cells.nth(2).locator('.jp-OutputArea-executeResult').getByText('22').waitFor()
  await lab.status('idle')
  await picture(tab, 'lab-return')
  await lab.save()
  assert.equal(saved('three').text, 'line 0\nline 1\nline 2\nline 3\nline 4\n22')
})
