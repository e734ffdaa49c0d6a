import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { SFTConfig } from '../../sdk/train/config.ts'
import { type SFTOptions, SFTTrainer } from '../../sdk/train/sft.ts'
import { wasmTarget } from '../../targets/wasm/index.ts'
import { randomModel, rows } from './model.ts'

const folder = () => mkdtempSync(join(tmpdir(), 'halfling-'))

interface Attempt {
  readonly args?: Partial<SFTConfig>
  readonly data?: SFTOptions['trainDataset']
  readonly peft?: SFTOptions['peft']
  readonly dtype?: 'f32' | 'q8'
  readonly resume?: boolean
}

async function train(
  outputDir: string,
  { args = {}, data = rows, peft = { r: 4 }, dtype = 'f32', resume }: Attempt = {},
) {
  const lm = await randomModel(await wasmTarget({ threads: 1 }), dtype)
  try {
    const given = { outputDir, maxSteps: 4, saveSteps: 2, learningRate: 1e-3, perDeviceTrainBatchSize: 4, ...args }
    const trainer = new SFTTrainer({ model: lm, trainDataset: data, peft, args: given, onWarning: () => {} })
    for await (const _ of trainer.train({ resume }));
  } finally {
    await lm.close()
  }
}

describe('training ends in a typed error, and nothing is lost', () => {
  it('a loss that is not finite keeps the checkpoints before it', async () => {
    const out = folder()
    await expect(
      train(out, { args: { learningRate: 1e30, lrSchedulerType: 'constant', saveSteps: 1 } }),
    ).rejects.toMatchObject({
      code: 'numeric',
    })
    for (const name of readdirSync(out).filter((n) => n.startsWith('checkpoint')))
      expect(existsSync(join(out, name, 'trainer_state.json'))).toBe(true)
    expect(readdirSync(out).some((n) => n.endsWith('.tmp'))).toBe(false)
  })

  it('a folder with the checkpoints of another run is not touched', async () => {
    const out = folder()
    await train(out)
    const before = readFileSync(join(out, 'metrics.jsonl'), 'utf8')
    await expect(train(out)).rejects.toThrow('holds the checkpoints of another run')
    await expect(train(out, { resume: true, args: { learningRate: 2e-3 } })).rejects.toThrow(
      'another learningRate (0.001, now 0.002)',
    )
    await expect(train(out, { resume: true, data: [...rows].reverse() })).rejects.toThrow('dataset')
    await expect(train(out, { resume: true, peft: { r: 8 } })).rejects.toThrow('peft')
    expect(readFileSync(join(out, 'metrics.jsonl'), 'utf8')).toBe(before)
    await train(out, { resume: true })
    expect(readFileSync(join(out, 'metrics.jsonl'), 'utf8')).toBe(before)
  })

  it('a damaged checkpoint is named', async () => {
    const out = folder()
    await train(out)
    truncateSync(join(out, 'checkpoint-4', 'optimizer.safetensors'), 200)
    await expect(train(out, { resume: true })).rejects.toMatchObject({
      code: 'format',
      message: expect.stringContaining('optimizer.safetensors'),
    })
    writeFileSync(join(out, 'checkpoint-4', 'trainer_state.json'), '{"version":')
    await expect(train(out, { resume: true })).rejects.toThrow('delete the checkpoint to resume from an older one')
  })

  it('an output folder that cannot be', async () => {
    const out = folder()
    const file = join(out, 'file')
    writeFileSync(file, '')
    await expect(train(file)).rejects.toMatchObject({ code: 'io', message: expect.stringContaining(file) })
    if (process.getuid?.() === 0) return // root may write anywhere
    chmodSync(out, 0o500)
    await expect(train(join(out, 'inner'))).rejects.toMatchObject({ code: 'io' })
  })

  it('options out of range name themselves', async () => {
    const out = folder()
    for (const args of [
      { learningRate: Number.NaN },
      { learningRate: -1 },
      { perDeviceTrainBatchSize: 0 },
      { gradientAccumulationSteps: 1.5 },
      { maxLength: 0 },
      { adamBeta1: 1 },
      { adamEpsilon: 0 },
      { weightDecay: Number.NaN },
      { maxGradNorm: -1 },
      { warmupSteps: -3 },
      { maxSteps: 0.5 },
      { seed: -1 },
      { saveTotalLimit: 0 },
      { evalStrategy: 'steps' as const },
      { loadBestModelAtEnd: true },
      { earlyStoppingPatience: 1 },
    ])
      await expect(train(out, { args }), JSON.stringify(args)).rejects.toMatchObject({
        code: 'option',
        message: expect.stringContaining(Object.keys(args)[0]),
      })
    for (const peft of [
      { r: 0 },
      { r: 1.5 },
      { loraDropout: 1 },
      { loraAlpha: Number.NaN },
      { targetModules: ['nonsense'] },
    ])
      await expect(train(out, { peft }), JSON.stringify(peft)).rejects.toMatchObject({ code: 'option' })
  })

  it('a last step that leaves no numbers gives no result', async () => {
    const args = { learningRate: 1e39, lrSchedulerType: 'constant', maxSteps: 1 } as const
    const [adapter, whole] = [folder(), folder()]
    await expect(train(adapter, { args })).rejects.toMatchObject({
      code: 'numeric',
      message: expect.stringMatching(/^adapter "default": model.layers.\d.* has values that are not finite/),
    })
    await expect(train(whole, { args, peft: null })).rejects.toThrow(/are no numbers/)
    for (const out of [adapter, whole]) expect(readdirSync(out)).toEqual(['metrics.jsonl'])
  })

  it('full fine-tuning of quantized weights is refused; too large a step is forecast before anything is allocated', async () => {
    await expect(train(folder(), { dtype: 'q8', peft: null })).rejects.toThrow("load with dtype 'f32'")
    const long = Array.from({ length: 4000 }, () => ({ text: 'abcdefgh'.repeat(31) }))
    await expect(train(folder(), { data: long, args: { perDeviceTrainBatchSize: 4000 } })).rejects.toMatchObject({
      code: 'memory',
      message: expect.stringMatching(/a step of \d+ tokens needs [\d.,]+ MB/),
    })
  })

  it('rows that cannot be used name their place', async () => {
    const out = folder()
    const file = join(out, 'rows.jsonl')
    writeFileSync(file, '{"prompt": "a", "completion": "b"}\n{"prompt": "a", \n')
    await expect(train(join(out, 'a'), { data: file })).rejects.toMatchObject({
      code: 'data',
      message: expect.stringContaining('rows.jsonl:2'),
    })
    writeFileSync(file, '')
    await expect(train(join(out, 'b'), { data: file })).rejects.toMatchObject({ code: 'data' })
    await expect(train(join(out, 'c'), { data: [{ wrong: 1 }] })).rejects.toThrow('row 0')
    await expect(train(join(out, 'd'), { data: [{ messages: [{ role: 'user', content: 'hi' }] }] })).rejects.toThrow(
      'nothing in it is scored',
    )
    await expect(train(join(out, 'e'), { data: join(out, 'none.jsonl') })).rejects.toMatchObject({ code: 'data' })
    expect(existsSync(join(out, 'a'))).toBe(false)
  })
})
