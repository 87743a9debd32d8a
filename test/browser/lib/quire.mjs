// Starts a whole Quire for a story: bin/quire up with directories of its own,
// as root with separate accounts, otherwise in single-account mode.
import { execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { until, witnesses } from './wait.mjs'

export const repository = resolve(dirname(fileURLToPath(import.meta.url)), '../../..')
const binary = join(repository, 'bin/quire')
export const asRoot = process.getuid() === 0

// A story that stopped half-way must not leave anything running.
const running = new Set()
witnesses.push(() => [...running].map((quire) => quire.logs()).join('\n'))
process.once('exit', () => { for (const quire of running) quire.abandon() })

// start runs Quire and waits for the address it prints. settings are keys of
// the configuration file; args go to quire up. plain takes the places of a fresh
// installation, /projects and so on; one story of a run can have them.
export async function start({ settings = {}, args = [], plain = false } = {}) {
  if (asRoot && !process.env.QUIRE_NAMESPACE) {
    throw new Error('As root this makes accounts: run scripts/in-namespace scripts/browser')
  }
  const quire = new Quire(settings, plain && asRoot)
  running.add(quire)
  await quire.up(args)
  return quire
}

class Quire {
  #child; #said = ''

  constructor(settings, plain) {
    if (plain) {
      this.dirs = { logs: '/var/log/quire' }
      this.config = []
      return
    }
    this.home = mkdtempSync(join(asRoot ? '/var/lib' : tmpdir(), 'quire-'))
    if (asRoot) execFileSync('chmod', ['0711', this.home])
    this.run = mkdtempSync(join(asRoot ? '/run' : '/tmp', 'q-'))
    if (asRoot) execFileSync('chmod', ['0711', this.run])
    this.dirs = { data: `${this.home}/data`, run: `${this.run}/r`, logs: `${this.home}/logs`, site: `${this.home}/site`, projects: `${this.home}/projects` }
    const file = join(this.home, 'quire.conf')
    this.config = ['-c', file]
    writeFileSync(file, JSON.stringify({ ...settings, dirs: this.dirs }, null, 2))
  }

  // up starts the supervisor, also once more after down. What it prints is in said.
  async up(args = []) {
    this.#said = ''
    const env = { ...process.env, HOME: this.home && !asRoot ? this.home : process.env.HOME }
    delete env.SSH_CONNECTION
    this.#child = spawn(binary, ['up', ...this.config, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] })
    for (const stream of [this.#child.stdout, this.#child.stderr]) stream.on('data', (data) => { this.#said += data })
    const address = await until('quire up prints its address', () => {
      if (this.#child.exitCode !== null) throw new Error(`quire up ended with ${this.#child.exitCode}:\n${this.#said}`)
      return /Open (http\S+)/.exec(this.#said)
    }, 30_000).catch((error) => { throw new Error(`${error.message}\nIt printed:\n${this.#said}\n${this.logs()}`) })
    this.address = address[1]
    this.portal = new URL(this.address).origin
  }

  get said() { return this.#said }
  get pid() { return this.#child.pid }

  // command runs a sub-command of quire and gives back what it printed.
  command(...args) {
    return execFileSync(binary, [...args, ...this.config], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
  }

  // commandWith gives the command something to read.
  commandWith(input, ...args) {
    return execFileSync(binary, [...args, ...this.config], { encoding: 'utf8', input })
  }

  // role finds the process of a role among the supervisor's children.
  role(name) {
    for (const pid of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
      try {
        const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
        const parent = Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1])
        if (parent === this.pid && words[1] === name) return Number(pid)
      } catch { /* it ended meanwhile */ }
    }
    return 0
  }

  // kill ends a role as a crash would and waits for the supervisor to start another.
  async kill(name) {
    const old = await until(`${name} runs`, () => this.role(name))
    process.kill(old, 'SIGKILL')
    return until(`${name} runs again`, () => { const now = this.role(name); return now && now !== old ? now : 0 }, 10_000)
  }

  // down ends the roles as Ctrl-C does; sessions go on.
  async down() {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const ended = new Promise((resolve) => this.#child.once('exit', resolve))
      this.#child.kill('SIGINT')
      const timer = setTimeout(() => this.#child.kill('SIGKILL'), 15_000)
      await ended
      clearTimeout(timer)
    }
  }

  // stop ends everything, sessions too, and removes what was made.
  async stop() {
    try { this.command('stop', '--sessions') } catch { /* said below, when it mattered */ }
    await this.down()
    running.delete(this)
    if (asRoot && this.run) unmount(this.run)
    for (const dir of [this.home, this.run]) if (dir) rmSync(dir, { recursive: true, force: true, maxRetries: 5 })
    if (asRoot) removeAccounts()
  }

  abandon() {
    try { this.command('stop', '--sessions') } catch { /* best effort */ }
    this.#child?.kill('SIGKILL')
  }

  // logs are the last lines of every role, for the message of a failed story.
  logs() {
    let out = ''
    if (!existsSync(this.dirs.logs)) return out
    for (const name of readdirSync(this.dirs.logs)) {
      out += `--- ${name}\n${readFileSync(join(this.dirs.logs, name), 'utf8').split('\n').slice(-25).join('\n')}\n`
    }
    return out
  }
}

// unmount takes away what a session whose clearing up was cut short has left.
function unmount(below) {
  for (const line of readFileSync('/proc/self/mounts', 'utf8').split('\n')) {
    const place = line.split(' ')[1]
    if (place?.startsWith(`${below}/`)) execFileSync('umount', ['--lazy', place])
  }
}

// removeAccounts takes away the accounts that a Quire made on this machine of the
// stories' own: the next one begins anew, and would give their numbers to others.
function removeAccounts() {
  for (const line of readFileSync('/etc/passwd', 'utf8').split('\n')) {
    const [name, , , , comment] = line.split(':')
    if (comment === 'Quire') execFileSync('/usr/sbin/userdel', ['--remove', '--force', '--', name], { stdio: 'ignore' })
  }
}

// pictures is where screenshots go: a directory that is kept, or none.
export function pictures() {
  const dir = process.env.PICTURES ? resolve(repository, process.env.PICTURES) : join(repository, 'test-results')
  mkdirSync(dir, { recursive: true })
  return dir
}

