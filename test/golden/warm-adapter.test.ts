import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { evaluate } from '../../sdk/eval/evaluate.ts'
import { loadModel } from '../../sdk/load.ts'
import { foldersWith, goldenRoot, missing, modelFolder, readJson } from './golden.ts'

interface Learning {
  readonly test: string
  readonly start: number
  readonly grpo_from_warm_adapter?: { readonly start: number }
}

// Adapters made by PEFT score here what they scored in PyTorch, on the rows that learning.json names.
describe.skipIf(missing !== null)(`golden accuracy${missing ? ` (${missing})` : ''}`, () => {
  if (foldersWith('learning.json').length === 0) it.skip(`golden learning.json: none in ${goldenRoot}`)
  for (const folder of foldersWith('learning.json')) {
    const learning = readJson<Learning>(join(folder, 'learning.json'))
    const adapter = join(modelFolder(folder), 'warm-adapter')
    const data = join(folder, '..', '..', 'data', 'pebble', learning.test ?? '')
    if (!learning.grpo_from_warm_adapter || !existsSync(adapter) || !existsSync(data)) continue
    const want = learning.grpo_from_warm_adapter.start
    it(`${folder}: ${100 * learning.start}% without, ${100 * want}% with the warm adapter, within 3 points`, async () => {
      const rows = readFileSync(data, 'utf8')
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line))
      const lm = await loadModel(modelFolder(folder), { device: 'wasm', threads: 2, dtype: 'f32', adapter })
      try {
        const options = { grader: 'exact', maxNewTokens: 96, slots: 64 } as const
        const warm = await evaluate(lm, rows, options)
        expect(Math.abs(warm.accuracy - want)).toBeLessThanOrEqual(0.03)
        await lm.model.setAdapters([])
        const base = await evaluate(lm, rows, options)
        expect(Math.abs(base.accuracy - learning.start)).toBeLessThanOrEqual(0.03)
      } finally {
        await lm.close()
      }
    })
  }
})
