import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { LanguageModel } from '../../sdk/generate/language-model.ts'
import type { TrainProgress } from '../../sdk/train/run.ts'
import { SFTTrainer } from '../../sdk/train/sft.ts'
import { wasmTarget } from '../../targets/wasm/index.ts'
import { randomModel, rows } from './model.ts'

const folder = mkdtempSync(join(tmpdir(), 'halfling-progress-'))
let lm: LanguageModel
beforeAll(async () => {
  lm = await randomModel(await wasmTarget({ threads: 1 }))
})
afterAll(async () => {
  await lm.close()
  rmSync(folder, { recursive: true })
})

describe('onProgress', () => {
  const args = { outputDir: join(folder, 'out'), maxSteps: 2, perDeviceTrainBatchSize: 2 } as const

  it('tells what is read, what the steps need before the first of them, and how far an evaluation is', async () => {
    const trainer = new SFTTrainer({
      model: lm,
      trainDataset: rows.slice(0, 3),
      evalDataset: [...rows, ...rows],
      peft: { r: 4 },
      args: { ...args, evalStrategy: 'steps', evalSteps: 2 },
    })
    const { forecast } = await trainer.plan()
    const told: (TrainProgress | 'step' | 'evalLoss')[] = []
    for await (const line of trainer.train({ onProgress: (progress) => told.push(progress) }))
      told.push('loss' in line ? 'step' : 'evalLoss')
    const reading = (n: number) => Array.from({ length: n }, (_, i) => ({ phase: 'reading', rows: i + 1 }))
    // The rows of evaluation have more tokens than are scored at once.
    const parts = told.filter((one) => typeof one === 'object' && one.phase === 'evaluating')
    expect(parts.length).toBeGreaterThan(1)
    expect(parts.at(-1)).toEqual({ phase: 'evaluating', rows: 48, totalRows: 48 })
    expect(told).toEqual([
      ...reading(3),
      ...reading(48),
      { phase: 'ready', totalSteps: 2, tokens: 64, forecast },
      'step',
      'step',
      ...parts,
      'evalLoss',
    ])
    expect(forecast.total).toBe(forecast.weights + forecast.optimizer + forecast.activations)
  })

  it('a plan tells the same, trains nothing and leaves the model as it was', async () => {
    const before = [...lm.model.adapters.keys()]
    const trainer = new SFTTrainer({
      model: lm,
      trainDataset: rows,
      peft: { r: 8 },
      args: { ...args, outputDir: null },
    })
    const { totalSteps, tokens, forecast } = await trainer.plan()
    expect([totalSteps, tokens]).toEqual([2, 96])
    expect(forecast.total).toBeGreaterThan(forecast.weights)
    expect([...lm.model.adapters.keys()]).toEqual(before)
    for await (const { totalSteps } of trainer.train({
      onProgress: (at) =>
        at.phase === 'ready' && expect(at).toEqual({ phase: 'ready', totalSteps: 2, tokens, forecast }),
    }))
      expect(totalSteps).toBe(2)
  })

  it('an abort ends the reading of rows', async () => {
    const abort = new AbortController()
    let read = 0
    const onProgress = () => {
      if (++read === 5) abort.abort(new Error('enough'))
    }
    const trainer = new SFTTrainer({ model: lm, trainDataset: rows, args })
    await expect(trainer.train({ signal: abort.signal, onProgress }).next()).rejects.toThrow('enough')
    expect(read).toBe(5)
  })
})
