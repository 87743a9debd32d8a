// What a person does in the portal, by the names that are on the page.
import { until } from './wait.mjs'

export const admin = { name: 'ada', password: 'difference engine 1843' }

// setUp fills in the form behind the one-time link.
export async function setUp(page, address, { name, password } = admin) {
  await page.goto(address)
  await page.getByLabel('User name').fill(name)
  await page.getByLabel('Password', { exact: true }).fill(password)
  await page.getByLabel('The same password again').fill(password)
  await page.getByRole('button', { name: 'Create the account and begin' }).click()
  await page.waitForURL((url) => url.pathname !== '/setup')
}

export async function signIn(page, portal, { name, password }) {
  await page.goto(`${portal}/login`)
  await page.getByLabel('User name').fill(name)
  await page.getByLabel('Password').fill(password)
  await page.getByRole('button', { name: 'Sign in' }).click()
  await page.waitForURL((url) => url.pathname !== '/login')
}

export async function newProject(page, portal, name, summary = '') {
  await page.goto(`${portal}/new`)
  await page.getByLabel('Project name').fill(name)
  if (summary) await page.getByLabel('Summary').fill(summary)
  await page.getByRole('button', { name: 'Create project' }).click()
  await page.waitForURL((url) => url.pathname.endsWith(`/${name}`))
}

// state waits until the project's page says the word: running, stopped, failed.
export function state(page, word, milliseconds = 60_000) {
  return page.getByRole('region', { name: 'Status' }).getByText(word, { exact: true }).first().waitFor({ timeout: milliseconds })
}

// openApp presses an app's button and gives back the tab that it opens in.
export async function openApp(page, title) {
  const [tab] = await Promise.all([
    page.context().waitForEvent('page'),
    page.getByRole('button', { name: `${title} opens in a new tab` }).click(),
  ])
  return tab
}

// inside finds the frame of a tab that shows the element: the app itself, or
// the app below the bar.
export function inside(tab, selector, milliseconds = 60_000) {
  return until(() => `${selector} in ${tab.frames().map((frame) => frame.url()).join(' > ')}`, async () => {
    for (const frame of tab.frames()) {
      if (await frame.locator(selector).count().catch(() => 0)) return frame
    }
    return null
  }, milliseconds)
}

// stop ends a project from its page, with or without sessions to be confirmed.
export async function stopProject(page) {
  const ask = page.getByText('Stop…')
  if (await ask.count()) {
    await ask.click()
    await page.getByRole('button', { name: 'Stop the project' }).click()
  } else {
    await page.getByRole('button', { name: 'Stop', exact: true }).click()
  }
  await state(page, 'stopped')
}
