import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { exportOnnx, generateBatch, loadModel } from '../../sdk/index.ts'
import { noBrowser, openBrowser, servePage, waitIn } from './browser.ts'

describe.skipIf(noBrowser)(`examples/onnx-web in Chromium${noBrowser ? ` (${noBrowser})` : ''}`, () => {
  it('an exported model says in onnxruntime-web what it says here', async () => {
    const output = join(mkdtempSync(join(tmpdir(), 'halfling-onnx-web-')), 'nano')
    await exportOnnx('nano', output, { dtypes: ['q4', 'q8'] })
    const [browser, page] = [await openBrowser(), await servePage('./onnx-page.ts', { model: join(output, 'onnx') })]
    try {
      const tab = await browser.newPage()
      await tab.goto(page.url)
      await waitIn(tab, 'typeof answer === "function"')
      const files = { q4: 'model_q4.onnx', q8: 'model_quantized.onnx' }
      for (const dtype of ['q4', 'q8'] as const) {
        const lm = await loadModel('nano', { device: 'wasm', dtype, exactActivations: true })
        const prompt = lm.encodePrompt('How many apples are 3 and 4 apples?')
        let expected: number[] = []
        const options = { temperature: 0, repetitionPenalty: 1, maxNewTokens: 16 }
        for await (const { tokenIds } of generateBatch(lm, [prompt], options)) expected = tokenIds
        await lm.close()
        const there = await tab.evaluate(
          `answer('/model/${files[dtype]}', ${JSON.stringify(prompt)}, ${expected.length})`,
        )
        expect(there, dtype).toEqual(expected)
      }
    } finally {
      await browser.close()
      page.close()
    }
  })
})
