// The steps that stories take inside Jupyter Notebook. page is the browser's
// page, view the frame in it where Jupyter is (the page itself without a bar).
import { expectText } from './expect.mjs'

export class Notebook {
  constructor(page, view = page) {
    this.page = page
    this.view = view
    this.cells = view.locator('#notebook-container .cell')
  }

  // ready waits for the cells and for a kernel that does nothing.
  async ready() {
    await this.cells.first().waitFor({ timeout: 60_000 })
    await this.view.locator('.kernel_idle_icon').waitFor({ state: 'attached', timeout: 60_000 })
    return this
  }

  // run types code into a new cell at the end and runs it. It gives the cell back.
  async run(code) {
    await this.cells.last().locator('.input_prompt, .prompt').first().click()
    await this.page.keyboard.press('Escape')
    await this.page.keyboard.press('b')
    await this.page.keyboard.press('Enter')
    await this.page.keyboard.insertText(code)
    const index = await this.cells.evaluateAll((cells) => cells.findIndex((cell) => cell.classList.contains('selected')))
    await this.page.keyboard.press('Control+Enter')
    return this.cells.nth(index)
  }

  // answers runs code and waits for what it must print or return.
  async answers(code, text) {
    const cell = await this.run(code)
    await expectText(cell.locator('.output_area .output_subarea').last(), text, 60_000)
    return cell
  }

  async save() {
    await this.page.keyboard.press('Control+s')
    await expectText(this.view.locator('.checkpoint_status'), /Last Checkpoint: (a few seconds|an? |\d)/)
    await this.view.locator('.autosave_status', { hasText: 'unsaved' }).waitFor({ state: 'detached' })
  }
}
