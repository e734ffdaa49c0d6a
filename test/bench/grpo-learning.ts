// GRPO from a warm start, as golden/pebble-7m-instruct/learning.json has it from TRL (`pebble`); nano on the family of problems
// that it hardly knows (`nano`). Accuracy on held-out problems before and after, time, and the curves.
// `npx tsx test/bench/grpo-learning.ts [pebble|nano] [seeds] [steps] [python with torch, transformers, peft, trl]`: with a Python, TRL does
// the same before each of our runs.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { makeProblem } from '../../examples/nano/problems.ts'
import { extractAnswer, sameAnswer } from '../../sdk/answers/extract.ts'
import { plot } from '../../sdk/cli/plot.ts'
import { evaluate, GRPOTrainer, loadModel, type RewardFunction, type TrainLog } from '../../sdk/index.ts'

const shared = process.env.HALFLING_SHARED ?? '../shared'
const [pair = 'pebble', seeds = '3', steps = pair === 'nano' ? '100' : '80', python] = process.argv.slice(2)
const work = mkdtempSync(join(tmpdir(), 'halfling-grpo-'))

interface Problem {
  readonly [column: string]: unknown
  readonly question: string
  readonly answer: string
}
const readRows = (path: string): Problem[] =>
  readFileSync(join(shared, path), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
const isNano = pair === 'nano'
const train = isNano
  ? Array.from({ length: 2000 }, (_, i) => ({ ...makeProblem('backward', 51, i) }))
  : readRows('data/pebble/unseen_train.jsonl')
const test = isNano
  ? Array.from({ length: 600 }, (_, i) => ({ ...makeProblem('backward', 52, i) }))
  : readRows('data/pebble/unseen_test.jsonl')
const folder = isNano ? 'models/nano' : join(shared, 'models/pebble-7m-instruct')
const load = () => loadModel(folder, { dtype: 'f32', ...(!isNano && { adapter: join(folder, 'warm-adapter') }) })

/** As the run of TRL has it. */
const exactMatch: RewardFunction = (completions) =>
  completions.map(({ completion, row }) => {
    const found = extractAnswer(completion)
    return found !== null && sameAnswer(found, String(row.answer)) ? 1 : 0
  })

/** Seconds that TRL takes. */
function peer(python: string): number {
  const args = ['test/bench/peers/grpo.py', folder, join(shared, 'data/pebble/unseen_train.jsonl'), steps]
  const out = execFileSync(python, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
  return JSON.parse(out.trim().split('\n').at(-1)!).seconds
}

const model = await load()
const start = await evaluate(model, test, { grader: 'exact', maxNewTokens: 96, slots: 64 })
await model.close()
console.log(`before: ${(100 * start.accuracy).toFixed(1)}% ± ${(100 * start.standardError).toFixed(1)}`)

for (let seed = 0; seed < Number(seeds); seed++) {
  const theirs = python ? peer(python) : null
  const lm = await load()
  const logs: TrainLog[] = []
  const trainer = new GRPOTrainer({
    model: lm,
    trainDataset: train,
    rewardFuncs: exactMatch,
    ...(isNano && { peft: { r: 16, loraAlpha: 32 } }),
    args: {
      outputDir: join(work, `${pair}-${seed}`),
      learningRate: isNano ? 5e-4 : 2e-4,
      // nano is sure of itself: at temperature 1 hardly a group has any spread.
      ...(isNano && { temperature: 1.3, dynamicSampling: true }),
      perDeviceTrainBatchSize: isNano ? 128 : 64,
      numGenerations: isNano ? 16 : 8,
      maxCompletionLength: 96,
      beta: isNano ? 0.001 : 0,
      maxSteps: Number(steps),
      warmupSteps: 5,
      lrSchedulerType: 'constant_with_warmup',
      saveStrategy: 'no',
      gradientCheckpointing: false,
      seed,
    },
    onWarning: (message) => console.log(`warning: ${message}`),
  })
  const begun = performance.now()
  for await (const log of trainer.train()) {
    logs.push(log)
    if ('loss' in log && log.step % 5 === 0)
      console.log(
        `step ${log.step}: reward ${log.reward!.toFixed(3)}, length ${log.meanLength!.toFixed(1)}, entropy ${log.entropy!.toFixed(3)}, no spread ${log.fracRewardZeroStd!.toFixed(2)}, sampler ${log.samplingDifferenceMax!.toExponential(1)}, ${((performance.now() - begun) / 1000).toFixed(0)} s`,
      )
  }
  const seconds = (performance.now() - begun) / 1000
  if (theirs !== null)
    console.log(`${seconds.toFixed(1)} s, TRL ${theirs.toFixed(1)} s: ${(seconds / theirs).toFixed(2)}x`)
  const after = await evaluate(lm, test, { grader: 'exact', maxNewTokens: 96, slots: 64 })
  const errors = (after.accuracy - start.accuracy) / Math.hypot(after.standardError, start.standardError)
  console.log(
    `seed ${seed}: ${(100 * start.accuracy).toFixed(1)}% -> ${(100 * after.accuracy).toFixed(1)}% ± ${(100 * after.standardError).toFixed(1)} (${errors.toFixed(1)} errors), ${seconds.toFixed(0)} s`,
  )
  const curve = (name: 'reward' | 'meanLength' | 'kl' | 'entropy') =>
    logs.flatMap((log) => ('loss' in log && log[name] !== undefined ? [log[name]] : []))
  for (const name of ['reward', 'meanLength', 'kl', 'entropy'] as const)
    if (curve(name).length > 0) console.log(`${name}\n${plot(curve(name), 50, 5)}`)
  writeFileSync(
    join(work, `${pair}-${seed}.json`),
    JSON.stringify({ seed, start: start.accuracy, after: after.accuracy, seconds, logs }),
  )
  await lm.close()
}
console.log(`logs: ${work}`)
