// The way from the set-up link to an answered cell in the Firefox that Debian ships.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { join } from 'node:path'
import { keys, launchFirefox } from './lib/firefox.mjs'
import { admin } from './lib/portal.mjs'
import { pictures, start } from './lib/quire.mjs'
import { until } from './lib/wait.mjs'

let quire, firefox
before(async () => {
  quire = await start()
  firefox = await launchFirefox()
})
after(async () => {
  await firefox?.close()
  await quire?.stop()
})

test('set up, open the notebook and run a cell in Firefox', async () => {
  await firefox.go(quire.address)
  await firefox.fill('#name', admin.name)
  await firefox.fill('#password', admin.password)
  await firefox.fill('#again', admin.password)
  await firefox.click('form button.main')
  await firefox.wait(`location.pathname === '/${admin.name}/Welcome' && document.body.innerText.includes('running')`, 60_000)

  // The shared address of the app, as somebody would paste it.
  await firefox.go(`${quire.portal}/${admin.name}/Welcome/notebook/notebooks/Welcome.ipynb`)
  if (await firefox.evaluate(`location.origin === '${quire.portal}'`)) await firefox.click('form button.main')
  const frame = await until('the notebook is in the page', async () => {
    for (const context of [{ context: firefox.context }, ...(await firefox.frames().catch(() => []))]) {
      if (await firefox.evaluate(`!!document.querySelector('.kernel_idle_icon') && !!globalThis.Jupyter?.notebook`, context.context).catch(() => false)) return context.context
    }
    return null
  }, 90_000)
  assert.match(await firefox.url(), /\.apps\.localhost/)

  await firefox.evaluate(`(() => { const n = Jupyter.notebook; const cell = n.insert_cell_below('code'); cell.set_text('6*7'); n.select(n.find_cell_index(cell)); cell.focus_cell(); n.command_mode() })()`, frame)
  await firefox.chord(keys.control, keys.enter)
  await firefox.wait(`[...document.querySelectorAll('.output_result')].some((out) => out.innerText.includes('42'))`, 60_000, frame)
  await firefox.screenshot(join(pictures(), 'notebook-firefox.png'))
})
