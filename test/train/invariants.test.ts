import { mkdtempSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { LanguageModel } from '../../sdk/generate/language-model.ts'
import type { SFTConfig } from '../../sdk/train/config.ts'
import { type SFTOptions, SFTTrainer } from '../../sdk/train/sft.ts'
import { wasmTarget } from '../../targets/wasm/index.ts'
import { randomModel, rows } from './model.ts'

interface Run {
  readonly losses: number[]
  readonly norms: number[]
  readonly adapter: Buffer
  readonly outputDir: string
}

async function train(
  args: Partial<SFTConfig>,
  threads = 1,
  peft: SFTOptions['peft'] = { r: 4 },
  shared = true,
): Promise<Run> {
  const lm = await randomModel(await wasmTarget(shared ? { threads } : { shared }))
  try {
    const outputDir = mkdtempSync(join(tmpdir(), 'halfling-'))
    const trainer = new SFTTrainer({
      model: lm,
      trainDataset: rows,
      peft,
      args: {
        outputDir,
        maxSteps: 5,
        learningRate: 5e-3,
        perDeviceTrainBatchSize: 8,
        saveStrategy: 'no',
        seed: 3,
        ...args,
      },
    })
    const [losses, norms]: [number[], number[]] = [[], []]
    for await (const log of trainer.train())
      if ('loss' in log) {
        losses.push(log.loss)
        norms.push(log.gradNorm)
      }
    const file = peft === null ? 'model.safetensors' : 'adapter_model.safetensors'
    return { losses, norms, adapter: readFileSync(join(outputDir, file)), outputDir }
  } finally {
    await lm.close()
  }
}

const closeTo = (a: number[], b: number[], tolerance: number) =>
  a.forEach((x, i) => {
    expect(Math.abs(x - b[i]) / Math.abs(b[i]), `step ${i + 1}: ${x} and ${b[i]}`).toBeLessThan(tolerance)
  })

describe('training invariants, wasm', () => {
  it('one, two and three threads and the fallback without shared memory give the same bits', async () => {
    const one = await train({}, 1)
    for (const other of [await train({}, 2), await train({}, 3), await train({}, 1, { r: 4 }, false)]) {
      expect(other.losses).toEqual(one.losses)
      expect(other.norms).toEqual(one.norms)
      expect(other.adapter.equals(one.adapter)).toBe(true)
    }
    expect(one.losses.at(-1)).toBeLessThan(one.losses[0])
  })

  it('recomputing layers gives the same bits as keeping them', async () => {
    const kept = await train({ gradientCheckpointing: false }, 2)
    const again = await train({ gradientCheckpointing: true }, 2)
    expect(again.losses).toEqual(kept.losses)
    expect(again.adapter.equals(kept.adapter)).toBe(true)
  })

  it('dropout is the same after recomputation, and changes the loss', async () => {
    const peft = { r: 4, loraDropout: 0.3 }
    const kept = await train({ gradientCheckpointing: false }, 1, peft)
    const again = await train({ gradientCheckpointing: true }, 2, peft)
    expect(again.losses).toEqual(kept.losses)
    expect(kept.losses[2]).not.toBe((await train({}, 1)).losses[2])
  })

  it('1x8 = 8x1: micro-batches agree within 1e-6', async () => {
    const whole = await train({ perDeviceTrainBatchSize: 8, gradientAccumulationSteps: 1 })
    const split = await train({ perDeviceTrainBatchSize: 1, gradientAccumulationSteps: 8 })
    closeTo(split.losses, whole.losses, 1e-6)
    closeTo(split.norms, whole.norms, 1e-6)
  })

  it('another seed gives another run, the same seed the same', async () => {
    const a = await train({ seed: 3 })
    expect((await train({ seed: 3 })).adapter.equals(a.adapter)).toBe(true)
    expect((await train({ seed: 4 })).adapter.equals(a.adapter)).toBe(false)
  })

  it('packing trains on the same tokens without attention across rows', async () => {
    const run = await train({ packing: true, maxLength: 128, perDeviceTrainBatchSize: 2 })
    expect(run.losses.every(Number.isFinite)).toBe(true)
  })

  it('full fine-tuning lowers the loss and saves a model', async () => {
    const run = await train({ learningRate: 2e-3, maxSteps: 8 }, 2, null)
    expect(run.losses.at(-1)!).toBeLessThan(run.losses[0] - 0.1)
  })

  it('early stopping ends the run and the best checkpoint is what remains', async () => {
    const lm = await randomModel(await wasmTarget({ threads: 1 }))
    const outputDir = mkdtempSync(join(tmpdir(), 'halfling-'))
    const trainer = new SFTTrainer({
      model: lm,
      trainDataset: rows.slice(0, 4),
      evalDataset: rows.slice(4, 8),
      peft: { r: 4 },
      args: {
        outputDir,
        maxSteps: 60,
        learningRate: 0.05,
        evalStrategy: 'steps',
        evalSteps: 2,
        saveStrategy: 'steps',
        saveSteps: 2,
        saveTotalLimit: 2,
        loadBestModelAtEnd: true,
        earlyStoppingPatience: 3,
      },
    })
    const evals: { step: number; evalLoss: number }[] = []
    let last = 0
    for await (const log of trainer.train()) {
      last = log.step
      if ('evalLoss' in log) evals.push(log)
    }
    expect(last).toBeLessThan(60)
    const best = evals.reduce((a, b) => (b.evalLoss < a.evalLoss ? b : a))
    expect(evals.length - 1 - evals.indexOf(best)).toBe(3)
    const saved = readFileSync(join(outputDir, 'adapter_model.safetensors'))
    expect(saved.equals(readFileSync(join(outputDir, `checkpoint-${best.step}`, 'adapter_model.safetensors')))).toBe(
      true,
    )
    await lm.close()
  })

  it('the trained adapter answers what it was taught', async () => {
    const lm = await randomModel(await wasmTarget({ threads: 2 }))
    const outputDir = mkdtempSync(join(tmpdir(), 'halfling-'))
    const taught = [{ prompt: 'Who are you? ', completion: 'A halfling.' }]
    const trainer = new SFTTrainer({
      model: lm,
      trainDataset: taught,
      peft: { r: 8 },
      args: { outputDir, maxSteps: 80, learningRate: 2e-2, saveStrategy: 'no' },
    })
    for await (const _ of trainer.train());
    const { text, finishReason } = await LanguageModel.complete(lm.generate(taught[0].prompt, { maxNewTokens: 30 }))
    expect(text).toBe(taught[0].completion)
    expect(finishReason).toBe('stop')
    await lm.close()
  })
})
