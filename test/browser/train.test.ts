import { describe, expect, it } from 'vitest'
import { makeProblem } from '../../examples/nano/problems.ts'
import { loadModel, SFTTrainer } from '../../sdk/index.ts'
import { noBrowser, openBrowser, servePage, waitIn } from './browser.ts'
import type { Trained } from './train-page.ts'

const rows = Array.from({ length: 64 }, (_, i) => ({ ...makeProblem('backward', 61, i) }))
const steps = 6

describe.skipIf(noBrowser)(`in Chromium${noBrowser ? ` (${noBrowser})` : ''}`, () => {
  it('nano is fine-tuned with the losses that Node has, and learns from a reward', { timeout: 400_000 }, async () => {
    const model = await loadModel('nano', { threads: 2, dtype: 'f32' })
    const here: number[] = []
    const args = { outputDir: null, maxSteps: steps, learningRate: 2e-3, perDeviceTrainBatchSize: 8 }
    for await (const log of new SFTTrainer({ model, trainDataset: rows, peft: { r: 8 }, args }).train())
      if ('loss' in log) here.push(log.loss)
    const sizes = Object.fromEntries(
      [...(await model.adapterFiles('default'))].map(([name, blob]) => [name, blob.size]),
    )
    await model.close()

    const [browser, page] = [await openBrowser(), await servePage('./train-page.ts', { nano: 'models/nano' })]
    try {
      const tab = await browser.newPage()
      await tab.goto(page.url)
      await waitIn(tab, 'typeof train === "function"')
      const there = (await tab.evaluate(`train(${JSON.stringify(rows)}, ${steps})`)) as Trained
      expect(there.losses).toHaveLength(steps)
      for (const [i, loss] of there.losses.entries()) expect(Math.abs(loss - here[i]) / here[i]).toBeLessThan(1e-3)
      expect(there.losses.at(-1)).toBeLessThan(there.losses[0])
      expect(there.files).toEqual(sizes)
      const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length
      expect(mean(there.rewards.slice(-3))).toBeGreaterThan(mean(there.rewards.slice(0, 3)))
    } finally {
      await browser.close()
      page.close()
    }
  })
})
