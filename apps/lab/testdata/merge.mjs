// Two pages change one notebook, in Chromium: node merge.mjs ADDRESS DIRECTORY.
// What is not as it should be ends it with an error.
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { launch } from '../../../test/browser/lib/chromium.mjs'
import { until } from '../../../test/browser/lib/wait.mjs'

const [site, dir] = process.argv.slice(2)
const pictures = process.env.PICTURES ?? ''
const file = join(dir, 'shared.ipynb')
const onDisk = () => JSON.parse(readFileSync(file, 'utf8')).cells.map((c) => [c.source].flat().join(''))
const browser = await launch()
const open = async () => {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 } })
  context.setDefaultTimeout(60_000)
  const page = await context.newPage()
  await page.goto(`${site}/tree/shared.ipynb`)
  await page.locator('.jp-Notebook .jp-Cell').first().waitFor()
  await page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').waitFor({ state: 'attached' })
  return page
}
const type = async (page, at, text) => {
  await page.locator('.jp-Notebook .jp-Cell').nth(at).locator('.cm-content').click()
  await page.keyboard.press('Control+a')
  await page.keyboard.insertText(text)
}
const dialog = (page) => page.locator('.jp-Dialog')
const picture = async (page, name) => { if (pictures) await page.screenshot({ path: join(pictures, `lab-${name}.png`) }) }
const clean = (page) => until('it is saved', async () => !(await page.locator('.lm-TabBar-tab.lm-mod-current.jp-mod-dirty').count()))

const ann = await open()
const ben = await open()
await type(ann, 0, 'by ann')
await ann.keyboard.press('Control+s')
await clean(ann)
await type(ben, 1, 'by ben')
await ben.keyboard.press('Control+s')
// Both pages are one account's, so it is oneself who did it.
await dialog(ben).getByText(/^You changed this notebook elsewhere at \d/).waitFor()
await picture(ben, 'changed')
await dialog(ben).getByRole('button', { name: 'Merge' }).click()
await until('both are there', () => onDisk().join('|') === 'by ann|by ben|three')
await clean(ben)
assert.match(await ben.locator('.jp-Notebook .jp-Cell').nth(0).innerText(), /by ann/)

// The same cell: one sees both and chooses.
await type(ann, 2, 'ann three')
await ann.keyboard.press('Control+s')
await dialog(ann).getByRole('button', { name: 'Merge' }).click()
await until('hers is there', () => onDisk().join('|') === 'by ann|by ben|ann three')
await type(ben, 2, 'ben three')
await ben.keyboard.press('Control+s')
await dialog(ben).getByRole('button', { name: 'Merge' }).click()
await dialog(ben).getByText('Cell 3, source').waitFor()
await picture(ben, 'both')
assert.match(await dialog(ben).innerText(), /ben three[\s\S]*ann three/)
await dialog(ben).getByLabel(/Theirs/).check()
await dialog(ben).getByRole('button', { name: 'Merge' }).click()
await clean(ben)
assert.deepEqual(onDisk(), ['by ann', 'by ben', 'ann three'])
assert.match(await ben.locator('.jp-Notebook .jp-Cell').nth(2).innerText(), /ann three/)

// Canceled, nothing is written; overwritten, theirs is among the checkpoints.
writeFileSync(file, readFileSync(file, 'utf8').replace('ann three', 'of a program'))
await type(ben, 2, 'ben again')
await ben.keyboard.press('Control+s')
await dialog(ben).getByRole('button', { name: 'Cancel' }).click()
assert.equal(onDisk()[2], 'of a program')
await ben.keyboard.press('Control+s')
await dialog(ben).getByRole('button', { name: 'Overwrite' }).click()
await until('it is overwritten', () => onDisk()[2] === 'ben again')
const kept = await ben.evaluate(async (at) => {
  const points = await (await fetch(`${at}/api/contents/shared.ipynb/checkpoints`)).json()
  const books = await Promise.all(points.map(async (p) => (await fetch(`${at}/api/contents/shared.ipynb/checkpoints/${p.id}`)).json()))
  return books.map((b) => b.content.cells[2].source)
}, new URL(site).pathname)
assert.ok(kept.includes('of a program'), String(kept))
await browser.close()
