// npm run demo: chats with the built-in model, finds what it is bad at, fine-tunes a LoRA adapter on it in front of you,
// and shows that it now answers questions of that kind that it has never seen. Nothing is downloaded.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { evaluate, LanguageModel, loadModel, SFTTrainer } from '../sdk/index.ts'
import { makeProblem } from './nano/problems.ts'

const steps = 120
const heldOut = 150
/** Other seeds than nano's own training and tests. */
const [trainSeed, testSeed] = [4, 5]

async function ask(model: LanguageModel, question: string): Promise<void> {
  const { text } = await LanguageModel.complete(model.chat([{ role: 'user', content: question }], { temperature: 0 }))
  console.log(`  you:  ${question}\n  nano: ${text.replaceAll('\n', ' ')}\n`)
}

async function accuracy(model: LanguageModel): Promise<string> {
  const problems = Array.from({ length: heldOut }, (_, i) => makeProblem('backward', testSeed, i))
  const { correct, n } = await evaluate(model, problems, { grader: 'exact' })
  return `${((100 * correct) / n).toFixed(0)}% of ${n} held-out problems right`
}

/** The curve as rows of characters: means of equal parts, the highest at the top. */
function plot(values: readonly number[], width = 64, height = 8): string {
  const parts = Math.min(width, values.length)
  const means = Array.from({ length: parts }, (_, i) => {
    const part = values.slice(Math.floor((i * values.length) / parts), Math.ceil(((i + 1) * values.length) / parts))
    return part.reduce((a, b) => a + b, 0) / part.length
  })
  const high = Math.max(...means)
  const lines = Array.from({ length: height }, (_, row) => {
    const cells = means.map((mean) => Math.round((8 * height * mean) / high) - 8 * (height - 1 - row))
    const label = row === 0 ? high.toFixed(2) : row === height - 1 ? '0' : ''
    return `  ${label.padStart(5)} │${cells.map((eighths) => ' ▁▂▃▄▅▆▇█'[Math.max(0, Math.min(8, eighths))]).join('')}`
  })
  return [...lines, `        └${'─'.repeat(means.length)}`].join('\n')
}

const folder = await mkdtemp(join(tmpdir(), 'halfling-demo-'))
const model = await loadModel()
try {
  const { name, info } = model.model.target
  console.log(`Halfling-nano on ${name} (${info.description}, ${info.threads} threads). It can do this:\n`)
  await ask(model, 'Mia has 14 apples. She buys 9 more. Then she gives 5 to Tom. How many apples does Mia have now?')

  const backward = makeProblem('backward', testSeed, 0)
  console.log(`But it has hardly ever been asked what there was at first (the answer is ${backward.answer}):\n`)
  await ask(model, backward.question)
  console.log(`  before: ${await accuracy(model)}\n`)

  console.log(`A LoRA adapter learns it: ${steps} steps of 16 problems.`)
  const trainer = new SFTTrainer({
    model,
    trainDataset: Array.from({ length: steps * 16 }, (_, i) => ({ ...makeProblem('backward', trainSeed, i) })),
    peft: { r: 16, loraAlpha: 32, targetModules: 'all-linear' },
    args: {
      outputDir: join(folder, 'adapter'),
      numTrainEpochs: 1,
      perDeviceTrainBatchSize: 16,
      learningRate: 3e-3,
      warmupSteps: 10,
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
  console.log(`\n  loss\n${plot(losses)}\n`)

  await ask(model, backward.question)
  console.log(`  after: ${await accuracy(model)}`)
} finally {
  await model.close()
  await rm(folder, { recursive: true, force: true })
}
