import type { Page } from 'playwright-core'
import { describe, expect, it } from 'vitest'
import { noBrowser, openBrowser, servePage, waitIn } from './browser.ts'

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
        await waitIn(tab, 'typeof train === "function"')
        return tab
      }
      const first = await open()
      await first.evaluate(`train('runs/whole', ${rows}, false)`)
      await first.evaluate(`hold.after = 3; void train('runs/cut', ${rows}, false)`)
      // Four lines of the whole run, then those of this one.
      await waitIn(first, 'seen.length === 7')

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

  it('a storage that is full or locked ends a training with a typed error; its last checkpoint is whole', async () => {
    const [browser, page] = [await openBrowser(), await servePage('./resume-page.ts', { nano: 'models/nano' })]
    try {
      const tab = await (await browser.newContext()).newPage()
      await tab.goto(page.url)
      await waitIn(tab, 'typeof train === "function"')
      const cdp = await tab.context().newCDPSession(tab)
      const origin = new URL(page.url).origin
      const trouble = {
        full: async () => {
          const usage = (await tab.evaluate('navigator.storage.estimate().then(({ usage }) => usage)')) as number
          await cdp.send('Storage.overrideQuotaForOrigin', { origin, quotaSize: usage + 1000 })
          return () => cdp.send('Storage.overrideQuotaForOrigin', { origin })
        },
        locked: async () => {
          await tab.evaluate("(async () => { globalThis.locker = await lock('runs/locked/metrics.jsonl') })()")
          return () => tab.evaluate('locker.terminate()')
        },
      }
      await tab.evaluate(`train('runs/whole', ${rows}, false)`)
      const whole = (await tab.evaluate("files('runs/whole')")) as Record<string, string>
      for (const [name, begin] of Object.entries(trouble)) {
        await tab.evaluate(
          `seen.length = 0; hold.after = 3; globalThis.ran = failing(train('runs/${name}', ${rows}, false)); null`,
        )
        await waitIn(tab, 'seen.length === 3')
        const end = await begin()
        expect(await tab.evaluate('hold.after = 0; hold.go(); ran'), name).toMatch(
          new RegExp(`^io: runs/${name}/.*cannot be written: `),
        )
        const left = (await tab.evaluate(`files('runs/${name}')`)) as Record<string, string>
        for (const file of ['adapter_model.safetensors', 'optimizer.safetensors'].map((file) => `checkpoint-2/${file}`))
          expect(left[file], `${name}: ${file}`).toBe(whole[file])
        await end()
        await tab.evaluate(`train('runs/${name}', ${rows}, true)`)
        const after = (await tab.evaluate(`files('runs/${name}')`)) as Record<string, string>
        expect(after['adapter_model.safetensors'], name).toBe(whole['adapter_model.safetensors'])
      }
    } finally {
      await browser.close()
      page.close()
    }
  })
})
