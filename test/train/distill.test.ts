import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { writeRandomQwen2 } from '../../examples/nano/random-qwen2.ts'
import { writeTinyModel } from '../../examples/tiny-model.ts'
import { datasetHash } from '../../sdk/data/dataset-hash.ts'
import type { TeacherSettings } from '../../sdk/data/teacher-cache.ts'
import { type Example, tokenizeRows } from '../../sdk/data/tokenize.ts'
import { DataError, OptionError } from '../../sdk/errors.ts'
import { buildTeacherCache, modelTeacher } from '../../sdk/generate/teacher.ts'
import {
  type DistillConfig,
  type DistillOptions,
  DistillTrainer,
  type LanguageModel,
  loadModel,
} from '../../sdk/index.ts'

const rows = Array.from({ length: 24 }, (_, i) => ({
  prompt: `say ${i} `,
  completion: 'abcdefghijklmnop'.slice(0, 4 + (i % 9)),
}))

let folder: string
let teacher: LanguageModel
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'halfling-distill-'))
  for (const seed of [0, 1]) await writeTinyModel(join(folder, `tiny-${seed}`), seed)
  teacher = await loadModel(join(folder, 'tiny-0'), { dtype: 'f32', threads: 1 })
  await buildCache('topk', { method: 'topk', k: 16 })
  await buildCache('sampled', { method: 'sampled', k: 32 })
  await buildCache('warm', { method: 'topk', k: 16, temperature: 2 })
})
afterAll(async () => {
  await teacher.close()
  await rm(folder, { recursive: true, force: true })
})

async function buildCache(name: string, given: Pick<TeacherSettings, 'method' | 'k'> & { temperature?: number }) {
  const examples: Example[] = []
  for await (const e of tokenizeRows(rows, teacher.tokenizer, teacher.chatTemplate)) examples.push(e)
  const settings: TeacherSettings = {
    temperature: 1,
    seed: 5,
    model: 'tiny-0',
    tokenizer: teacher.tokenizer.fingerprint,
    template: null,
    dataset: datasetHash(examples),
    vocabSize: teacher.model.config.vocabSize,
    rows: examples.length,
    tokens: examples.reduce((n, e) => n + e.labels.filter((label) => label >= 0).length, 0),
    shardRows: 10,
    ...given,
  }
  await buildTeacherCache(join(folder, name), settings, modelTeacher(teacher.model, settings), examples)
}

interface Run {
  readonly losses: number[]
  readonly adapter: Buffer
  readonly outputDir: string
}

async function distill(
  args: Partial<DistillConfig> = {},
  {
    threads = 1,
    resume = false,
    stopAfter = Number.POSITIVE_INFINITY,
    ...options
  }: Partial<DistillOptions> & {
    threads?: number
    resume?: boolean
    stopAfter?: number
  } = {},
): Promise<Run> {
  const model = await loadModel(join(folder, 'tiny-1'), { dtype: 'f32', threads })
  try {
    const outputDir = (args.outputDir as string | undefined) ?? (await mkdtemp(join(folder, 'run-')))
    const trainer = new DistillTrainer({
      model,
      teacher: join(folder, 'topk'),
      trainDataset: rows,
      peft: { r: 4, targetModules: 'all-linear' },
      ...options,
      args: {
        maxSteps: 6,
        learningRate: 1e-2,
        perDeviceTrainBatchSize: 8,
        saveStrategy: 'no',
        seed: 3,
        ...args,
        outputDir,
      },
    })
    const losses: number[] = []
    for await (const log of trainer.train({ resume })) {
      if ('loss' in log) losses.push(log.loss)
      if (losses.length >= stopAfter) break
    }
    const adapter = await readFile(join(outputDir, 'adapter_model.safetensors')).catch(() => Buffer.alloc(0))
    return { losses, adapter, outputDir }
  } finally {
    await model.close()
  }
}

const closeTo = (a: number[], b: number[], tolerance: number) =>
  a.forEach((x, i) => {
    expect(Math.abs(x - b[i]) / Math.abs(b[i]), `step ${i + 1}: ${x} and ${b[i]}`).toBeLessThan(tolerance)
  })

describe('DistillTrainer', () => {
  it.each<[string, Partial<DistillConfig>, string]>([
    ['forward', {}, 'topk'],
    ['reverse', { beta: 1 }, 'topk'],
    ['Jensen-Shannon', { beta: 0.5 }, 'topk'],
    ['with cross-entropy', { alpha: 0.5 }, 'topk'],
    ['from draws', {}, 'sampled'],
    ['at temperature 2', {}, 'warm'],
    ['at temperature 2 with cross-entropy', { alpha: 0.3 }, 'warm'],
  ])('the loss falls: %s', async (_, args, cache) => {
    const { losses } = await distill({ ...args, maxSteps: 15 }, { teacher: join(folder, cache) })
    expect(losses.at(-1)!).toBeLessThan(0.9 * losses[0])
  })

  it('threads change nothing, to the bit; 1x8 = 8x1 to 1e-6', async () => {
    const one = await distill()
    const two = await distill({}, { threads: 2 })
    expect(two.losses).toEqual(one.losses)
    expect(two.adapter.equals(one.adapter)).toBe(true)
    const split = await distill({ perDeviceTrainBatchSize: 1, gradientAccumulationSteps: 8 })
    closeTo(split.losses, one.losses, 1e-6)
  })

  it('an interrupted run ends with the same bits', async () => {
    const whole = await distill({ saveStrategy: 'steps', saveSteps: 2 })
    const first = await distill({ saveStrategy: 'steps', saveSteps: 2 }, { stopAfter: 5 })
    const resumed = await distill({ saveStrategy: 'steps', saveSteps: 2, outputDir: first.outputDir }, { resume: true })
    expect(resumed.losses).toEqual(whole.losses.slice(4))
    expect(resumed.adapter.equals(whole.adapter)).toBe(true)
  })

  it('a live teacher says what its cache says', async () => {
    const cached = await distill()
    const live = await distill({ topK: 16 }, { teacher })
    // The cache keeps f16.
    closeTo(live.losses, cached.losses, 2e-3)
  })

  it('on-policy: the student answers, the teacher judges; the same seed, the same run', async () => {
    const on = await distill({ lmbda: 1, maxNewTokens: 8 }, { teacher })
    const again = await distill({ lmbda: 1, maxNewTokens: 8 }, { teacher, threads: 2 })
    expect(again.losses).toEqual(on.losses)
    expect(on.losses.every((loss) => loss > 0 && Number.isFinite(loss))).toBe(true)
    const off = await distill({ lmbda: 0, maxNewTokens: 8 }, { teacher })
    expect(off.losses[0]).not.toBe(on.losses[0])
  })

  it('a teacher with a wider table of the same tokenizer is taken: what the student does not have is the rest', async () => {
    const wide = join(folder, 'wide')
    const shape = {
      vocabSize: 320,
      hiddenSize: 64,
      intermediateSize: 96,
      numHiddenLayers: 1,
      numAttentionHeads: 2,
      numKeyValueHeads: 1,
      maxPositionEmbeddings: 256,
    }
    const tokenizer = JSON.parse(await readFile(join(folder, 'tiny-0/tokenizer.json'), 'utf8'))
    await writeRandomQwen2(wide, shape, tokenizer, 7)
    const model = await loadModel(wide, { dtype: 'f32', threads: 1 })
    try {
      const { losses } = await distill({ maxSteps: 15, topK: 64 }, { teacher: model })
      expect(losses.at(-1)!).toBeLessThan(losses[0])
    } finally {
      await model.close()
    }
  })
})

describe('what does not fit is refused', () => {
  it('another temperature than the cache was built at', async () => {
    await expect(distill({ temperature: 2 })).rejects.toThrow(/was built at 1.*build the cache at 2/)
  })
  it('other rows, or other masking', async () => {
    await expect(distill({}, { trainDataset: rows.slice(1) })).rejects.toThrow(DataError)
    await expect(distill({ completionOnlyLoss: false })).rejects.toThrow(/chat template, maxLength and masking/)
  })
  it('anything but the forward divergence of draws', async () => {
    await expect(distill({ beta: 1 }, { teacher: join(folder, 'sampled') })).rejects.toThrow(/unbiased forward KL only/)
  })
  it('on-policy training with a cache', async () => {
    await expect(distill({ lmbda: 0.5 })).rejects.toThrow(OptionError)
  })
  it('numbers out of range', async () => {
    await expect(distill({ alpha: 1.5 })).rejects.toThrow('alpha: 1.5 is not a number from 0 to 1')
    await expect(distill({ topK: 65 }, { teacher })).rejects.toThrow(OptionError)
  })
  it('another tokenizer', async () => {
    const nano = await loadModel('models/nano', { threads: 1 })
    try {
      await expect(distill({}, { teacher: nano })).rejects.toThrow(/the teacher has another tokenizer/)
    } finally {
      await nano.close()
    }
  })
})
