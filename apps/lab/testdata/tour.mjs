// What a person does with JupyterLab, in Chromium: node tour.mjs SITE DIRECTORY
// ENVIRONMENT EXTENSIONS. DIRECTORY is what the server shows, ENVIRONMENT where it
// looks for extensions, EXTENSIONS has those that Jupyter's builder made. Everything
// that is not as it should be ends the tour with an error.
import assert from 'node:assert/strict'
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { launch } from '../../../test/browser/lib/chromium.mjs'
import { until as wait } from '../../../test/browser/lib/wait.mjs'

const [site, dir, env, builtExtensions] = process.argv.slice(2)
const until = (what, ask) => wait(what, ask, 90_000)
const pictures = process.env.PICTURES ?? ''
const cell = (source, outputs = []) => ({ cell_type: 'code', execution_count: null, id: Math.random().toString(36).slice(2), metadata: {}, outputs, source })
const notebook = (...cells) => JSON.stringify({ cells, metadata: { kernelspec: { display_name: 'Python 3 (ipykernel)', language: 'python', name: 'python3' } }, nbformat: 4, nbformat_minor: 5 })
mkdirSync(join(dir, 'data sets'))
writeFileSync(join(dir, 'data sets', 'first ünicode.ipynb'), notebook(cell('6 * 7'), cell(''), cell('')))
// Nobody has run this one here, so nothing in it is trusted.
writeFileSync(join(dir, 'hostile.ipynb'), notebook(cell('', [
  { output_type: 'display_data', metadata: {}, data: { 'text/html': '<p class=harmless>told</p><img src=x onerror="window.hurt = 1"><script>window.hurt = 2</script>' } },
])))
writeFileSync(join(dir, 'table.csv'), 'a,b\n1,2\n')

const extensions = new URL('labextensions', import.meta.url).pathname

const browser = await launch()
const told = [] // what pages that are open have to say when the tour ends badly
// What JupyterLab says of itself, built by whomever, and where no nbconvert is; a refused save.
const known = [/yjs#509/, /\/api\/nbconvert/, /fetchExportFormats/, /notes\.txt\?\d+ .* status of 409/]

// open opens an address and hears everything that goes wrong there.
async function open(address, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ...options })
  context.setDefaultTimeout(90_000)
  const seen = { errors: [], hosts: new Set(), bytes: 0, requests: 0 }
  context.on('weberror', (e) => seen.errors.push(String(e.error()?.stack ?? e.error())))
  context.on('console', (m) => { if (m.type() === 'error') seen.errors.push(`${m.location().url} ${m.text()}`) })
  context.on('request', (r) => { seen.requests++; if (/^(https?|wss?):/.test(r.url())) seen.hosts.add(new URL(r.url()).host) })
  const page = await context.newPage()
  const devtools = await context.newCDPSession(page)
  await devtools.send('Network.enable')
  devtools.on('Network.loadingFinished', (e) => { seen.bytes += e.encodedDataLength })
  await page.goto(site + address)
  await page.waitForFunction(() => performance.getEntriesByName('lab-restored').length > 0)
  const tell = () => [page.url(), ...seen.errors]
  told.push(tell)
  const clean = () => {
    const wrong = seen.errors.filter((e) => !known.some((k) => k.test(e)))
    assert.deepEqual(wrong, [], 'errors in the console')
    assert.deepEqual([...seen.hosts], [new URL(site).host], 'asked other hosts')
  }
  return { page, seen, clean, close: () => (told.splice(told.indexOf(tell), 1), context.close()) }
}
const shot = (page, name) => pictures ? page.screenshot({ path: join(pictures, `${name}.png`) }) : undefined
const run = (page, command, args = {}) => page.evaluate(([c, a]) => window.jupyterapp.commands.execute(c, a).then((v) => typeof v === 'string' ? v : ''), [command, args])
// put writes a cell's text and runs it.
const put = (page, at, text) => page.evaluate(([i, source]) => {
  const panel = window.jupyterapp.shell.currentWidget
  panel.content.activeCellIndex = i
  panel.content.activeCell.model.sharedModel.setSource(source)
  return window.jupyterapp.commands.execute('notebook:run-cell').then(() => undefined)
}, [at, text])

async function part(name, what) {
  const began = Date.now()
  await what()
  console.log(`  ${name}: ${Date.now() - began} ms`)
}

try {
  await part('the launcher', async () => {
    const { page, seen, clean, close } = await open('/p/lab/')
    await page.locator('.jp-LauncherCard').first().waitFor()
    console.log(`  first load: ${seen.requests} requests, ${Math.round(seen.bytes / 1000)} KB`)
    assert.ok(seen.bytes > 500_000 && seen.bytes <= 1_300_000, `the first load is ${seen.bytes} bytes`)
    // What we add.
    const bar = page.locator('#jp-main-statusbar')
    await bar.getByText('ada/welcome').waitFor()
    assert.equal(await bar.getByText('ada/welcome').getAttribute('target'), '_top')
    await bar.getByText('Grace is here').waitFor()
    await bar.getByText('Runs on in your absence').waitFor()
    assert.match(await bar.getByText('Stop', { exact: true }).getAttribute('href'), /\/sessions$/)
    const line = page.locator('#quire-announcements')
    await line.getByText('restarted on Sunday').waitFor()
    assert.equal(await line.locator('a').count(), 0, 'an address that runs something became a link')
    await shot(page, 'lab-launcher')
    await line.getByRole('button', { name: 'Close: The machines' }).click()
    assert.equal(await line.getByText('restarted on Sunday').count(), 0)
    await page.reload()
    await line.getByText('Not a link').waitFor()
    assert.equal(await line.getByText('restarted on Sunday').count(), 0, 'what was closed came back')
    clean()
    await close()
  })

  await part('the frame of the portal', async () => {
    const context = await browser.newContext({ viewport: { width: 1440, height: 900 } })
    context.setDefaultTimeout(90_000)
    await context.route(/\/api\/quire(\?|$)/, (route) => route.fulfill({ json: { project: { name: 'engine' } } }))
    const page = await context.newPage()
    await page.goto(site + '/frame')
    const bar = page.frameLocator('iframe').locator('#jp-main-statusbar')
    const leads = (name) => bar.getByRole('link', { name, exact: true }).getAttribute('href')
    assert.equal(await leads('engine'), site + '/portal/ada/engine')
    assert.equal(await leads('Stop'), site + '/portal/ada/engine/sessions')
    await context.close()
  })

  await part('a notebook', async () => {
    const { page, clean, close } = await open('/p/lab/tree/data%20sets/first%20%C3%BCnicode.ipynb')
    await page.locator('.jp-NotebookPanel .jp-Cell').first().waitFor()
    await until('the address names the notebook', () => new URL(page.url()).pathname === '/p/lab/tree/data%20sets/first%20%C3%BCnicode.ipynb')
    await until('the kernel is idle', () => page.evaluate(() => window.jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === 'idle'))
    await put(page, 0, '6 * 7')
    await page.locator('.jp-OutputArea-output', { hasText: '42' }).waitFor()
    // Outputs that were just made are trusted: their scripts run, and nothing else does.
    await put(page, 1, String.raw`from IPython.display import HTML, Javascript, Math, display
display(HTML('<b class="ran"></b><script>document.querySelector(".ran").textContent = "script ran"</script>'))
display(Javascript('element.textContent = "java" + "script ran"'), Math(r'\frac{1}{2}'))`)
    await page.getByText('script ran', { exact: true }).waitFor()
    await page.getByText('javascript ran', { exact: true }).waitFor()
    await page.locator('mjx-container mjx-frac').first().waitFor()
    await put(page, 2, `import matplotlib.pyplot as p
p.plot([1, 3, 2])
p.show()`)
    await page.locator('.jp-OutputArea-output img').waitFor()
    await shot(page, 'lab-notebook')
    await run(page, 'docmanager:save')
    await until('the notebook is saved with its output', () => readFileSync(join(dir, 'data sets', 'first ünicode.ipynb'), 'utf8').includes('"42"'))
    const title = await page.title()
    assert.match(title, /^first ünicod/)
    // Another document is another address, and the same page can be loaded again.
    await run(page, 'docmanager:open', { path: 'table.csv' })
    await page.locator('.jp-CSVViewer').first().waitFor()
    await until('the address names the table', () => new URL(page.url()).pathname === '/p/lab/tree/table.csv')
    // Light and dark follow the browser, as the portal does.
    for (const colorScheme of ['dark', 'light']) {
      await page.emulateMedia({ colorScheme })
      await until(`the theme is ${colorScheme}`, () => page.evaluate(() => document.body.dataset.jpThemeLight).then((light) => light === String(colorScheme === 'light')))
      await page.locator('#jupyterlab-splash').waitFor({ state: 'detached' })
      await shot(page, `lab-${colorScheme}`)
    }
    await page.evaluate(() => { window.open = (to, where) => { window.opened = [to, where] } })
    await run(page, 'quire:open-in-workbench')
    assert.deepEqual(await page.evaluate(() => window.opened), [site + '/p/workbench/#project/table.csv', '_blank'])
    clean()
    await close()
  })

  await part('a phone', async () => {
    const { page, clean, close } = await open('/p/lab/workspaces/phone/tree/table.csv', { viewport: { width: 360, height: 740 } })
    await page.locator('.jp-CSVViewer').waitFor()
    await until('the document has the room', async () => (await page.locator('.jp-CSVViewer').boundingBox()).width > 240)
    await shot(page, 'lab-phone')
    clean()
    await close()
  })

  await part('a notebook that nobody trusts', async () => {
    const { page, close } = await open('/p/lab/tree/hostile.ipynb')
    await page.locator('.harmless').waitFor()
    assert.equal(await page.evaluate(() => window.hurt), undefined)
    // Even past the sanitizer neither scripts nor handlers run: the policy has the last word.
    await page.evaluate(() => {
      const p = document.createElement('div')
      p.innerHTML = '<img src=x onerror="window.hurt = 3">'
      document.body.append(p)
      const s = document.createElement('script')
      s.textContent = 'window.hurt = 4'
      document.body.append(s)
    })
    await page.waitForFunction(() => document.querySelector('body > div > img[src=x]').complete)
    assert.equal(await page.evaluate(() => window.hurt), undefined)
    await close()
  })

  await part('the same file in two hands', async () => {
    const file = join(dir, 'shared.ipynb')
    const both = (a, b) => JSON.stringify({ ...JSON.parse(notebook()), cells: [['a', a], ['b', b]].map(([id, source]) => ({ ...cell(source), id })) })
    const sources = () => JSON.parse(readFileSync(file, 'utf8')).cells.map((c) => [c.source].flat().join(''))
    writeFileSync(file, both('first', 'second'))
    const { page, clean, close } = await open('/p/lab/workspaces/hands/tree/shared.ipynb')
    await until('the kernel is idle', () => page.evaluate(() => window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'))
    const write = (i, text) => page.evaluate(([at, source]) => window.jupyterapp.shell.currentWidget.content.widgets[at].model.sharedModel.setSource(source), [i, text])
    const shown = () => page.evaluate(() => window.jupyterapp.shell.currentWidget.content.widgets.map((w) => w.model.sharedModel.getSource()))
    const dialog = page.locator('.jp-Dialog')
    const press = (name) => dialog.getByRole('button', { name, exact: true }).click()
    // saving starts a save and says how it ends, for a question may come between.
    const saving = () => page.evaluate(() => window.jupyterapp.shell.currentWidget.context.save().then(() => 'saved', (e) => e.name))

    // Different cells, by the same person: nothing to ask.
    await write(0, 'mine')
    writeFileSync(file, both('first', 'theirs'))
    assert.equal(await saving(), 'saved')
    assert.deepEqual(sources(), ['mine', 'theirs'])
    assert.deepEqual(await shown(), ['mine', 'theirs'])

    // The same cell: both are shown, and one is taken.
    await write(0, 'mine again')
    writeFileSync(file, both('theirs again', 'theirs'))
    let end = saving()
    await dialog.getByText('You changed this notebook at').waitFor()
    await shot(page, 'lab-conflict')
    await press('Compare')
    await dialog.locator('pre', { hasText: 'theirs again' }).waitFor()
    await press('Back')
    await press('Merge')
    await dialog.locator('fieldset').waitFor()
    await shot(page, 'lab-merge')
    await dialog.getByLabel('Take').check()
    await press('Merge')
    assert.equal(await end, 'saved')
    assert.deepEqual(sources(), ['theirs again', 'theirs'])
    assert.deepEqual(await shown(), ['theirs again', 'theirs'])

    // Who cancels has lost nothing on either side.
    await write(0, 'not yet')
    writeFileSync(file, both('other', 'theirs'))
    end = saving()
    await press('Cancel')
    assert.equal(await end, 'ModalCancelError')
    assert.deepEqual([sources(), await shown()], [['other', 'theirs'], ['not yet', 'theirs']])
    end = saving()
    await press('Overwrite')
    assert.equal(await end, 'saved')
    assert.deepEqual(sources(), ['not yet', 'theirs'])

    // Outputs that came in with a merge are nobody's whom this person trusts, whatever
    // the cell had before.
    await put(page, 1, 'from IPython.display import HTML, display\ndisplay(HTML("<i class=own>own</i><script>window.ownRan = 1</script>"))')
    await page.locator('.own').waitFor()
    assert.equal(await page.evaluate(() => window.ownRan), 1)
    await until('the cell has ended', () => page.evaluate(() => window.jupyterapp.shell.currentWidget.content.widgets[1].model.executionState === 'idle'))
    assert.equal(await saving(), 'saved')
    const changed = JSON.parse(readFileSync(file, 'utf8'))
    changed.cells[1].outputs[0].data['text/html'] = '<i class=foreign>foreign</i><script>window.hurt = 5</script>'
    changed.cells[1].metadata.trusted = true
    writeFileSync(file, JSON.stringify(changed))
    await write(0, 'something of mine')
    assert.equal(await saving(), 'saved')
    await page.locator('.foreign').waitFor()
    assert.deepEqual(await page.evaluate(() => [window.hurt, window.jupyterapp.shell.currentWidget.content.widgets[1].model.trusted]), [undefined, false])

    // A question that stands open is not asked again.
    await write(0, 'asked')
    writeFileSync(file, both('other', 'other'))
    end = saving()
    await dialog.getByText('You changed').waitFor()
    assert.equal(await saving(), 'ModalDuplicateError')
    await press('Load theirs')
    assert.equal(await end, 'saved')
    assert.deepEqual(await shown(), ['other', 'other'])

    // A text has no cells.
    writeFileSync(join(dir, 'notes.txt'), 'one\ntwo\n')
    await run(page, 'docmanager:open', { path: 'notes.txt' })
    await page.locator('.jp-FileEditor .cm-content').waitFor()
    await page.evaluate(() => window.jupyterapp.shell.currentWidget.context.ready)
    await page.evaluate(() => window.jupyterapp.shell.currentWidget.content.model.sharedModel.setSource('one\nmine\n'))
    writeFileSync(join(dir, 'notes.txt'), 'one\ntheirs\n')
    end = saving()
    await dialog.getByText('You changed this file at').waitFor()
    await press('Compare')
    await dialog.locator('pre', { hasText: /^theirs$/ }).waitFor()
    await press('Back')
    await press('Load theirs')
    assert.equal(await end, 'saved')
    assert.equal(await page.evaluate(() => window.jupyterapp.shell.currentWidget.content.model.sharedModel.getSource()), 'one\ntheirs\n')
    clean()
    await close()
  })

  await part('settings, terminal, licenses', async () => {
    const { page, clean, close } = await open('/p/lab/')
    await run(page, 'settingeditor:open')
    await page.locator('.jp-PluginList').getByText('Document Manager').first().waitFor()
    await shot(page, 'lab-settings')
    await run(page, 'terminal:create-new')
    await page.locator('.jp-Terminal .xterm-screen').waitFor()
    await page.keyboard.type('echo $((40 + 2))$((1 + 1))\n')
    await until('the shell answers', () => page.evaluate(() => {
      const b = window.jupyterapp.shell.currentWidget.content._term?.buffer.active
      return !!b && Array.from({ length: b.length }, (_, i) => b.getLine(i).translateToString(true)).includes('422')
    }))
    await run(page, 'apputils:licenses')
    await page.locator('.jp-Licenses').getByText('@jupyterlab/notebook', { exact: true }).waitFor()
    await shot(page, 'lab-licenses')
    clean()
    await close()
  })

  await part('prebuilt extensions', async () => {
    cpSync(extensions, join(env, 'share/jupyter/labextensions'), { recursive: true })
    const { page, seen, close } = await open('/p/lab/workspaces/extended')
    await page.locator('#hello-item', { hasText: 'hello function' }).waitFor()
    assert.equal(await run(page, 'hello:greet'), 'hello from React 18.3.1')
    assert.equal(await page.evaluate(() => window.helloOff), undefined, 'a disabled plugin ran')
    const complaints = seen.errors.join('\n')
    assert.match(complaints, /The extension missing is left out/)
    assert.match(complaints, /this plugin always fails/)
    await page.locator('.jp-LauncherCard').first().waitFor()
    await run(page, 'docmanager:open', { path: 'hostile.ipynb' })
    await until('the kernel is idle', () => page.evaluate(() => window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'))
    await put(page, 0, `from IPython.display import display
display({'text/x-hello': 'shout'}, raw=True)`)
    await page.locator('.hello-shout', { hasText: 'SHOUT' }).waitFor()
    await until('the address names workspace and notebook', () => new URL(page.url()).pathname === '/p/lab/workspaces/extended/tree/hostile.ipynb')
    await close()
  })
  // The kernel's part is spoken by hand, so that no package of Python has to match.
  await part('ipywidgets', async () => {
    cpSync(builtExtensions, join(env, 'share/jupyter/labextensions'), { recursive: true })
    writeFileSync(join(dir, 'widgets.ipynb'), notebook(cell(''), cell('')))
    rmSync(join(env, 'share/jupyter/labextensions/hello'), { recursive: true })
    rmSync(join(env, 'share/jupyter/labextensions/missing'), { recursive: true })
    const { page, clean, close } = await open('/p/lab/workspaces/widgets/tree/widgets.ipynb')
    await until('the kernel is idle', () => page.evaluate(() => window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'))
    await put(page, 0, `from ipykernel.comm import Comm
from IPython.display import display
def model(module, name, **state):
    state = {'_model_module': module, '_model_module_version': '2.0.0', '_model_name': name, '_view_module': module, '_view_module_version': '2.0.0', **state}
    return Comm(target_name='jupyter.widget', data={'state': state}, metadata={'version': '2.1.0'})
layout = model('@jupyter-widgets/base', 'LayoutModel', _view_name='LayoutView')
style = model('@jupyter-widgets/controls', 'SliderStyleModel', _view_module='@jupyter-widgets/base', _view_name='StyleView')
slider = model('@jupyter-widgets/controls', 'IntSliderModel', _view_name='IntSliderView', _dom_classes=[], value=6, min=0, max=10, step=1,
               description='how many', layout='IPY_MODEL_' + layout.comm_id, style='IPY_MODEL_' + style.comm_id)
heard = []
slider.on_msg(lambda m: heard.append(m['content']['data'].get('state', {}).get('value')))
display({'application/vnd.jupyter.widget-view+json': {'version_major': 2, 'version_minor': 0, 'model_id': slider.comm_id}}, raw=True)`)
    const handle = page.locator('.widget-slider .noUi-handle')
    await handle.waitFor()
    await handle.focus()
    await page.keyboard.press('ArrowRight')
    await page.locator('.widget-readout', { hasText: '7' }).waitFor()
    await shot(page, 'lab-widgets')
    await put(page, 1, 'print("the kernel heard", heard)')
    await page.locator('.jp-OutputArea-output', { hasText: 'the kernel heard [7]' }).waitFor()
    clean()
    await close()
  })
} catch (error) {
  for (const tell of told) console.error(tell().join('\n'))
  for (const context of browser.contexts()) for (const page of context.pages()) await shot(page, 'lab-failed')?.catch(() => {})
  throw error
} finally {
  await browser.close()
}
