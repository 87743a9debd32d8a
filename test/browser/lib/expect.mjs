import { until } from './wait.mjs'

// expectText waits until an element's text has the words, and says what it had
// instead when that does not happen.
export async function expectText(locator, words, milliseconds = 20_000) {
  let last = ''
  const has = (text) => words instanceof RegExp ? words.test(text) : text.includes(words)
  try {
    return await until(`“${words}”`, async () => {
      last = (await locator.textContent({ timeout: 1_000 }).catch(() => '')) ?? ''
      return has(last) ? last : ''
    }, milliseconds)
  } catch (error) {
    throw new Error(`${error.message}; it says “${last.trim().slice(0, 300)}”`)
  }
}
