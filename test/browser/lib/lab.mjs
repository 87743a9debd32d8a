// The steps that stories take inside JupyterLab. page is the browser's page, view
// the frame in it where JupyterLab is.
import { expectText } from './expect.mjs'
import { until } from './wait.mjs'

export class Lab {
  constructor(page, view) {
    this.page = page
    this.view = view
    this.panel = view.locator('.jp-NotebookPanel:not(.lm-mod-hidden)')
    this.dialog = view.locator('.jp-Dialog')
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

  // run presses the keys again if the cell does not even begin: while a page still
  // arranges itself, nobody hears them.
  async run(at, code) {
    const cell = await this.type(at, code)
    const prompt = () => cell.locator('.jp-InputPrompt').first().textContent()
    const before = await prompt()
    for (let tries = 1; ; tries++) {
      await this.page.keyboard.press('Control+Enter')
      try {
        await until('the cell begins', async () => await prompt() !== before, 10_000)
        return cell
      } catch (error) {
        if (tries === 3) throw error
        await cell.locator('.cm-content').click()
      }
    }
  }

  async answers(at, code, text) {
    const cell = await this.run(at, code)
    await expectText(cell.locator('.jp-OutputArea-output').last(), text, 60_000)
    return cell
  }

  // edit opens a file of text and puts the cursor into it.
  async edit(name) {
    await this.view.locator('.jp-DirListing-item', { hasText: name }).dblclick()
    await this.view.locator('.jp-FileEditor:not(.lm-mod-hidden) .cm-content').click()
  }

  // save presses the key again while nothing has come of it: JupyterLab does nothing
  // while it is still about the save before.
  save() {
    return until('it is saved', async () => {
      await this.page.keyboard.press('Control+s')
      return this.clean()
    })
  }

  saved() {
    return until('it is saved', () => this.clean())
  }

  async clean() {
    return !(await this.dialog.count()) && !(await this.view.locator('.lm-TabBar-tab.lm-mod-current.jp-mod-dirty').count())
  }

  // refused saves and waits for the dialog that says who changed the file.
  async refused(title) {
    await until('a save is refused', async () => {
      await this.page.keyboard.press('Control+s')
      return this.dialog.count()
    })
    return expectText(this.dialog.locator('.jp-Dialog-header'), title)
  }

  choose(button) {
    return this.dialog.getByRole('button', { name: button, exact: true }).click()
  }
}
