import { describe, expect, it } from 'vitest'
import { makeProblem } from '../../examples/nano/problems.ts'
import { noBrowser, openBrowser, servePage } from './browser.ts'
import type { Tried } from './engine-page.ts'

const rows = Array.from({ length: 8 }, (_, i) => ({ ...makeProblem('backward', 61, i) }))

describe.skipIf(noBrowser)(`the engine in Chromium${noBrowser ? ` (${noBrowser})` : ''}`, () => {
  it('loads, chats, trains, foretells, aborts; its errors are the SDK’s', { timeout: 200_000 }, async () => {
    const [browser, page] = [await openBrowser(), await servePage('./engine-page.ts', { nano: 'models/nano' })]
    try {
      const tab = await browser.newPage()
      await tab.goto(page.url)
      await tab.waitForFunction('typeof tryEngine === "function"')
      const tried = (await tab.evaluate(`tryEngine(${JSON.stringify(rows)})`)) as Tried
      expect(tried.unloaded).toMatchObject({
        option: true,
        code: 'option',
        message: 'no model is loaded: load one first',
      })
      expect(tried.info).toMatchObject({ device: { name: 'wasm' }, parameters: 1_281_152, context: 1024, chats: true })
      expect(tried.text).toContain('<answer>42</answer>')
      expect(tried.losses).toHaveLength(3)
      expect(tried.losses[2]).toBeLessThan(tried.losses[0])
      expect(tried.adapter).toEqual({ name: 'default', active: true, rank: 4 })
      expect(tried.wrongRow).toMatchObject({ data: true, code: 'data' })
      expect(tried.wrongRow.message).toMatch(/^row 0: its columns are colour/)
      expect(tried.wrongReward).toMatchObject({ option: true })
      const { weights, optimizer, activations, total } = tried.forecast
      expect(total).toBe(weights + optimizer + activations)
      expect(tried.aborted.message).toBe('enough')
      expect(tried.busy).toMatchObject({ option: true, message: 'setAdapters: a training runs, end it first' })
      // The first, and the one that was left: what was refused, foretold or aborted left none.
      expect(tried.adapters).toEqual(['default', 'default-2'])
    } finally {
      await browser.close()
      page.close()
    }
  })
})
