import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { buildTeacherCache, type Teacher } from '../../sdk/generate/teacher.ts'
import { type LanguageModel, loadModel, SFTTrainer } from '../../sdk/index.ts'
import { diskLock } from '../../sdk/store/disk-lock.ts'

const folder = mkdtempSync(join(tmpdir(), 'halfling-lock-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

async function withTrainer(outputDir: string, use: (trainer: SFTTrainer) => Promise<void>): Promise<void> {
  const model: LanguageModel = await loadModel('nano', { threads: 1 })
  const args = { outputDir, maxSteps: 3, saveStrategy: 'no' as const }
  const trainDataset = [{ question: 'What is 2 + 3?', answer: '5' }]
  try {
    await use(new SFTTrainer({ model, trainDataset, peft: { r: 4 }, args }))
  } finally {
    await model.close()
  }
}
const finish = async (trainer: SFTTrainer) => {
  for await (const _ of trainer.train());
}

it('two runs in one folder: the second names the process of the first; afterwards the folder is free', async () => {
  const outputDir = join(folder, 'out')
  await withTrainer(outputDir, async (first) => {
    for await (const log of first.train())
      if (log.step === 1)
        await withTrainer(outputDir, async (second) => {
          await expect(finish(second)).rejects.toThrow(`process ${process.pid} writes into it`)
        })
  })
  expect(existsSync(join(outputDir, 'run.lock'))).toBe(false)
  // A run that is left in the middle gives it back too.
  await withTrainer(outputDir, async (trainer) => {
    for await (const _ of trainer.train()) break
  })
  expect(existsSync(join(outputDir, 'run.lock'))).toBe(false)
})

it('of many that take over the lock of a dead process one has it', async () => {
  const lock = join(folder, 'many.lock')
  writeFileSync(lock, `99999999 ${hostname()} 0.5`)
  const taken = (await Promise.all(Array.from({ length: 20 }, () => diskLock(lock)))).filter(
    (release) => typeof release !== 'string',
  )
  expect(taken).toHaveLength(1)
  expect(await diskLock(lock)).toBe(`process ${process.pid}`)
  await taken[0]()
  expect(existsSync(lock)).toBe(false)
})

it('two builds of a teacher cache: the second names the process of the first', async () => {
  const cache = join(folder, 'cache')
  const settings = {
    method: 'topk' as const,
    k: 1,
    temperature: 1,
    seed: 0,
    model: 'm',
    tokenizer: 't',
    template: null,
    dataset: 'd',
    vocabSize: 8,
    rows: 1,
    tokens: 1,
    shardRows: 1,
  }
  const examples = [{ inputIds: [1, 2], labels: [-100, 2], row: 0 }]
  const row = { ids: Int32Array.of(1), logProbs: Float32Array.of(-1), tail: Float32Array.of(-0.5) }
  const build = (teacher: Teacher) => buildTeacherCache(cache, settings, teacher, examples)
  let second: Promise<unknown> | undefined
  await build(async () => {
    second = build(async () => [row])
    await expect(second).rejects.toThrow(`process ${process.pid} writes into it`)
    return [row]
  })
  expect(second).toBeDefined()
  expect(existsSync(join(cache, 'run.lock'))).toBe(false)
})

it('the lock of a dead process is taken over', async () => {
  const outputDir = join(folder, 'dead')
  await withTrainer(outputDir, finish)
  // No process has this number: Linux ends at 4,194,304.
  writeFileSync(join(outputDir, 'run.lock'), `99999999 ${hostname()} 0.5`)
  await withTrainer(outputDir, finish)
  expect(existsSync(join(outputDir, 'run.lock'))).toBe(false)
})
