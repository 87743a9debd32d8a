// A tour with the official client of Jupyter's API, as JupyterLab's pages use it:
// node services.mjs ADDRESS. Everything that is not as it should be ends the tour
// with an error.
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'

const require = createRequire(import.meta.url)
const WebSocket = require('ws')
require('@jupyterlab/coreutils').PageConfig.setOption('terminalsAvailable', 'true') // as the page says
const {
  ContentsManager, Drive, EventManager, KernelManager, KernelSpecManager, NbConvertManager, ServerConnection, ServiceManager, SessionManager, SettingManager, TerminalManager, UserManager,
  WorkspaceManager,
} = require('@jupyterlab/services')

const base = process.argv[2]
const origin = new URL(base).origin
// What a browser has and does by itself.
const stored = new Map()
globalThis.window = { localStorage: { getItem: (k) => stored.get(k) ?? null, setItem: (k, v) => stored.set(k, v) } }
class Socket extends WebSocket {
  constructor(address, protocols) { super(address, protocols, { origin }) }
}
const serverSettings = ServerConnection.makeSettings({
  baseUrl: base, wsUrl: base.replace(/^http/, 'ws'), appUrl: '/lab', token: '', appendToken: false, WebSocket: Socket,
  fetch: (request, init) => { request.headers.set('Origin', origin); return fetch(request, init) },
})
const step = async (name, does) => {
  try {
    await does()
  } catch (e) {
    console.error(`${name}:`, e, e.cause ?? '')
    process.exit(1)
  }
}
const fails = (promise, status, words) => assert.rejects(promise, (e) => {
  assert.equal(e.response?.status, status, e.stack)
  assert.match(e.message, words)
  return true
})
// The next value of a signal that is as wanted.
const heard = (signal, is) => new Promise((done) => {
  const slot = (_, value) => { if (is(value)) { signal.disconnect(slot); done(value) } }
  signal.connect(slot)
})
const notebook = (source, outputs = []) => ({ cells: [{ cell_type: 'code', id: 'a', metadata: {}, execution_count: null, source, outputs }], metadata: {}, nbformat: 4, nbformat_minor: 5 })

const drive = new Drive({ serverSettings })
const contents = new ContentsManager({ defaultDrive: drive })

await step('files and notebooks', async () => {
  const changes = []
  contents.fileChanged.connect((_, c) => changes.push(c.type))
  const made = await contents.newUntitled({ path: '', type: 'notebook' })
  assert.equal(made.path, 'Untitled.ipynb')
  const saved = await contents.save(made.path, { type: 'notebook', format: 'json', content: notebook('6*7') })
  assert.equal(saved.content, null)
  const got = await contents.get(made.path, { content: true, hash: true })
  assert.equal(got.content.cells[0].source, '6*7')
  assert.equal(got.hash.length, 64)
  assert.equal(got.hash_algorithm, 'sha256')
  const dir = await contents.newUntitled({ path: '', type: 'directory' })
  const moved = await contents.rename(made.path, `${dir.path}/ü & b.ipynb`)
  assert.equal(moved.name, 'ü & b.ipynb')
  const copy = await contents.copy(moved.path, dir.path)
  assert.equal(copy.name, 'ü & b-Copy1.ipynb')
  const list = await contents.get(dir.path, { content: true })
  assert.deepEqual(list.content.map((e) => e.name).sort(), ['ü & b-Copy1.ipynb', 'ü & b.ipynb'])
  const text = await contents.save('pieces.bin', { type: 'file', format: 'base64', chunk: 1, content: btoa('one ') })
  assert.equal(text.size, 4)
  await contents.save('pieces.bin', { type: 'file', format: 'base64', chunk: -1, content: btoa('two') })
  const address = await contents.getDownloadUrl('pieces.bin')
  assert.equal(await (await fetch(address)).text(), 'one two')
  assert.equal((await contents.get('pieces.bin', { type: 'file', format: 'text', content: true })).content, 'one two')
  await fails(contents.get('gone.txt'), 404, /no such file/i)
  await contents.delete(copy.path)
  assert.deepEqual(changes.filter((c) => c === 'rename' || c === 'delete'), ['rename', 'delete'])
})

await step('checkpoints', async () => {
  const path = 'kept.ipynb'
  await contents.save(path, { type: 'notebook', format: 'json', content: notebook('first') })
  const point = await contents.createCheckpoint(path)
  await contents.save(path, { type: 'notebook', format: 'json', content: notebook('second') })
  const list = await contents.listCheckpoints(path)
  assert.ok(list.length >= 2 && list[0].id === point.id, JSON.stringify(list))
  await contents.restoreCheckpoint(path, point.id)
  assert.equal((await contents.get(path, { content: true })).content.cells[0].source, 'first')
  await contents.deleteCheckpoint(path, point.id)
  assert.ok(!(await contents.listCheckpoints(path)).some((c) => c.id === point.id))
})

await step('settings', async () => {
  const settings = new SettingManager({ serverSettings })
  const ids = (await settings.list('ids')).ids
  assert.ok(ids.length > 20, ids)
  const id = '@jupyterlab/apputils-extension:themes'
  assert.ok(ids.includes(id))
  const all = await settings.list()
  assert.equal(all.values.length, ids.length)
  const raw = '{\n  // in the evening\n  theme: "JupyterLab Dark",\n}'
  await settings.save(id, raw)
  const got = await settings.fetch(id)
  assert.equal(got.raw, raw)
  assert.equal(got.schema.properties.theme.type, 'string')
  await fails(settings.save(id, '{'), 400, /400/)
})

await step('workspaces', async () => {
  const workspaces = new WorkspaceManager({ serverSettings })
  assert.deepEqual((await workspaces.list()).ids, [])
  await workspaces.save('default', { data: { 'layout-restorer:data': { main: 1 } }, metadata: { id: 'default' } })
  assert.equal((await workspaces.fetch('default')).data['layout-restorer:data'].main, 1)
  assert.deepEqual((await workspaces.list()).ids, ['default'])
  await workspaces.remove('default')
  assert.deepEqual((await workspaces.list()).ids, [])
})

await step('who, what, and events', async () => {
  const user = new UserManager({ serverSettings })
  await user.ready
  assert.ok(user.identity.username)
  user.dispose()
  assert.ok('html' in await new NbConvertManager({ serverSettings }).getExportFormats())
  new EventManager({ serverSettings }).dispose()
})

await step('terminals', async () => {
  const terminals = new TerminalManager({ serverSettings })
  assert.ok(terminals.isAvailable())
  const t = await terminals.startNew({ cwd: '' })
  let said = ''
  const answered = heard(t.messageReceived, (m) => { if (m.type === 'stdout') said += m.content.join(''); return said.includes('is 42') })
  t.send({ type: 'set_size', content: [30, 90, 300, 900] })
  t.send({ type: 'stdin', content: ['echo is $((6*7))\r'] })
  await answered
  await terminals.refreshRunning()
  assert.deepEqual([...terminals.running()].map((m) => m.name), [t.name])
  await t.shutdown()
  await terminals.refreshRunning()
  assert.deepEqual([...terminals.running()], [])
  terminals.dispose()
})

await step('kernels and sessions', async () => {
  const specs = new KernelSpecManager({ serverSettings })
  await specs.ready
  assert.ok(specs.specs.kernelspecs.python3)
  const kernelManager = new KernelManager({ serverSettings })
  const sessions = new SessionManager({ serverSettings, kernelManager })
  await sessions.ready
  const session = await sessions.startNew({ path: 'kept.ipynb', name: 'kept.ipynb', type: 'notebook', kernel: { name: 'python3' } })
  const future = session.kernel.requestExecute({ code: 'x = 6*7\nx' })
  let result
  future.onIOPub = (m) => { if (m.header.msg_type === 'execute_result') result = m.content.data['text/plain'] }
  assert.equal((await future.done).content.status, 'ok')
  assert.equal(result, '42')
  assert.equal((await session.kernel.info).implementation, 'ipython')
  await session.kernel.restart()
  assert.equal((await session.kernel.requestExecute({ code: 'x' }).done).content.status, 'error')
  await sessions.refreshRunning()
  assert.equal([...sessions.running()].length, 1)
  await session.shutdown()
  await sessions.refreshRunning()
  assert.equal([...sessions.running()].length, 0)
  sessions.dispose()
  kernelManager.dispose()
  specs.dispose()
})

await step('all together', async () => {
  const manager = new ServiceManager({ serverSettings })
  await manager.ready
  assert.ok(manager.isReady)
  manager.dispose()
})
process.exit(0)
