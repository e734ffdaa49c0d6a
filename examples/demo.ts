// npm run demo: makes the smallest model there is, fine-tunes all of it in front of you on a task that it has no idea of,
// and shows that it now answers questions it has never seen. Nothing is downloaded.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { generateBatch, LanguageModel, loadModel, SFTTrainer } from '../sdk/index.ts'
import { randomBits } from '../sdk/random.ts'
import { writeTinyModel } from './tiny-model.ts'

type Row = Readonly<Record<'question' | 'answer', string>>

const steps = 300
const heldOut = 64

/** Four random letters, to be written backwards. */
function makeRow(seed: number): Row {
  const word = [0, 1, 2, 3].map((i) => 'abcdefghijklmnopqrstuvwxyz'[randomBits(7, seed, i) % 26])
  return { question: word.join(''), answer: `<answer>${word.toReversed().join('')}</answer>` }
}

/** Share of rows answered to the letter. */
async function accuracy(lm: LanguageModel, rows: readonly Row[]): Promise<number> {
  const prompts = rows.map(({ question }) => lm.chatPrompt([{ role: 'user', content: question }]))
  let right = 0
  for await (const { index, text } of generateBatch(lm, prompts, { maxNewTokens: 12, slots: 32 }))
    if (text === rows[index].answer) right++
  return right / rows.length
}

async function ask(lm: LanguageModel, question: string): Promise<void> {
  const { text } = await LanguageModel.complete(lm.chat([{ role: 'user', content: question }], { maxNewTokens: 12 }))
  console.log(`  you:   ${question}\n  model: ${JSON.stringify(text)}`)
}

/** Means of equal parts, drawn as ▇▅▃▂▁. */
function sparkline(values: readonly number[], width = 60): string {
  const means = Array.from({ length: width }, (_, i) => {
    const part = values.slice(Math.floor((i * values.length) / width), Math.ceil(((i + 1) * values.length) / width))
    return part.reduce((a, b) => a + b, 0) / part.length
  })
  const high = Math.max(...means)
  return means.map((mean) => '▁▂▃▄▅▆▇█'[Math.min(7, Math.floor((8 * mean) / high))]).join('')
}

const folder = await mkdtemp(join(tmpdir(), 'halfling-demo-'))
try {
  await writeTinyModel(join(folder, 'model'))
  const lm = await loadModel(join(folder, 'model'), { dtype: 'f32' })
  try {
    const { name, info } = lm.model.target
    console.log(`A random Qwen2 of two layers on ${name} (${info.description}, ${info.threads} threads).`)
    const test = Array.from({ length: heldOut }, (_, i) => makeRow(i))
    const seen = new Set(test.map((row) => row.question))
    const train = Array.from({ length: 4000 }, (_, i) => makeRow(1000 + i)).filter((row) => !seen.has(row.question))

    console.log('\nBefore, it knows nothing:')
    await ask(lm, test[0].question)
    console.log(`  ${(100 * (await accuracy(lm, test))).toFixed(0)}% of ${heldOut} held-out words right`)

    console.log(`\nIt learns to write four letters backwards: ${steps} steps of full fine-tuning.`)
    const trainer = new SFTTrainer({
      model: lm,
      trainDataset: train,
      peft: null,
      args: {
        outputDir: join(folder, 'trained'),
        maxSteps: steps,
        perDeviceTrainBatchSize: 32,
        learningRate: 3e-3,
        warmupSteps: 20,
        lrSchedulerType: 'cosine',
        gradientCheckpointing: false,
        saveStrategy: 'no',
      },
    })
    const losses: number[] = []
    for await (const log of trainer.train()) {
      if (!('loss' in log)) continue
      losses.push(log.loss)
      if (log.step % 30 === 0)
        console.log(`  step ${log.step}  loss ${log.loss.toFixed(4)}  ${log.tokensPerSecond.toFixed(0)} tokens/s`)
    }
    console.log(`\n  loss ${losses[0].toFixed(2)} ${sparkline(losses)} ${losses.at(-1)!.toFixed(4)}`)

    console.log('\nAfter, on words that were not among those it learned from:')
    for (const { question } of test.slice(0, 3)) await ask(lm, question)
    console.log(`  ${(100 * (await accuracy(lm, test))).toFixed(0)}% of ${heldOut} held-out words right`)
  } finally {
    await lm.close()
  }
} finally {
  await rm(folder, { recursive: true, force: true })
}
