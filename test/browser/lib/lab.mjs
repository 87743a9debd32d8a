// The steps that stories take inside JupyterLab. page is the browser's page, view
// the frame in it where JupyterLab is.
import { expectText } from './expect.mjs'
import { until } from './wait.mjs'

export class Lab {
  constructor(page, view) {
    this.page = page
    this.view = view
    this.panel = view.locator('.jp-NotebookPanel:not(.lm-mod-hidden)')
    this.cells = this.panel.locator('.jp-Notebook .jp-Cell')
  }

  // open opens a file by a double click in the browser on the left.
  async open(name, status = 'idle') {
    await this.view.locator('.jp-DirListing-item', { hasText: name }).dblclick()
    await this.cells.first().waitFor({ timeout: 60_000 })
    return this.status(status)
  }

  // status waits for what the kernel does: idle or busy.
  async status(word) {
    await this.panel.locator(`.jp-Notebook-ExecutionIndicator[data-status="${word}"]`).waitFor({ state: 'attached', timeout: 90_000 })
    return this
  }

  // type writes a cell's text anew; run also runs it.
  async type(at, code) {
    const cell = this.cells.nth(at)
    await cell.locator('.cm-content').click()
    await this.page.keyboard.press('Control+a')
    await this.page.keyboard.insertText(code)
    return cell
  }

  async run(at, code) {
    const cell = await this.type(at, code)
    await this.page.keyboard.press('Control+Enter')
    return cell
  }

  async answers(at, code, text) {
    const cell = await this.run(at, code)
    await expectText(cell.locator('.jp-OutputArea-output').last(), text, 60_000)
    return cell
  }

  async save() {
    await this.page.keyboard.press('Control+s')
    await until('it is saved', async () => !(await this.view.locator('.lm-TabBar-tab.lm-mod-current.jp-mod-dirty').count()))
  }
}
