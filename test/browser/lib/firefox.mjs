// A small client of the WebDriver BiDi protocol, enough to drive the Firefox
// that Debian ships: Playwright drives only a Firefox that it has patched itself.
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync, existsSync } from 'node:fs'
import http from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { until } from './wait.mjs'

// Firefox must not look for anything outside the machine.
const settings = {
  'app.normandy.enabled': false, 'app.update.disabledForTesting': true, 'browser.aboutwelcome.enabled': false,
  'browser.newtabpage.enabled': false, 'browser.safebrowsing.downloads.enabled': false,
  'browser.safebrowsing.malware.enabled': false, 'browser.safebrowsing.phishing.enabled': false,
  'browser.search.update': false, 'browser.shell.checkDefaultBrowser': false, 'browser.startup.page': 0,
  'datareporting.policy.dataSubmissionEnabled': false, 'extensions.update.enabled': false,
  'network.captive-portal-service.enabled': false, 'network.connectivity-service.enabled': false,
  'remote.prefs.recommended': true, 'services.settings.server': 'http://localhost:1/', 'toolkit.telemetry.enabled': false,
}

export async function launchFirefox() {
  const profile = mkdtempSync(join(tmpdir(), 'firefox-'))
  const lines = Object.entries(settings).map(([name, value]) => `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});`)
  writeFileSync(join(profile, 'user.js'), lines.join('\n') + '\n')
  const child = spawn('/usr/bin/firefox-esr', ['--headless', '--no-remote', '--profile', profile, '--remote-debugging-port', '0'], {
    env: { ...process.env, HOME: profile, XDG_RUNTIME_DIR: profile, MOZ_CRASHREPORTER_DISABLE: '1' },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let said = ''
  child.stderr.on('data', (data) => { said = (said + data).slice(-4000) })
  const file = join(profile, 'WebDriverBiDiServer.json')
  try {
    const server = await until('Firefox listens', () => {
      if (child.exitCode !== null) throw new Error(`Firefox ended: ${said}`)
      return existsSync(file) && JSON.parse(readFileSync(file, 'utf8'))
    }, 60_000)
    const socket = await connect(server.ws_port, '/session')
    const firefox = new Firefox(socket, child, profile)
    await firefox.send('session.new', { capabilities: {} })
    const tree = await firefox.send('browsingContext.getTree', {})
    firefox.context = tree.contexts[0].context
    return firefox
  } catch (error) {
    child.kill('SIGKILL')
    rmSync(profile, { recursive: true, force: true })
    throw error
  }
}

class Firefox {
  #socket; #child; #profile; #next = 1; #waiting = new Map()

  constructor(socket, child, profile) {
    this.#socket = socket
    this.#child = child
    this.#profile = profile
    socket.onmessage = (text) => {
      const answer = JSON.parse(text)
      const call = this.#waiting.get(answer.id)
      if (!call) return
      this.#waiting.delete(answer.id)
      if (answer.type === 'error') call.reject(new Error(`${call.method}: ${answer.error}: ${answer.message}`))
      else call.resolve(answer.result)
    }
    socket.onclose = () => {
      for (const call of this.#waiting.values()) call.reject(new Error('Firefox closed the connection'))
      this.#waiting.clear()
    }
  }

  send(method, params) {
    const id = this.#next++
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject, method })
      this.#socket.send(JSON.stringify({ id, method, params }))
    })
  }

  // go opens an address and waits for the page to load.
  go(url) {
    return this.send('browsingContext.navigate', { context: this.context, url, wait: 'complete' })
  }

  // evaluate returns the value of an expression in the page, a promise's too.
  // frame is the index of a frame of the page, none for the page itself.
  async evaluate(expression, frame) {
    const result = await this.send('script.evaluate', {
      expression: `(async () => JSON.stringify(await (${expression}) ?? null))()`,
      target: { context: frame ?? this.context }, awaitPromise: true,
    })
    if (result.type === 'exception') throw new Error(`${expression}: ${result.exceptionDetails.text}`)
    return JSON.parse(result.result.value)
  }

  // frames lists the contexts of the page's frames with their addresses.
  async frames() {
    const { contexts } = await this.send('browsingContext.getTree', { root: this.context })
    return contexts[0].children
  }

  async url() {
    const { contexts } = await this.send('browsingContext.getTree', { root: this.context, maxDepth: 0 })
    return contexts[0].url
  }

  // wait comes back when the expression is true in the page, with its value. A
  // page that is just being left has no answer; the next one is asked.
  wait(expression, milliseconds = 30_000, frame) {
    return until(expression, () => this.evaluate(expression, frame).catch(() => false), milliseconds)
  }

  // fill types into the field as a person would notice it: value and events.
  fill(selector, text) {
    return this.evaluate(`(() => { const field = document.querySelector(${JSON.stringify(selector)});
      field.focus(); field.value = ${JSON.stringify(text)};
      field.dispatchEvent(new Event('input', { bubbles: true })); field.dispatchEvent(new Event('change', { bubbles: true })) })()`)
  }

  click(selector) {
    return this.evaluate(`document.querySelector(${JSON.stringify(selector)}).click()`)
  }

  // type presses the keys one after the other; the key names of WebDriver are understood.
  type(keys) {
    const actions = [...keys].flatMap((value) => [{ type: 'keyDown', value }, { type: 'keyUp', value }])
    return this.send('input.performActions', { context: this.context, actions: [{ type: 'key', id: 'keyboard', actions }] })
  }

  // chord holds the first key while the second is pressed.
  chord(held, pressed) {
    const actions = [
      { type: 'keyDown', value: held }, { type: 'keyDown', value: pressed },
      { type: 'keyUp', value: pressed }, { type: 'keyUp', value: held },
    ]
    return this.send('input.performActions', { context: this.context, actions: [{ type: 'key', id: 'keyboard', actions }] })
  }

  async screenshot(file) {
    const { data } = await this.send('browsingContext.captureScreenshot', { context: this.context })
    writeFileSync(file, Buffer.from(data, 'base64'))
  }

  async close() {
    const ended = this.#child.exitCode !== null ? Promise.resolve() : new Promise((resolve) => this.#child.once('exit', resolve))
    await this.send('browser.close', {}).catch(() => {})
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), 5_000)
    await ended
    clearTimeout(timer)
    rmSync(this.#profile, { recursive: true, force: true, maxRetries: 3 })
  }
}

export const keys = { shift: '\uE008', enter: '\uE007', control: '\uE009', escape: '\uE00C' }

// connect opens a WebSocket: text frames, and no more of the protocol than
// Firefox uses towards its driver.
function connect(port, path) {
  return new Promise((resolve, reject) => {
    const request = http.request({
      host: '127.0.0.1', port, path,
      headers: { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': randomBytes(16).toString('base64') },
    })
    request.on('error', reject)
    request.on('response', (response) => reject(new Error(`Firefox answered ${response.statusCode}`)))
    request.on('upgrade', (_, stream, head) => resolve(new Socket(stream, head)))
    request.end()
  })
}

class Socket {
  #stream; #rest = Buffer.alloc(0); #parts = []
  onmessage = () => {}
  onclose = () => {}

  constructor(stream, head) {
    this.#stream = stream
    stream.on('data', (data) => this.#read(data))
    stream.on('close', () => this.onclose())
    stream.on('error', () => {})
    if (head.length) this.#read(head)
  }

  send(text) {
    const body = Buffer.from(text)
    const mask = randomBytes(4)
    const length = body.length < 126 ? Buffer.from([0x80 | body.length]) : Buffer.alloc(body.length < 65536 ? 3 : 9)
    if (length.length === 3) { length[0] = 0x80 | 126; length.writeUInt16BE(body.length, 1) }
    if (length.length === 9) { length[0] = 0x80 | 127; length.writeBigUInt64BE(BigInt(body.length), 1) }
    for (let i = 0; i < body.length; i++) body[i] ^= mask[i & 3]
    this.#stream.write(Buffer.concat([Buffer.from([0x81]), length, mask, body]))
  }

  #read(data) {
    this.#rest = Buffer.concat([this.#rest, data])
    for (;;) {
      if (this.#rest.length < 2) return
      let size = this.#rest[1] & 127
      let start = 2
      if (size === 126) { start = 4; if (this.#rest.length < 4) return; size = this.#rest.readUInt16BE(2) }
      else if (size === 127) { start = 10; if (this.#rest.length < 10) return; size = Number(this.#rest.readBigUInt64BE(2)) }
      if (this.#rest.length < start + size) return
      const first = this.#rest[0]
      const body = this.#rest.subarray(start, start + size)
      this.#rest = this.#rest.subarray(start + size)
      if ((first & 15) > 2) continue // control frames
      this.#parts.push(Buffer.from(body))
      if (!(first & 0x80)) continue
      const text = Buffer.concat(this.#parts).toString()
      this.#parts = []
      this.onmessage(text)
    }
  }
}
