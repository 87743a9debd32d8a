// A browser opens six connections to one host and no more. Open pages that
// nobody looks at must not use them up, on an origin of the project's own and on
// the one origin of everybody.
import { after, before, describe, test } from 'node:test'
import { launch, person } from './lib/chromium.mjs'
import { expectText } from './lib/expect.mjs'
import { inside, openApp, setUp, state, stopProject } from './lib/portal.mjs'
import { start } from './lib/quire.mjs'

const tabs = 7

// look tells a page whether it is seen, in the words the browser uses: a browser
// without a screen takes every tab for seen.
function look(tab, seen) {
  return tab.evaluate((hidden) => {
    Object.defineProperty(document, 'hidden', { configurable: true, get: () => hidden })
    document.dispatchEvent(new Event('visibilitychange'))
  }, !seen)
}

for (const [mode, args] of [['origins of their own', []], ['one origin for all', ['--host', '127.0.0.1']]]) {
  describe(mode, () => {
    let quire, browser, ada
    const open = []
    before(async () => {
      quire = await start({ args })
      browser = await launch()
      ada = await person(browser)
      await setUp(ada.page, quire.address)
      await state(ada.page, 'running')
    })
    after(async () => {
      await browser?.close()
      await quire?.stop()
    })

    test(`${tabs} tabs of one app and of its portal open`, async () => {
      const project = ada.page.url()
      open.push(await openApp(ada.page, 'Terminal'))
      await inside(open[0], '.xterm')
      const address = open[0].url()
      const portal = [ada.page]
      while (open.length < tabs) {
        await look(open.at(-1), false)
        const tab = await ada.context.newPage()
        open.push(tab)
        await tab.goto(address)
        await inside(tab, '.xterm')
        await expectText(tab.locator('#state'), 'running', 10_000)
        await look(portal.at(-1), false)
        portal.push(await ada.context.newPage())
        await portal.at(-1).goto(project)
        await state(portal.at(-1), 'running')
      }
      for (const page of portal.slice(1)) await page.close()
    })

    test('a tab that is seen again knows what happened meanwhile', async () => {
      await look(ada.page, true)
      await stopProject(ada.page)
      await expectText(open.at(-1).locator('#state'), /stopped/, 10_000)
      await look(open[0], true)
      await expectText(open[0].locator('#state'), /stopped/, 10_000)
    })
  })
}
