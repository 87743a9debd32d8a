// Debian's Chromium, driven by playwright-core, and what every page of ours must
// pass: no barrier that axe finds, no error in the console, no sideways scrolling.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { chromium } from 'playwright-core'
import { pictures } from './quire.mjs'

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')

export const sizes = { wide: { width: 1440, height: 900 }, tablet: { width: 768, height: 1024 }, phone: { width: 360, height: 740 } }

// kept are the looks that are worth a picture; all are checked.
const kept = ['wide-light', 'wide-dark', 'phone-dark']

// launch starts a browser. Chromium now and then dies before it has opened a
// window, on its own and with nothing of ours in it; it is then started again and
// the report says so. What dies later is a failure.
export async function launch(more = []) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await chromium.launch({
        executablePath: '/usr/bin/chromium',
        args: [
          '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
          // Chromium's own sandbox does not start as root.
          ...(process.getuid() === 0 ? ['--no-sandbox'] : []),
          ...more,
        ],
      })
    } catch (error) {
      if (attempt === 3 || !/process did exit/.test(error.message)) throw error
      console.error(`Chromium died at its start, attempt ${attempt}: ${/process did exit: .*/.exec(error.message)[0]}`)
    }
  }
}

// person opens a browser of one person: own cookies, own pages. Errors that
// pages of ours write to the console are kept in .errors.
export async function person(browser, options = {}) {
  const context = await browser.newContext({ viewport: sizes.wide, ...options })
  context.setDefaultTimeout(20_000)
  const errors = []
  context.on('weberror', (error) => errors.push(`${error.page()?.url()}: ${error.error()}`))
  context.on('console', (message) => {
    const { url } = message.location()
    // Jupyter's pages are not ours, and the page of a starting app has the status 503.
    const foreign = /\/(notebook|lab)\//.test(url) || /\.apps\.localhost|\.site\.test:8089/.test(url) && message.text().includes('status of 503')
    if (message.type() === 'error' && !foreign) errors.push(`${url}: ${message.text()}`)
  })
  const page = await context.newPage()
  return { context, page, errors, close: () => context.close() }
}

// barriers fails with what axe finds on a page, by WCAG 2.2 level AA, or within an
// element of it where the rest is not ours.
export async function barriers(page, name, within) {
  // Through the debugger, because the pages' content policy refuses other scripts.
  await page.evaluate(axe)
  const result = await page.evaluate((part) => globalThis.axe.run(part ?? document, {
    runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
  }), within)
  const found = result.violations.map((v) => `${v.id} (${v.impact}): ${v.help}\n    ${v.nodes.map((n) => n.html + ' — ' + (n.any[0]?.message ?? '')).join('\n    ')}`)
  assert.deepEqual(found, [], `barriers on ${name}`)
}

// look takes a picture of a page at three widths, light and dark, and checks
// each for barriers and sideways scrolling.
export async function look(page, name) {
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' })
    for (const [size, viewport] of Object.entries(sizes)) {
      await page.setViewportSize(viewport)
      const shown = `${size}-${colorScheme}`
      if (kept.includes(shown)) await page.screenshot({ path: join(pictures(), `${name}-${shown}.png`) })
      const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
      assert.ok(over <= 0, `${name} scrolls sideways by ${over} px at ${viewport.width} px`)
    }
    await barriers(page, `${name} (${colorScheme})`)
  }
  await page.emulateMedia({ colorScheme: 'light' })
  await page.setViewportSize(sizes.wide)
}

// picture takes one picture, of an app that is not ours.
export function picture(page, name) {
  return page.screenshot({ path: join(pictures(), `${name}.png`) })
}
