// Workbench through the whole product: the keyboard, the editor, a conflict with
// a change from elsewhere, uploads, downloads, names that want to be more than
// names, and how it looks.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { chownSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { barriers, launch, person, picture, sizes } from './lib/chromium.mjs'
import { expectText } from './lib/expect.mjs'
import { inside, newProject, openApp, setUp, state } from './lib/portal.mjs'
import { start } from './lib/quire.mjs'
import { until } from './lib/wait.mjs'

const evil = '<img src=x onerror="document.title=1">\n"quote\'.txt'
let quire, browser, ada, tab, page, dir, owner
before(async () => {
  quire = await start()
  browser = await launch()
  ada = await person(browser, { permissions: ['clipboard-read', 'clipboard-write'] })
  await setUp(ada.page, quire.address)
  await newProject(ada.page, quire.portal, 'engine', 'Bernoulli numbers')
  await ada.page.getByRole('button', { name: 'Start', exact: true }).click()
  await state(ada.page, 'running')
  dir = join(quire.dirs.projects, 'ada/engine')
  owner = statSync(dir)
  put('analysis.py', 'import math\n\n\ndef area(r):\n    """The area of a circle."""\n    return math.pi * r ** 2\n')
  put('data/results.csv', 'name,value\n"Lovelace, Ada",1843\n=cmd(),2\n')
  put('data/deep/notes.md', '# Notes\n\nA *list*:\n\n- one\n- two\n')
  put('first.ipynb', '{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}\n')
  put(evil, 'only text\n')
  put(Buffer.from([0x62, 0xff, 0x2e, 0x74, 0x78, 0x74]), 'not utf-8\n')
  tab = await openApp(ada.page, 'Workbench')
  page = await inside(tab, '#tree')
  await row('analysis.py').waitFor()
})
after(async () => {
  await browser?.close()
  await quire?.stop()
})

// put writes a file as the project's owner would.
function put(name, content) {
  const path = Buffer.concat([Buffer.from(dir + '/'), Buffer.from(name)])
  if (typeof name === 'string' && name.includes('/') && !name.startsWith('<')) {
    for (let at = dir, parts = name.split('/').slice(0, -1); parts.length;) {
      at = join(at, parts.shift())
      if (!existsSync(at)) { mkdirSync(at); chownSync(at, owner.uid, owner.gid) }
    }
  }
  writeFileSync(path, content)
  chownSync(path, owner.uid, owner.gid)
}

const row = (name) => page.getByRole('treeitem', { name, exact: true })
const key = (...keys) => keys.reduce((done, k) => done.then(() => tab.keyboard.press(k)), Promise.resolve())
const tree = () => page.locator('#tree').focus()
const text = () => page.locator('.panel:not([hidden]) .cm-content').first()
const read = (name) => readFileSync(join(dir, name), 'utf8')

// choose finds a row by typing its name, as one does without a mouse.
async function choose(name) {
  // What a failed step left open must not fail the next ones.
  while (await page.locator('dialog[open]').count()) await key('Escape')
  await tree()
  await row(name).first().waitFor() // typing finds what is there
  await key('Home')
  await tab.keyboard.type(name)
  await page.locator('.row.active', { hasText: name }).waitFor()
}

test('the tree opens by keyboard and shows names literally', async () => {
  await choose('data')
  await key('ArrowRight')
  await row('deep').waitFor()
  await key('ArrowRight', 'ArrowRight')
  await row('notes.md').waitFor()
  // A list that is painted anew while the button is down still gets the click.
  const { x, y } = await row('deep').boundingBox()
  await tab.mouse.move(x + 60, y + 14)
  await tab.mouse.down()
  await page.evaluate(() => new Promise((done) => {
    document.getElementById('tree').dispatchEvent(new Event('scroll'))
    requestAnimationFrame(() => requestAnimationFrame(done))
  }))
  await tab.mouse.up()
  await row('notes.md').waitFor({ state: 'detached' })
  await row('deep').click()
  await row('notes.md').waitFor()
  const literal = page.locator('.row', { hasText: '<img src=x onerror' })
  await expectText(literal.locator('.name'), '<img src=x onerror="document.title=1">␊"quote\'.txt')
  assert.equal(await page.locator('#tree img').count(), 0)
  await page.locator('.row', { hasText: 'b\ufffd.txt' }).dblclick()
  await expectText(text(), 'not utf-8')
  await literal.dblclick()
  await expectText(text(), 'only text')
})

test('a file is edited and saved', async () => {
  await choose('analysis.py')
  await key('Enter')
  await expectText(text(), 'def area')
  await page.locator('.cm-content .cm-line span').first().waitFor() // it has colors
  await key('Control+Home')
  await tab.keyboard.type('# by hand\n')
  await expectText(page.locator('.tab[aria-selected="true"] .mark'), '●')
  await key('Control+s')
  await expectText(page.locator('.panel:not([hidden]) .foot'), 'Saved at')
  assert.match(read('analysis.py'), /^# by hand\nimport math/)
  assert.equal(statSync(join(dir, 'analysis.py')).uid, owner.uid)
})

test('find and replace', async () => {
  await key('Control+f')
  await page.locator('.cm-search input[name=search]').fill('area')
  await page.locator('.cm-search input[name=replace]').fill('surface')
  await page.locator('.cm-search button[name=replaceAll]').click()
  await expectText(text(), 'def surface')
  await key('Escape')
})

test('a change from elsewhere is a conflict, and nothing is lost', async () => {
  put('analysis.py', 'theirs = 1\n')
  await text().click()
  await key('Control+s')
  const banner = page.locator('.panel:not([hidden]) .note')
  await expectText(banner, /changed this file (just now|\d+ seconds? ago)/)
  assert.equal(read('analysis.py'), 'theirs = 1\n')
  await banner.getByRole('button', { name: 'Compare' }).click()
  await expectText(page.locator('.cm-merge-a .cm-content'), 'theirs = 1')
  await expectText(page.locator('.cm-merge-b .cm-content'), 'def surface')
  await picture(tab, 'workbench-compare')
  // What is written in the comparison is written, however it ends.
  await key('Control+End')
  await tab.keyboard.type('# in the comparison')
  await page.getByRole('button', { name: 'End comparison' }).click()
  await expectText(text(), '# in the comparison')
  assert.equal(read('analysis.py'), 'theirs = 1\n')
  await banner.getByRole('button', { name: 'Save as…' }).click()
  await page.getByLabel('Name of the new file').fill('mine.py')
  await page.getByRole('button', { name: 'Save', exact: true }).last().click()
  await row('mine.py').waitFor()
  assert.match(read('mine.py'), /def surface[^]*# in the comparison$/)
  assert.equal(read('analysis.py'), 'theirs = 1\n')
  // Overwriting asks first.
  put('mine.py', 'theirs again\n')
  await text().click()
  await key('Control+End')
  await tab.keyboard.type('# more')
  await key('Control+s')
  await banner.getByRole('button', { name: 'Overwrite' }).click()
  await page.getByRole('dialog').getByRole('button', { name: 'Overwrite' }).click()
  await expectText(page.locator('.panel:not([hidden]) .foot'), 'Saved at')
  assert.match(read('mine.py'), /# more$/)
})

test('Ctrl+S in a comparison saves one\'s own side, on a phone as on a wide screen', async () => {
  const banner = page.locator('.panel:not([hidden]) .note')
  const conflict = async (theirs) => {
    await text().click()
    await key('Control+End')
    await tab.keyboard.type('\n# mine')
    put('mine.py', theirs)
    await key('Control+s')
    await banner.getByRole('button', { name: 'Compare' }).click()
  }
  const lines = Array.from({ length: 30 }, (_, i) => `line_${i} = ${i}`)
  put('mine.py', lines.join('\r\n') + '\r\n')
  await tab.evaluate(() => { for (const f of [window, ...Array.from(window.frames)]) f.dispatchEvent(new Event('focus')) })
  await expectText(page.locator('.panel:not([hidden]) .foot'), 'CRLF')
  await conflict(lines.with(4, 'line_4 = "theirs"').with(20, 'line_20 = "theirs, and so long that it does not stand in one row of a phone"').join('\r\n') + '\r\n')
  // What they did is taken in one place, by the keyboard, and saved from their side.
  await page.getByRole('button', { name: 'Take this from the disk' }).first().press('Enter')
  await expectText(page.locator('.cm-merge-b .cm-content'), 'line_4 = "theirs"')
  await page.locator('.cm-merge-a .cm-content').focus()
  await key('Control+s')
  await expectText(page.locator('.panel:not([hidden]) .foot'), 'Saved at')
  const merged = lines.with(4, 'line_4 = "theirs"').join('\r\n') + '\r\n\r\n# mine'
  assert.equal(read('mine.py'), merged)
  assert.equal(await page.locator('.compare').count(), 0)

  await conflict(merged.replace('line_0 = 0', 'line_0 = "theirs, and so long that it does not stand in one row of a phone"').replace('line_20 = 20', 'line_20 = "theirs"'))
  await page.locator('.cm-merge-a').waitFor()
  await page.getByRole('button', { name: 'Files', exact: true }).click()
  for (const colorScheme of ['light', 'dark']) {
    await tab.emulateMedia({ colorScheme, reducedMotion: 'reduce' })
    await picture(tab, `workbench-compare-wide-${colorScheme}`)
    await barriers(page, `a comparison, wide, ${colorScheme}`)
    await tab.setViewportSize(sizes.phone)
    await page.locator('.cm-merge-a').waitFor({ state: 'detached' })
    await picture(tab, `workbench-compare-phone-${colorScheme}`)
    // All of it stands within the width, in one column with room to read.
    const over = await page.evaluate(() => [document.documentElement, ...document.querySelectorAll('.compare, .compare .cm-scroller')].map((e) => e.scrollWidth - e.clientWidth))
    assert.ok(over.every((px) => px <= 0), `it scrolls sideways by ${over} px`)
    assert.ok((await page.locator('.compare').boundingBox()).height > 300)
    await barriers(page, `a comparison on a phone, ${colorScheme}`)
    if (colorScheme === 'light') await tab.setViewportSize(sizes.wide)
  }
  await tab.emulateMedia({ colorScheme: 'light' })
  await page.getByRole('button', { name: 'Take this from the disk' }).first().click()
  await tab.keyboard.press('Control+End')
  await tab.keyboard.type(', typed on a phone')
  await key('Control+s')
  await expectText(page.locator('.panel:not([hidden]) .foot'), 'Saved at')
  assert.equal(read('mine.py'), merged.replace('line_0 = 0', 'line_0 = "theirs, and so long that it does not stand in one row of a phone"') + '\r\n# mine, typed on a phone')
  await tab.setViewportSize(sizes.wide)
  await page.getByRole('button', { name: 'Files', exact: true }).click()
})

test('taking theirs keeps what one has until theirs is here', async () => {
  const banner = page.locator('.panel:not([hidden]) .note')
  const take = async () => {
    await banner.getByRole('button', { name: 'Take theirs' }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Drop my changes' }).click()
  }
  await text().click()
  await key('Control+End')
  await tab.keyboard.type(' kept')
  put('mine.py', 'theirs = 2\n')
  await key('Control+s')
  await banner.getByRole('button', { name: 'Take theirs' }).waitFor()
  await tab.route(/api\/file\?/, (route) => route.abort())
  await take()
  await expectText(page.locator('#notice'), 'cannot be reached')
  await expectText(text(), 'typed on a phone kept')
  await expectText(page.locator('.tab[aria-selected="true"] .mark'), '●')
  await tab.unroute(/api\/file\?/)
  await take()
  await expectText(text(), 'theirs = 2')
  await banner.waitFor({ state: 'hidden' })
})

test('a clean file that changes is read again', async () => {
  put('mine.py', 'fresh = True\n')
  await tab.evaluate(() => { for (const f of [window, ...Array.from(window.frames)]) f.dispatchEvent(new Event('focus')) })
  await expectText(text(), 'fresh = True')
})

test('rename by F2, delete by Delete', async () => {
  await choose('mine.py')
  await key('F2')
  await page.getByLabel('New name').fill('renamed.py')
  await key('Enter')
  await row('renamed.py').waitFor()
  assert.ok(existsSync(join(dir, 'renamed.py')) && !existsSync(join(dir, 'mine.py')))
  await expectText(page.locator('.tab[aria-selected="true"] .label'), 'renamed.py')
  await key('Delete')
  await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click()
  await row('renamed.py').waitFor({ state: 'detached' })
  assert.ok(!existsSync(join(dir, 'renamed.py')))
})

test('a name that cannot be typed is never offered as another', async () => {
  const box = page.getByRole('dialog')
  const before = readdirSync(dir, 'buffer').length
  for (const shown of ['b\ufffd.txt', '<img src=x onerror']) {
    await page.getByRole('tab', { name: shown }).click()
    await page.locator('.panel:not([hidden])').getByRole('button', { name: 'Save as…' }).click()
    assert.equal(await page.getByLabel('Name of the new file').inputValue(), '')
    await key('Enter')
    await expectText(box.getByRole('alert'), 'A name is needed')
    await key('Escape')
    await page.locator('.row', { hasText: shown }).click()
    await key('F2')
    assert.equal(await page.getByLabel('New name').inputValue(), '')
    await key('Enter')
    await expectText(box.getByRole('alert'), 'A name is needed')
    await key('Escape')
  }
  assert.equal(readdirSync(dir, 'buffer').length, before)
  await page.getByRole('tab', { name: 'b\ufffd.txt' }).click()
  await text().click()
  await key('Control+End')
  await tab.keyboard.type('typed')
  await key('Control+s')
  await expectText(page.locator('.panel:not([hidden]) .foot'), 'Saved at')
  assert.equal(readFileSync(Buffer.concat([Buffer.from(dir + '/b'), Buffer.from([0xff]), Buffer.from('.txt')]), 'utf8'), 'not utf-8\ntyped')
  assert.equal(readdirSync(dir, 'buffer').length, before)
})

test('copy and paste', async () => {
  await choose('data')
  await key('Control+c')
  await choose('analysis.py')
  await key('Control+v')
  await row('data copy').waitFor()
  assert.equal(read('data copy/deep/notes.md'), read('data/deep/notes.md'))
})

test('uploads arrive, also into folders, and ask before they replace', async () => {
  const large = Buffer.alloc(6 << 20, 'quire ')
  await choose('data')
  await page.locator('#files').setInputFiles([{ name: 'large.bin', mimeType: 'application/octet-stream', buffer: large }, { name: 'résumé "1".txt', mimeType: 'text/plain', buffer: Buffer.from('one') }])
  await row('large.bin').waitFor()
  await until('the upload ended', () => existsSync(join(dir, 'data/large.bin')) && existsSync(join(dir, 'data/résumé "1".txt')))
  assert.ok(readFileSync(join(dir, 'data/large.bin')).equals(large))
  assert.equal(statSync(join(dir, 'data/large.bin')).uid, owner.uid)
  await page.locator('#files').setInputFiles([{ name: 'large.bin', mimeType: 'text/plain', buffer: Buffer.from('small') }])
  await page.getByRole('dialog').getByRole('button', { name: 'Replace' }).click()
  await until('it was replaced', () => statSync(join(dir, 'data/large.bin')).size === 5)
  await page.getByRole('button', { name: 'Remove what has ended' }).click()
})

test('an upload that lost its connection goes on', async () => {
  let broken = 0
  await tab.route(/api\/uploads\/.*offset=/, (route) => ++broken === 2 ? route.abort() : route.continue())
  await choose('data')
  const content = Buffer.alloc(5 << 20, 'again ')
  await page.locator('#files').setInputFiles([{ name: 'broken.bin', mimeType: 'application/octet-stream', buffer: content }])
  await until('it arrived', () => existsSync(join(dir, 'data/broken.bin')))
  assert.ok(broken >= 2 && readFileSync(join(dir, 'data/broken.bin')).equals(content))
  await tab.unroute(/api\/uploads\/.*offset=/)
})

test('a folder is downloaded as a zip, a file as it is', async () => {
  await choose('data')
  await key('Shift+F10')
  const menu = page.getByRole('menu')
  for (const name of ['New File', 'New Folder', 'Upload File', 'Permissions', 'Share', 'Download', 'Cut', 'Copy', 'Paste', 'Delete', 'Rename']) {
    assert.equal(await menu.getByRole('menuitem', { name, exact: true }).count(), 1, name)
  }
  await picture(tab, 'workbench-menu')
  await menu.getByRole('menuitem', { name: 'Download' }).click()
  const [zip] = await Promise.all([tab.waitForEvent('download'), page.getByRole('dialog').getByRole('button', { name: 'zip' }).click()])
  assert.equal(zip.suggestedFilename(), 'data.zip')
  const at = join(tmpdir(), `workbench-${process.pid}.zip`)
  await zip.saveAs(at)
  const list = execFileSync('python3', ['-m', 'zipfile', '-l', at], { encoding: 'utf8' })
  assert.match(list, /data\/deep\/notes\.md/)
  await choose('analysis.py')
  await key('Shift+F10')
  const [file] = await Promise.all([tab.waitForEvent('download'), menu.getByRole('menuitem', { name: 'Download' }).click()])
  await file.saveAs(at)
  assert.equal(readFileSync(at, 'utf8'), 'theirs = 1\n')
})

test('what the menu offers is done: make, upload, cut, copy, paste, rename, delete', async () => {
  const act = async (name) => {
    await key('Shift+F10')
    await page.getByRole('menu').getByRole('menuitem', { name, exact: true }).click()
  }
  const answer = async (label, value) => {
    await page.getByLabel(label, { exact: true }).fill(value)
    await key('Enter')
    await row(value).waitFor()
  }
  const there = (name) => existsSync(join(dir, name))
  await choose('analysis.py')
  await act('New Folder')
  await answer('Name', 'yard')
  await choose('yard')
  await act('New File')
  await answer('Name', 'zeta.txt')
  await page.locator('.tab[aria-selected="true"] .label', { hasText: 'zeta.txt' }).waitFor()
  await choose('yard')
  const [chooser] = await Promise.all([tab.waitForEvent('filechooser'), act('Upload File')])
  await chooser.setFiles([{ name: 'wall.txt', mimeType: 'text/plain', buffer: Buffer.from('stone') }])
  await until('it is uploaded', () => there('yard/wall.txt'))
  await choose('zeta.txt')
  await act('Cut')
  await choose('analysis.py')
  await act('Paste')
  await until('it is moved', () => there('zeta.txt') && !there('yard/zeta.txt'))
  await choose('wall.txt')
  await act('Copy')
  await choose('analysis.py')
  await act('Paste')
  await until('it is copied', () => there('wall.txt') && there('yard/wall.txt'))
  await choose('yard')
  await act('Rename')
  await answer('New name', 'xanadu')
  assert.equal(readFileSync(join(dir, 'xanadu/wall.txt'), 'utf8'), 'stone')
  for (const name of ['xanadu', 'wall.txt', 'zeta.txt']) {
    await choose(name)
    await act('Delete')
    await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click()
    await row(name).waitFor({ state: 'detached' })
    assert.ok(!there(name))
  }
})

test('a table shows cells as text', async () => {
  await choose('data')
  await key('ArrowRight')
  await row('results.csv').dblclick()
  await expectText(page.locator('.cells'), 'Lovelace, Ada')
  await expectText(page.locator('.cells'), '=cmd()')
})

test('permissions are shown, changed, and counted before', async () => {
  await choose('data')
  await key('Shift+F10')
  await page.getByRole('menu').getByRole('menuitem', { name: 'Permissions' }).click()
  const box = page.getByRole('dialog')
  const add = async (name) => {
    await box.getByLabel('Name of the new entry').fill(name)
    await box.getByRole('button', { name: 'Add', exact: true }).click()
  }
  const counted = () => expectText(box.getByRole('status'), /\d+ items? will change/)
  await add('nobody')
  await box.getByLabel(/Change everything in this folder/).check()
  await counted()
  // Each change after that is counted again, as it is then.
  await add('no-such-person')
  await expectText(box.getByRole('status'), 'There is no account called “no-such-person”')
  await box.getByRole('button', { name: 'Remove no-such-person' }).click()
  await counted()
  const group = box.getByLabel('Group', { exact: true })
  const own = await group.inputValue()
  await group.fill('no-such-group')
  assert.equal(await box.getByRole('status').textContent(), '')
  await group.blur()
  await expectText(box.getByRole('status'), 'There is no group called “no-such-group”')
  await group.fill(own)
  await group.blur()
  await counted()
  put('data/later.txt', '')
  const [was] = /\d+/.exec(await box.getByRole('status').innerText())
  await box.getByLabel('Write, nobody').check()
  await expectText(box.getByRole('status'), `${Number(was) + 1} items will change`)
  await box.getByLabel('Write, nobody').uncheck()
  await counted()
  await barriers(page, 'permissions')
  await picture(tab, 'workbench-permissions')
  await box.getByRole('button', { name: 'Apply' }).click()
  await box.waitFor({ state: 'detached' })
  assert.match(execFileSync('getfacl', ['-cp', join(dir, 'data/results.csv')], { encoding: 'utf8' }), /user:nobody:r-/)
})

test('one action shares with somebody outside of the team', async () => {
  await choose('analysis.py')
  await key('Shift+F10')
  await page.getByRole('menu').getByRole('menuitem', { name: 'Share' }).click()
  await page.getByLabel('Account name').fill('nobody')
  await page.getByRole('dialog').getByRole('button', { name: 'Share', exact: true }).click()
  assert.equal(await page.getByLabel('Path to give them').inputValue(), join(dir, 'analysis.py'))
  await page.getByRole('dialog').getByRole('button', { name: 'Close' }).click()
  assert.match(execFileSync('getfacl', ['-cp', join(dir, 'analysis.py')], { encoding: 'utf8' }), /user:nobody:r--/)
})

test('another directory is shown and hidden', async () => {
  await page.getByRole('button', { name: 'Show directories' }).click()
  const box = page.getByRole('dialog')
  await box.getByLabel('Full path of a directory or file').fill('/nowhere')
  await box.getByRole('button', { name: 'Show', exact: true }).click()
  await expectText(box.getByRole('alert'), 'no such file or directory')
  await box.getByLabel('Full path of a directory or file').fill('/usr/share')
  await box.getByRole('button', { name: 'Show', exact: true }).click()
  await page.locator('.row.active', { hasText: '/usr/share' }).waitFor()
  await tree()
  await key('Shift+F10')
  await page.getByRole('menu').getByRole('menuitem', { name: 'Hide this directory' }).click()
  await page.getByRole('treeitem', { name: '/usr/share, shown directory' }).waitFor({ state: 'detached' })
})

// shell is the frame of the terminal's tab that is shown, typed in after the
// page itself has put the focus there.
const shell = async () => (await page.locator('.terminal:not([hidden]) iframe').elementHandle()).contentFrame()
async function type(line, answer) {
  const frame = await shell()
  await frame.locator('.xterm-helper-textarea:focus').waitFor()
  await tab.keyboard.type(`${line}\n`)
  await printed(answer)
}
const printed = async (words) => (await shell()).locator('.panel:not([hidden]) .xterm-rows', { hasText: words }).waitFor()

test('terminals are tabs: started from there, left, found again, closed and ended', async () => {
  await key('Control+Shift+Enter')
  const link = page.frameLocator('.terminal:not([hidden]) iframe').getByRole('link', { name: 'Start it' })
  await link.waitFor()
  await picture(tab, 'workbench-terminal-stopped')
  const [portal] = await Promise.all([ada.context.waitForEvent('page'), link.click()])
  await portal.getByRole('button', { name: 'Start Terminal' }).click()
  await inside(portal, '.xterm')
  await portal.close()
  await tab.bringToFront()
  // The page that the portal led to has made a shell of its own, if it was the first.
  const named = page.locator('.tab[aria-selected="true"] .label', { hasText: /^Shell \d$/ })
  const mine = await named.innerText()
  await type('echo "$((40+2)) in $PROJECT_NAME"', '42 in engine')
  await barriers(await shell(), 'a terminal in a tab')

  // From the shell to a file and back, to another shell, and by the keys of tabs.
  await key('Control+Shift+ArrowUp') // which the frame hands on, and that takes its time
  await page.locator('.tab[aria-selected="true"]:focus', { hasText: mine }).waitFor()
  await key('ArrowLeft')
  await page.locator('.tab[aria-selected="true"]:focus', { hasNotText: mine }).waitFor()
  await key('ArrowRight', 'ArrowDown')
  await type('echo still-$((1+1))', 'still-2')
  await key('Control+Shift+Enter')
  const other = await page.locator('.tab[aria-selected="true"] .label', { hasText: new RegExp(`^Shell (?!${mine.slice(6)}$)`) }).innerText()
  await type('echo other-$((2+1))', 'other-3')
  await key('Control+Shift+ArrowLeft')
  await printed('still-2')

  // A reload finds both, and loads the other when it is looked at.
  await tab.reload()
  page = await inside(tab, '.terminal:not([hidden]) iframe')
  await printed('still-2')
  await page.getByRole('tab', { name: mine, selected: true }).waitFor()
  assert.equal(await page.locator('.terminal iframe').count(), 1)
  await page.getByRole('tab', { name: other }).click()
  await printed('other-3')

  // Closed is not ended.
  await key('Control+Shift+Backspace')
  await page.getByRole('dialog').getByRole('button', { name: 'Close the tab' }).click()
  await page.getByRole('tab', { name: other }).waitFor({ state: 'detached' })
  await page.getByRole('button', { name: 'Other terminals' }).click()
  await page.getByRole('menuitem', { name: other }).click()
  await printed('other-3')
  await page.getByRole('tab', { name: other }).press('Delete')
  await page.getByRole('dialog').getByRole('button', { name: 'End the shell' }).click()
  await page.getByRole('tab', { name: other }).waitFor({ state: 'detached' })
  await page.getByRole('button', { name: 'Other terminals' }).click()
  await page.getByRole('menuitem', { name: 'New terminal' }).waitFor()
  assert.equal(await page.getByRole('menuitem', { name: other }).count(), 0)
  await key('Escape')

  for (const colorScheme of ['light', 'dark']) {
    await tab.emulateMedia({ colorScheme, reducedMotion: 'reduce' })
    await page.getByRole('tab', { name: mine }).click()
    await picture(tab, `workbench-terminal-wide-${colorScheme}`)
    await tab.setViewportSize(sizes.phone)
    if (await page.locator('#side').isVisible()) await page.getByRole('button', { name: 'Files', exact: true }).click()
    await picture(tab, `workbench-terminal-phone-${colorScheme}`)
    const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
    assert.ok(over <= 0, `it scrolls sideways by ${over} px`)
    await barriers(page, `a terminal beside files, ${colorScheme}`)
    await tab.setViewportSize(sizes.wide)
    await page.getByRole('button', { name: 'Files', exact: true }).click()
  }
  await tab.emulateMedia({ colorScheme: 'light' })
})

test('a page of another origin gets nothing', async () => {
  const api = new URL(page.url()).origin + new URL(page.url()).pathname.replace(/[^/]*$/, '')
  const status = await ada.page.evaluate((at) => fetch(at + 'api/roots', { credentials: 'include' }).then((r) => r.status, () => 'refused'), api)
  assert.equal(status, 'refused')
  const sent = await page.evaluate(async () => (await fetch('api/rename?root=project&path=analysis.py&to=x', { method: 'POST', headers: {} })).status)
  assert.equal(sent, 200)
  await page.evaluate(() => fetch('api/rename?root=project&path=x&to=analysis.py', { method: 'POST' }))
})

test('it looks right and has no barriers, wide and narrow, light and dark', async () => {
  await page.getByRole('button', { name: 'Refresh' }).click()
  await choose('analysis.py')
  await key('Enter')
  put('analysis.py', 'import math\n\n\ndef area(r):\n    """The area of a circle."""\n    return math.pi * r ** 2  # exact enough\n')
  await page.getByRole('tab', { name: /results/ }).click()
  await page.getByRole('tab', { name: 'analysis.py' }).click()
  await expectText(text(), 'exact enough')
  for (const colorScheme of ['light', 'dark']) {
    await tab.emulateMedia({ colorScheme, reducedMotion: 'reduce' })
    for (const name of ['wide', 'phone']) {
      await tab.setViewportSize(sizes[name])
      for (const files of [true, false]) {
        const open = await page.getByRole('button', { name: 'Files', exact: true }).getAttribute('aria-expanded')
        if (open !== String(files)) await page.getByRole('button', { name: 'Files', exact: true }).click()
        await picture(tab, `workbench-${name}-${colorScheme}${files ? '' : '-editor'}`)
        const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
        assert.ok(over <= 0, `it scrolls sideways by ${over} px`)
        await barriers(page, `workbench ${name} ${colorScheme}`)
      }
    }
  }
  await tab.emulateMedia({ colorScheme: 'light' })
  await tab.setViewportSize(sizes.wide)
})

test('nothing was written to the console', () => {
  const ours = ada.errors.filter((line) => !/ERR_FAILED|status of (409|412|404|400)/.test(line) && !line.includes('/api/roots'))
  assert.deepEqual(ours, [])
})
