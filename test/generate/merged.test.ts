import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import type { LanguageModel } from '../../sdk/generate/language-model.ts'
import { scoreExamples } from '../../sdk/generate/score.ts'
import { loadModel } from '../../sdk/load.ts'
import { SFTTrainer } from '../../sdk/train/sft.ts'
import { wasmTarget } from '../../targets/wasm/index.ts'
import { randomModel, rows } from '../train/model.ts'

it('train, merge, load: the merged model is the adapted one; without the adapter it is the base', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'halfling-merged-'))
  const lm = await randomModel(await wasmTarget({ threads: 1 }))
  const ids = lm.tokenizer.encode(rows[3].prompt + rows[3].completion)
  const example = { inputIds: ids, labels: [-100, ...ids.slice(1)], row: 0 }
  const score = async (of: LanguageModel) => (await scoreExamples(of.model, [example]))[0]
  const base = await score(lm)
  const trainer = new SFTTrainer({
    model: lm,
    trainDataset: rows,
    peft: { r: 4, useDora: true },
    args: { outputDir: join(folder, 'adapter'), maxSteps: 6, learningRate: 1e-2, saveStrategy: 'no' },
  })
  for await (const _ of trainer.train());
  const adapted = await score(lm)
  await lm.saveMerged(join(folder, 'merged'), 'f32')
  await expect(lm.saveMerged(join(folder, 'merged'))).rejects.toThrow('has files in it')
  await lm.setAdapters([])
  expect(await score(lm)).toEqual(base)
  await lm.close()
  const merged = await loadModel(join(folder, 'merged'), { device: 'wasm', threads: 1 })
  const found = await score(merged)
  await merged.close()
  for (const [t, want] of adapted.entries()) expect(Math.abs(found[t] - want)).toBeLessThan(1e-4)
  expect(Math.max(...adapted.map((x, t) => Math.abs(x - base[t])))).toBeGreaterThan(0.1)
})
