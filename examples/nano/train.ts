// The recipe of Halfling-nano: a tokenizer and a model from nothing, trained by this SDK on problems that it makes up.
//
//     npx tsx examples/nano/train.ts <work folder>     resumes where it stopped; README.md has the log of the run
//
// 1. nano-base: problems as plain text. 2. nano: the same kind of problems and some small talk as a chat.
// Both end as q8 safetensors in models/.

import { existsSync } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { evaluate, loadModel, quantizeModel, SFTTrainer, type TrainLog } from '../../sdk/index.ts'
import { backwardFamily, knownFamilies, makeMixed, makeProblem, type Problem } from './problems.ts'
import { specialTokens, tagTokens, writeRandomQwen2 } from './random-qwen2.ts'
import { makeTalk } from './talk.ts'
import { trainTokenizer } from './tokenizer.ts'

const shape = {
  vocabSize: 768,
  hiddenSize: 128,
  intermediateSize: 384,
  numHiddenLayers: 6,
  numAttentionHeads: 4,
  numKeyValueHeads: 2,
  maxPositionEmbeddings: 1024,
}
/** Seeds keep the sets apart: 1 is for the base, 2 for the chat, 3 for measuring, 4 and up for whoever fine-tunes. */
const [baseSeed, chatSeed, testSeed] = [1, 2, 3]
const [baseProblems, chatProblems, talks, conversations] = [128_000, 24_000, 3_000, 5_000]

const baseText = ({ question, solution, answer }: Problem): string =>
  `Question: ${question}\nAnswer: ${solution} The answer is ${answer}.`

const range = <T>(count: number, make: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => make(i))

async function train(
  stage: string,
  from: string,
  rows: object[],
  learningRate: number,
  batch: number,
): Promise<string> {
  const outputDir = join(work, stage)
  if (existsSync(join(outputDir, 'model.safetensors'))) return outputDir
  const model = await loadModel(from, { dtype: 'f32' })
  const trainer = new SFTTrainer({
    model,
    trainDataset: rows as Record<string, unknown>[],
    peft: null,
    args: {
      outputDir,
      numTrainEpochs: 1,
      perDeviceTrainBatchSize: batch,
      learningRate,
      lrSchedulerType: 'cosine',
      warmupSteps: 100,
      weightDecay: 0.1,
      adamBeta2: 0.98,
      gradientCheckpointing: false,
      maxLength: 512,
      saveSteps: 200,
      saveTotalLimit: 1,
      loggingSteps: 20,
    },
  })
  for await (const log of trainer.train({ resume: true })) if ('loss' in log) tell(stage, log)
  await model.close()
  return outputDir
}

function tell(stage: string, log: Extract<TrainLog, { loss: number }>): void {
  const { step, totalSteps, loss, gradNorm, tokens, tokensPerSecond } = log
  const minutes = (((totalSteps - step) / step) * tokens) / tokensPerSecond / 60
  console.log(
    `${stage} ${step}/${totalSteps} loss ${loss.toFixed(4)} norm ${gradNorm.toFixed(2)} ${tokens} tokens, ${tokensPerSecond.toFixed(0)} a second, ${minutes.toFixed(1)} minutes left`,
  )
}

async function editJson(file: string, edit: (json: Record<string, unknown>) => object): Promise<void> {
  await writeFile(file, `${JSON.stringify(edit(JSON.parse(await readFile(file, 'utf8'))), null, 2)}\n`)
}

/** Two to four turns, most of them problems. */
function makeConversation(i: number): { messages: { role: string; content: string }[] } {
  const turns = 2 + (i % 3)
  return {
    messages: range(turns, (turn) => {
      // Past the problems and talks of single turns.
      const at = 100_000 + 4 * i + turn
      const { prompt, completion } = (i + turn) % 3 === 0 ? makeTalk(chatSeed, at) : chatTurn(makeMixed(chatSeed, at))
      return [
        { role: 'user', content: prompt },
        { role: 'assistant', content: completion },
      ]
    }).flat(),
  }
}

/** As a row of question, solution and answer is trained. */
const chatTurn = ({ question, solution, answer }: Problem) => ({
  prompt: question,
  completion: `<think>\n${solution}\n</think>\n<answer>${answer}</answer>`,
})

const work = process.argv[2]
if (!work) throw new Error('usage: npx tsx examples/nano/train.ts <work folder>')
await mkdir(work, { recursive: true })

const fresh = join(work, 'random')
if (!existsSync(join(fresh, 'model.safetensors'))) {
  const texts = range(20_000, (i) => baseText(makeMixed(baseSeed, i)))
  // Words of the small talk and of the family that it does not know get tokens too.
  for (let i = 0; i < 500; i++) {
    const { prompt, completion } = makeTalk(baseSeed, i)
    texts.push(prompt, completion, makeProblem(backwardFamily, baseSeed, i).question)
  }
  const size = shape.vocabSize - specialTokens.length - tagTokens.length
  await writeRandomQwen2(fresh, shape, trainTokenizer(texts, size, specialTokens, tagTokens), 0)
}

const base = await train(
  'base',
  fresh,
  range(baseProblems, (i) => ({ text: baseText(makeMixed(baseSeed, i)) })),
  2e-3,
  32,
)
const chat = await train(
  'chat',
  base,
  [
    ...range(chatProblems, (i) => ({ ...makeMixed(chatSeed, i) })),
    ...range(talks, (i) => ({ ...makeTalk(chatSeed, i) })),
    ...range(conversations, makeConversation),
  ],
  1e-3,
  32,
)

for (const [name, trained] of [
  ['nano-base', base],
  ['nano', chat],
] as const) {
  const folder = join('models', name)
  await quantizeModel(trained, folder, { dtype: 'q8', force: true })
  // The base has never seen a chat.
  if (name === 'nano-base')
    await editJson(join(folder, 'tokenizer_config.json'), ({ chat_template: _, ...rest }) => rest)
  const model = await loadModel(folder)
  const scores: Record<string, number> = {}
  for (const family of [...knownFamilies, backwardFamily] as const) {
    const problems = range(200, (i) => makeProblem(family, testSeed, i))
    scores[family] = (await evaluate(model, problems, { grader: 'exact' })).accuracy
  }
  console.log(name, scores)
  await model.close()
}
