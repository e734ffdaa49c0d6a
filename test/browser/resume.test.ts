import type { Page } from 'playwright-core'
import { describe, expect, it } from 'vitest'
import { noBrowser, openBrowser, servePage } from './browser.ts'

const sum = (i: number) => ({ question: `What is ${i} + 3?`, answer: `${i + 3}` })
const rows = JSON.stringify(Array.from({ length: 8 }, (_, i) => sum(i)))

/** metrics.jsonl without the speed. */
const numbers = (text: string) =>
  text
    .trim()
    .split('\n')
    .map((line) => ({ ...JSON.parse(line), tokensPerSecond: 0 }))

describe.skipIf(noBrowser)(`in Chromium${noBrowser ? ` (${noBrowser})` : ''}`, () => {
  it('a run whose tab was closed goes on with the same bits; a second tab may not write there', async () => {
    const [browser, page] = [await openBrowser(), await servePage('./resume-page.ts', { nano: 'models/nano' })]
    try {
      const context = await browser.newContext()
      const open = async (): Promise<Page> => {
        const tab = await context.newPage()
        await tab.goto(page.url)
        await tab.waitForFunction('typeof train === "function"')
        return tab
      }
      const first = await open()
      await first.evaluate(`train('runs/whole', ${rows}, false)`)
      await first.evaluate(`hold.after = 3; void train('runs/cut', ${rows}, false)`)
      // Four lines of the whole run, then those of this one.
      await first.waitForFunction('seen.length === 7', undefined, { polling: 10 })

      const second = await open()
      const refused = await second.evaluate(`train('runs/cut', ${rows}, true).catch((error) => error.message)`)
      expect(refused).toMatch(/^runs\/cut: another tab, .* writes into it/)
      // Cut off in its last step.
      await first.evaluate('hold.go()')
      await first.close()

      const before = (await second.evaluate("files('runs/cut')")) as Record<string, string>
      expect(Object.keys(before)).toContain('checkpoint-2/trainer_state.json')
      expect(Object.keys(before)).not.toContain('adapter_model.safetensors')
      // As a tab leaves it that was closed while a checkpoint was being moved to its place.
      await second.evaluate(`
        (async () => {
          const runs = await (await navigator.storage.getDirectory()).getDirectoryHandle('runs')
          const cut = await runs.getDirectoryHandle('cut')
          const half = await cut.getDirectoryHandle('checkpoint-3', { create: true })
          await half.getFileHandle('optimizer.safetensors', { create: true })
        })()`)
      const refusal = await second.evaluate(`train('runs/cut', ${rows}, false).catch((error) => error.message)`)
      expect(refusal).toMatch(/holds the checkpoints of another run/)
      await second.evaluate(`train('runs/cut', ${rows}, true)`)
      expect(await second.evaluate('seen')).toEqual([3, 4])

      const [whole, cut] = (await second.evaluate("Promise.all(['runs/whole', 'runs/cut'].map(files))")) as Record<
        string,
        string
      >[]
      expect(Object.keys(cut).sort()).toEqual(Object.keys(whole).sort())
      for (const [name, content] of Object.entries(whole)) {
        if (name === 'metrics.jsonl') expect(numbers(cut[name])).toEqual(numbers(content))
        else if (!name.endsWith('trainer_state.json')) expect(cut[name], name).toBe(content)
      }
    } finally {
      await browser.close()
      page.close()
    }
  })
})
