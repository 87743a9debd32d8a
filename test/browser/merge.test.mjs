// Two people in one notebook of JupyterLab, each in an app of their own: what one
// saves is merged by the other, chosen from, or overwritten and kept.
import assert from 'node:assert/strict'
import { chownSync, existsSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { barriers, launch, person, picture, sizes } from './lib/chromium.mjs'
import { expectText } from './lib/expect.mjs'
import { Lab } from './lib/lab.mjs'
import { inside, newProject, openApp, setUp, signIn, state } from './lib/portal.mjs'
import { start } from './lib/quire.mjs'
import { until } from './lib/wait.mjs'

const grace = { name: 'grace', password: 'a bug in relay seventy' }
let quire, browser, dir, owner, a, b
before(async () => {
  quire = await start()
  browser = await launch()
  const ada = await person(browser)
  await setUp(ada.page, quire.address)
  quire.commandWith(`${grace.password}\n`, 'admin', 'create', grace.name, '--password-stdin', '--member')
  await newProject(ada.page, quire.portal, 'engine', 'Bernoulli numbers')
  await ada.page.getByLabel('User name to add').fill(grace.name)
  await ada.page.getByRole('button', { name: 'Add', exact: true }).click()
  await ada.page.getByRole('button', { name: `Remove ${grace.name}` }).waitFor()
  await ada.page.getByRole('button', { name: 'Start', exact: true }).click()
  await state(ada.page, 'running')
  dir = join(quire.dirs.projects, 'ada/engine')
  owner = statSync(dir)
  const cell = (id) => ({ cell_type: 'code', execution_count: null, id, metadata: {}, outputs: [], source: '' })
  put('shared.ipynb', JSON.stringify({ cells: ['one', 'two', 'three'].map(cell), metadata: { kernelspec: { display_name: 'Python 3', language: 'python', name: 'python3' } }, nbformat: 4, nbformat_minor: 5 }))
  put('plan.txt', 'first\nsecond\nthird\n')
  const other = await person(browser)
  await signIn(other.page, quire.portal, grace)
  await other.page.goto(`${quire.portal}/ada/engine`)
  a = await open(ada)
  b = await open(other)
})
after(async () => {
  await browser?.close()
  await quire?.stop()
})

// refusals are what the browser itself notes when a save is refused, a name is
// free, or a file is gone: answers that the stories ask for.
const refusals = /\/api\/(contents\/(shared\.ipynb|plan\.txt|of-ada\.ipynb)(\/checkpoints)?|merge\/plan\.txt)(\?|$)/
// JupyterLab asks for the snapshots of a file that the story has just taken away,
// and lets the answer fall.
const gone = /There is no such file or directory any more/

// open opens JupyterLab and the notebook as a person, whose errors are noted.
async function open({ page }) {
  const tab = await openApp(page, 'JupyterLab')
  const lab = new Lab(tab, await inside(tab, '.jp-DirListing-item'))
  const errors = []
  tab.on('pageerror', (error) => { if (!gone.test(String(error))) errors.push(String(error)) })
  tab.on('console', (m) => { if (m.type() === 'error' && !refusals.test(m.location().url)) errors.push(`${m.location().url}: ${m.text()}`) })
  await lab.open('shared.ipynb')
  return Object.assign(lab, { errors })
}

function put(name, content) {
  writeFileSync(join(dir, name), content)
  chownSync(join(dir, name), owner.uid, owner.gid)
}

const text = (x) => [x].flat().join('')
const cells = (name = 'shared.ipynb') => JSON.parse(readFileSync(join(dir, name), 'utf8')).cells
const sources = (name) => cells(name).map((c) => text(c.source))
const outputs = (c) => c.outputs.map((o) => text(o.text ?? o.data['text/plain'])).join('')

// show takes pictures of the dialog and looks for barriers in it.
async function show(lab, name) {
  for (const colorScheme of ['light', 'dark']) {
    await lab.page.emulateMedia({ colorScheme, reducedMotion: 'reduce' })
    await until(`JupyterLab is ${colorScheme}`, () => lab.view.locator(`body[data-jp-theme-light="${colorScheme === 'light'}"]`).count())
    for (const size of ['wide', 'phone']) {
      await lab.page.setViewportSize(sizes[size])
      await picture(lab.page, `${name}-${size}-${colorScheme}`)
      const over = await lab.dialog.locator('.jp-Dialog-content').evaluate((el) => el.scrollWidth - el.clientWidth)
      assert.ok(over <= 0, `${name} is ${over} px too wide on a ${size}`)
    }
    await barriers(lab.view, `${name} (${colorScheme})`, '.jp-Dialog')
  }
  await lab.page.emulateMedia({ colorScheme: 'light' })
  await lab.page.setViewportSize(sizes.wide)
}

test('what each did in other cells is merged, with the outputs of both', async () => {
  await a.answers(0, 'print("from ada")', 'from ada')
  await a.save()
  await b.answers(1, 'print("from grace")', 'from grace')
  await b.refused(/^ada changed this notebook at \d/)
  await show(b, 'merge')
  await b.page.keyboard.press('Enter') // Merge has the focus
  await b.saved()
  await expectText(b.cells.nth(0).locator('.jp-OutputArea-output'), 'from ada')
  await expectText(b.cells.nth(1).locator('.jp-OutputArea-output'), 'from grace')
  assert.deepEqual(cells().map((c) => [c.id, text(c.source), outputs(c)]), [
    ['one', 'print("from ada")', 'from ada\n'], ['two', 'print("from grace")', 'from grace\n'], ['three', '', ''],
  ])
  await picture(b.page, 'merged')
})

test('where both changed one cell, each chooses', async () => {
  await a.type(2, 'n = "of ada"')
  await a.type(0, 'print("ada again")')
  await a.refused(/^grace changed this notebook at/)
  await a.choose('Merge')
  await a.saved()

  await b.type(2, 'n = "of grace"')
  await b.refused(/^ada changed/)
  await expectText(b.dialog, 'You both changed one cell')
  await b.page.keyboard.press('Enter') // Compare has the focus
  const cell = b.dialog.getByRole('group', { name: 'Cell 3: changed by both' })
  await expectText(cell.getByRole('group', { name: 'Yours' }), 'n = "of grace"')
  await expectText(cell.getByRole('group', { name: 'ada’s' }), 'n = "of ada"')
  assert.ok(await cell.getByRole('radio', { name: 'Both' }).isChecked())
  await expectText(b.dialog.locator('section'), 'ada again')
  await show(b, 'compare')
  await cell.getByRole('radio', { name: 'Both' }).press('ArrowUp')
  assert.ok(await cell.getByRole('radio', { name: 'ada’s' }).isChecked())
  await b.choose('Merge Like This')
  await b.saved()
  assert.deepEqual(sources(), ['print("ada again")', 'print("from grace")', 'n = "of ada"'])
})

test('both versions of a cell may stay, with a line between them that lasts', async () => {
  await a.type(2, 'n = 1') // grace took over all of hers, so there is nothing to ask
  await a.save()
  await b.type(2, 'n = 2')
  await b.refused(/^ada changed/)
  await b.choose('Merge')
  await b.saved()
  const [, , mine, mark, theirs] = cells()
  assert.deepEqual([text(mine.source), mark.cell_type, text(theirs.source)], ['n = 2', 'markdown', 'n = 1'])
  assert.match(text(mark.source), /as ada saved it at \d/)
  assert.deepEqual(mark.metadata.tags, ['conflict'])
  await picture(b.page, 'both')
})

test('a cell that runs goes on through a merge', async () => {
  await a.type(0, 'print("meanwhile")')
  await a.refused(/^grace changed/)
  await a.choose('Merge')
  await a.saved()
  await b.run(1, 'import os\nprint("begun", flush=True)\nwhile not os.path.exists("go"): pass\nprint("went on")')
  await expectText(b.cells.nth(1).locator('.jp-OutputArea-output'), 'begun')
  await b.refused(/^ada changed/)
  await b.choose('Merge')
  await b.saved()
  await expectText(b.cells.nth(0), 'meanwhile')
  put('go', '')
  await expectText(b.cells.nth(1).locator('.jp-OutputArea-output'), 'went on')
  await b.save()
  assert.equal(outputs(cells()[1]), 'begun\nwent on\n')
})

test('what is overwritten is among the snapshots', async () => {
  await a.type(0, 'print("lost?")')
  await a.refused(/^grace changed/)
  await a.choose('Merge')
  await a.saved()
  await b.type(0, 'print("grace alone")')
  await b.refused(/^ada changed/)
  await b.choose('Overwrite')
  await b.saved()
  assert.equal(sources()[0], 'print("grace alone")')
  const found = await b.view.evaluate(async () => {
    const at = `${location.pathname.split('/lab')[0]}/lab/api/contents/shared.ipynb/checkpoints`
    const list = await (await fetch(at)).json()
    return Promise.all(list.map(async ({ id }) => (await (await fetch(`${at}/${id}`)).json()).content.cells[0].source))
  })
  assert.ok(found.includes('print("lost?")'), found)
})

test('mine goes under another name, and theirs is here', async () => {
  await a.type(1, 'mine = True')
  await a.refused(/^grace changed/)
  await a.choose('Save As…')
  await a.dialog.getByRole('textbox').fill('plan.txt')
  await a.choose('Save')
  await expectText(a.dialog, 'There is already something called plan.txt')
  await a.choose('Close')
  await a.dialog.getByRole('textbox').fill('of-ada.ipynb')
  await a.choose('Save')
  await until('it is saved', () => existsSync(join(dir, 'of-ada.ipynb')) && sources('of-ada.ipynb')[1] === 'mine = True')
  assert.equal(sources()[0], 'print("grace alone")')
  await a.view.locator('.lm-TabBar-tab', { hasText: 'of-ada.ipynb' }).waitFor()
  await a.view.locator('.lm-TabBar-tab', { hasText: 'shared.ipynb' }).click()
  await expectText(a.cells.nth(0), 'grace alone')
  await a.saved()
})

test('one who saves first of two that were refused is not overwritten by the second', async () => {
  await b.type(0, 'print("first")')
  await b.save()
  await a.type(1, 'a = 1')
  await a.refused(/^grace changed/)
  await b.type(1, 'b = 1')
  await b.save()
  await a.choose('Merge') // with what was there when the dialog opened
  await expectText(a.dialog, 'You both changed one cell')
  await a.page.keyboard.press('Escape')
  await a.dialog.waitFor({ state: 'detached' })
  assert.deepEqual(sources().slice(0, 2), ['print("first")', 'b = 1'])
  await a.refused(/^grace changed/)
  await a.choose('Revert')
  await a.saved()
  await expectText(a.cells.nth(1), 'b = 1')
})

test('a file of text is compared, and one that is gone is saved again', async () => {
  for (const lab of [a, b]) await lab.edit('plan.txt')
  await a.page.keyboard.press('Control+Home')
  await a.page.keyboard.insertText('ada\n')
  await a.save()
  await b.page.keyboard.press('Control+End')
  await b.page.keyboard.insertText('grace\n')
  await b.refused(/^ada changed this file at/)
  assert.equal(await b.dialog.getByRole('button', { name: 'Merge' }).count(), 0)
  await b.choose('Compare…')
  await expectText(b.dialog.getByRole('group', { name: 'ada’s' }).locator('mark').first(), 'ada')
  await show(b, 'compare-text')
  await b.choose('Back')
  await b.choose('Overwrite')
  await b.saved()
  assert.equal(readFileSync(join(dir, 'plan.txt'), 'utf8'), 'first\nsecond\nthird\ngrace\n')

  renameSync(join(dir, 'plan.txt'), join(dir, 'moved.txt'))
  await b.page.keyboard.insertText('more\n')
  await b.refused(/^This file was deleted or renamed/)
  await b.choose('Save Again')
  await b.saved()
  assert.equal(readFileSync(join(dir, 'plan.txt'), 'utf8'), 'first\nsecond\nthird\ngrace\nmore\n')
})

test('nothing failed in the pages', () => {
  assert.deepEqual([...a.errors, ...b.errors], [])
})
