import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { type LanguageModel, loadModel, SFTTrainer } from '../../sdk/index.ts'

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
          await expect(finish(second)).rejects.toThrow(`process ${process.pid} trains into it`)
        })
  })
  expect(existsSync(join(outputDir, 'run.lock'))).toBe(false)
  // A run that is left in the middle gives it back too.
  await withTrainer(outputDir, async (trainer) => {
    for await (const _ of trainer.train()) break
  })
  expect(existsSync(join(outputDir, 'run.lock'))).toBe(false)
})

it('the lock of a dead process is taken over', async () => {
  const outputDir = join(folder, 'dead')
  await withTrainer(outputDir, finish)
  // No process has this number: Linux ends at 4,194,304.
  writeFileSync(join(outputDir, 'run.lock'), `99999999 ${hostname()} 0.5`)
  await withTrainer(outputDir, finish)
  expect(existsSync(join(outputDir, 'run.lock'))).toBe(false)
})
