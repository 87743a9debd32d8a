// The forms about files and people: why somebody cannot edit a file, handing a
// project over, and taking over the files of who had it before.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { launch, look, person } from './lib/chromium.mjs'
import { setUp, signIn, state, stopProject } from './lib/portal.mjs'
import { asRoot, start } from './lib/quire.mjs'
import { until } from './lib/wait.mjs'

const ben = { name: 'ben', password: 'a bug in relay seventy' }
let quire, browser, ada, other, dir, project
before(async () => {
  quire = await start()
  browser = await launch()
  ada = await person(browser)
  await setUp(ada.page, quire.address)
  quire.commandWith(`${ben.password}\n`, 'admin', 'create', ben.name, '--password-stdin', '--member')
  await state(ada.page, 'running')
  project = `${quire.portal}/ada/Welcome`
  await ada.page.goto(project)
  await ada.page.getByLabel('User name to add').fill(ben.name)
  await ada.page.getByRole('button', { name: 'Add', exact: true }).click()
  await ada.page.getByRole('button', { name: 'Remove ben' }).waitFor()
  dir = join(quire.dirs.projects, 'ada/Welcome')
  other = await person(browser)
  await signIn(other.page, quire.portal, ben)
})
after(async () => {
  await browser?.close()
  await quire?.stop()
})

const main = (page) => page.getByRole('main').innerText()

test('the page says why a member cannot edit a file', { skip: !asRoot && 'all are one account' }, async () => {
  execFileSync('/usr/sbin/runuser', ['-u', 'ada', '--', 'sh', '-c', `cd ${dir} && mkdir -p d && echo y > d/y.txt && chmod 600 d/y.txt`])
  await ada.page.goto(`${project}/settings/permissions`)
  await ada.page.getByLabel('Person').fill(ben.name)
  await ada.page.getByLabel('File or directory in the project').fill('d/y.txt')
  await ada.page.getByRole('button', { name: 'Ask' }).click()
  await ada.page.getByText(/mask/).first().waitFor()
  await look(ada.page, 'permissions-why')
  await ada.page.getByLabel('File or directory in the project').fill('../../../etc/shadow')
  await ada.page.getByRole('button', { name: 'Ask' }).click()
  await ada.page.locator('[aria-invalid="true"]').waitFor()
})

test('a project is handed over, and its old address leads to the new one', async () => {
  await ada.page.goto(`${project}/settings/team`)
  await ada.page.locator('form[action$="/settings/owner"]').getByRole('combobox').selectOption(ben.name)
  await ada.page.locator('form[action$="/settings/owner"]').getByRole('button').click()
  await ada.page.waitForURL(/\/ben\/Welcome/)
  await ada.page.goto(project)
  assert.equal(new URL(ada.page.url()).pathname, '/ben/Welcome')
  await other.page.goto(`${quire.portal}/ben/Welcome`)
  await other.page.getByText('(owner)').waitFor()
})

test('the new owner takes over the files of the one before', { skip: !asRoot && 'all are one account' }, async () => {
  await until('the directory is his', () => execFileSync('stat', ['-c', '%U', dir], { encoding: 'utf8' }).trim() === 'ben')
  await stopProject(other.page)
  await other.page.goto(`${quire.portal}/ben/Welcome/settings/permissions`)
  await other.page.getByRole('link', { name: 'Look whose files there are' }).click()
  const row = other.page.getByRole('row', { name: /ada/ })
  await row.waitFor({ timeout: 60_000 })
  await look(other.page, 'permissions-take-over')
  await row.getByRole('button', { name: /Take over/ }).click()
  const uid = Number(execFileSync('id', ['-u', 'ben'], { encoding: 'utf8' }))
  await until('the notebook is his', () => statSync(join(dir, 'Welcome.ipynb')).uid === uid, 60_000)
  await state(await (async () => { await other.page.goto(`${quire.portal}/ben/Welcome`); return other.page })(), 'stopped')
  assert.match(await main(other.page), /take.over/i)
})

test('no page wrote an error to the console', () => assert.deepEqual([...ada.errors, ...other.errors].filter((line) => !/400|404/.test(line)), []))
