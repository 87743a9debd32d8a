// Attacks in a real browser: by a page of one project on another project of the
// same person, by apps on the portal, and by foreign sites on both. The rows are
// S-15, S-18, S-20, S-25, S-36, S-41 and W-02, which only a browser can show.
import assert from 'node:assert/strict'
import http from 'node:http'
import { after, before, test } from 'node:test'
import { launch, person } from './lib/chromium.mjs'
import { admin, inside, newProject, openApp, setUp, signIn, state } from './lib/portal.mjs'
import { start } from './lib/quire.mjs'
import { until } from './lib/wait.mjs'

const mallory = { name: 'mallory', password: 'not the general one' }
let quire, browser, ada, p, q, evil

before(async () => {
  quire = await start()
  browser = await launch()
  ada = await person(browser)
  await setUp(ada.page, quire.address)
  quire.commandWith(`${mallory.password}\n`, 'admin', 'create', mallory.name, '--password-stdin', '--member')
  await state(ada.page, 'running')
  p = await app(ada.page)
  await newProject(ada.page, quire.portal, 'secret')
  await ada.page.getByRole('button', { name: 'Start', exact: true }).click()
  await state(ada.page, 'running')
  q = await app(ada.page)
  assert.notEqual(new URL(p.url()).origin, new URL(q.url()).origin)

  const server = http.createServer((request, response) => {
    response.setHeader('Content-Type', 'text/html')
    response.end('<!doctype html><title>evil</title>')
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  evil = { origin: `http://evil.localhost:${server.address().port}`, close: () => server.close() }
})
after(async () => {
  evil?.close()
  await browser?.close()
  await quire?.stop()
})

// app opens Notebook from a project's page and gives its tab back, without a bar.
async function app(page) {
  const tab = await openApp(page, 'Notebook')
  await inside(tab, '#notebook_list, #notebook-container')
  const origin = new URL(tab.url()).origin
  await tab.goto(`${origin}/notebook/tree`)
  await tab.locator('#notebook_list').waitFor()
  return tab
}

const originOf = (tab) => new URL(tab.url()).origin

// sent runs an attack in a tab and gives back the status that the address
// answered with, which the attacker's page itself may not see.
async function sent(tab, url, attack, argument) {
  const watch = await tab.context().newCDPSession(tab)
  await watch.send('Network.enable')
  const asked = new Set()
  const statuses = new Map()
  watch.on('Network.requestWillBeSent', ({ requestId, request }) => { if (request.url.startsWith(url) && request.method !== 'OPTIONS') asked.add(requestId) })
  watch.on('Network.responseReceivedExtraInfo', ({ requestId, statusCode }) => statuses.set(requestId, statusCode))
  await tab.evaluate(attack, argument)
  try {
    return await until(`an answer of ${url}`, () => [...asked].map((id) => statuses.get(id)).find(Boolean), 10_000)
  } finally {
    await watch.detach()
  }
}

// socket tells how a WebSocket from a tab ends.
function socket(tab, url) {
  return tab.evaluate((address) => new Promise((resolve) => {
    const ws = new WebSocket(address)
    ws.onopen = () => resolve('open')
    ws.onerror = () => resolve('refused')
  }), url)
}

test('cookies are bound to their host and out of reach of script', async () => {
  const cookies = await ada.context.cookies()
  const named = (name, host) => cookies.find((cookie) => cookie.name === name && cookie.domain === host)
  const portal = new URL(quire.portal).hostname
  for (const [name, host, sameSite] of [
    ['__Host-quire_login', portal, 'Lax'], ['__Host-quire_write', portal, 'Strict'], ['__Host-quire_app', new URL(p.url()).hostname, 'Lax'],
  ]) {
    const cookie = named(name, host)
    assert.ok(cookie, `${name} on ${host}`)
    assert.deepEqual([cookie.httpOnly, cookie.secure, cookie.sameSite, cookie.path], [true, true, sameSite, '/'], name)
  }
})

test('the control: a page of Q may do what a page of P may not', async () => {
  const url = `${originOf(q)}/notebook/api/contents`
  assert.equal(await sent(q, url, (address) => { fetch(address) }, url), 200)
})

test('a page of P cannot read, write, frame or connect to Q of the same person', async () => {
  const target = originOf(q)
  const contents = `${target}/notebook/api/contents`
  assert.equal(await sent(p, contents, (url) => { fetch(url, { mode: 'no-cors', credentials: 'include' }) }, contents), 403)
  assert.equal(await sent(p, contents, (url) => { fetch(url, { method: 'POST', mode: 'no-cors', credentials: 'include', body: '{"type":"notebook"}' }) }, contents), 403)
  assert.equal(await sent(p, `${target}/notebook/api/status`, (url) => { document.body.append(Object.assign(new Image(), { src: url })) }, `${target}/notebook/api/status`), 403)
  const framed = await sent(p, `${target}/notebook/tree`, (url) => { document.body.append(Object.assign(document.createElement('iframe'), { src: url })) }, `${target}/notebook/tree`)
  assert.equal(framed, 403)
  const kernels = `${target.replace('http', 'ws')}/notebook/api/events/subscribe`
  assert.equal(await socket(p, kernels), 'refused')
})

test('a form that P posts into a new tab changes nothing in Q', async () => {
  const url = `${originOf(q)}/notebook/api/contents`
  const [tab] = await Promise.all([
    ada.context.waitForEvent('page'),
    p.evaluate((action) => {
      const form = Object.assign(document.createElement('form'), { method: 'post', action, target: '_blank' })
      document.body.append(form)
      form.submit()
    }, url),
  ])
  await tab.waitForLoadState()
  assert.equal(await tab.evaluate(() => performance.getEntriesByType('navigation')[0].responseStatus), 403)
  await tab.close()
})

test('a link from P to Q is a plain link', async () => {
  const tab = await ada.context.newPage()
  await tab.goto(p.url())
  const url = `${originOf(q)}/notebook/tree`
  await Promise.all([tab.waitForURL((now) => now.origin === originOf(q)), tab.evaluate((href) => { location.href = href }, url)])
  await inside(tab, '#notebook_list')
  await tab.close()
})

test('an app cannot act on the portal, read it, or show it in a frame', async () => {
  const logout = `${quire.portal}/logout`
  assert.equal(await sent(p, logout, (url) => { fetch(url, { method: 'POST', mode: 'no-cors', credentials: 'include' }) }, logout), 403)
  const read = await p.evaluate((url) => fetch(url, { credentials: 'include' }).then((r) => r.text(), () => 'refused'), `${quire.portal}/api/v1/me`)
  assert.equal(read, 'refused')
  const errors = []
  const hear = (message) => { if (/frame/i.test(message.text())) errors.push(message.text()) }
  p.on('console', hear)
  await p.evaluate((src) => { document.body.append(Object.assign(document.createElement('iframe'), { src })) }, `${quire.portal}/account`)
  await until('the browser refuses the frame', () => errors.length, 10_000)
  // Nor in a sandbox, nor by a form or a link of the app that aims at a frame.
  for (const attack of [
    (src) => { document.body.append(Object.assign(document.createElement('iframe'), { src, sandbox: 'allow-scripts allow-forms' })) },
    (src) => { document.body.insertAdjacentHTML('beforeend', `<iframe name=aim></iframe><a target=aim href="${src}">x</a>`); document.body.lastChild.click() },
    (src) => { document.body.append(Object.assign(document.createElement('object'), { data: src })) },
  ]) {
    const before = errors.length
    await p.evaluate(attack, `${quire.portal}/account`)
    await until('the browser refuses this frame too', () => errors.length > before, 10_000)
  }
  p.off('console', hear)
  await ada.page.reload()
  await ada.page.getByText('ada', { exact: true }).first().waitFor()
})

test('cookies that an app plants change nothing on the portal or on another label', async () => {
  await p.evaluate(() => {
    for (const domain of ['localhost', 'apps.localhost', '.apps.localhost', 'quire.localhost']) {
      for (const name of ['quire_login', 'quire_write', 'quire_app', '__Host-quire_login', '__Host-quire_app']) {
        document.cookie = `${name}=planted; path=/; domain=${domain}`
      }
    }
    for (let i = 0; i < 250; i++) document.cookie = `filler${i}=x; path=/`
  })
  await ada.page.reload()
  await ada.page.getByRole('navigation', { name: 'Main' }).waitFor()
  // The flood may cost the page of Q its own cookie; then it is let in again.
  await q.reload()
  await q.locator('#notebook_list').waitFor()
})

test('a foreign site can neither connect nor act nor frame', async () => {
  const tab = await ada.context.newPage()
  await tab.goto(evil.origin)
  assert.equal(await socket(tab, `${originOf(q).replace('http', 'ws')}/notebook/api/events/subscribe`), 'refused')
  const contents = `${originOf(q)}/notebook/api/contents`
  // The Lax cookie does not even come along.
  assert.equal(await sent(tab, contents, (url) => { fetch(url, { method: 'POST', mode: 'no-cors', credentials: 'include' }) }, contents), 401)
  const login = `${quire.portal}/login`
  assert.equal(await sent(tab, login, (url) => {
    fetch(url, { method: 'POST', mode: 'no-cors', credentials: 'include', body: new URLSearchParams({ name: 'mallory', password: 'x' }) })
  }, login), 403)
  await tab.close()
})

test("mallory's hand-off, given to ada, does not sign her in to his app", async () => {
  const other = await person(browser)
  await signIn(other.page, quire.portal, mallory)
  await newProject(other.page, quire.portal, 'trap')
  await other.page.getByRole('button', { name: 'Start', exact: true }).click()
  await state(other.page, 'running')
  // Everything up to the form's post, which mallory keeps for ada.
  let kept
  await other.context.route('**/_quire/enter', (route) => {
    kept = { url: route.request().url(), body: route.request().postData() }
    return route.abort()
  })
  await openApp(other.page, 'Notebook')
  await until('the ticket is there', () => kept)

  const tab = await ada.context.newPage()
  await tab.goto(evil.origin)
  await Promise.all([
    tab.waitForURL((url) => url.pathname.endsWith('/_quire/enter')),
    tab.evaluate(({ url, body }) => {
      const form = Object.assign(document.createElement('form'), { method: 'post', action: url })
      for (const [name, value] of new URLSearchParams(body)) form.append(Object.assign(document.createElement('input'), { name, value }))
      document.body.append(form)
      form.submit()
    }, kept),
  ])
  assert.ok(await tab.evaluate(() => performance.getEntriesByType('navigation')[0].responseStatus) >= 400)
  const cookies = await ada.context.cookies(kept.url)
  assert.equal(cookies.find((cookie) => cookie.name === '__Host-quire_app'), undefined)
  await tab.close()
  await other.close()
})

test('signing out closes the sockets of every tab within five seconds and lets none back in', async () => {
  const terminal = await openApp(ada.page, 'Terminal')
  await inside(terminal, '.xterm')
  const closed = new Promise((resolve) => terminal.on('websocket', (ws) => ws.on('close', () => resolve('closed'))))
  await terminal.reload()
  await inside(terminal, '.xterm')
  await ada.page.getByText('ada', { exact: true }).first().click()
  await ada.page.getByRole('button', { name: 'Sign out' }).click()
  const slow = new Promise((resolve) => setTimeout(() => resolve('still open'), 5_000).unref())
  assert.equal(await Promise.race([closed, slow]), 'closed')
  const status = await terminal.evaluate(() => fetch('/terminal/', { redirect: 'manual' }).then((r) => r.status))
  assert.ok(status === 0 || status === 401, `status ${status}`)
})
