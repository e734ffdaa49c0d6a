import { existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { CollapseError, FormatError, NumericError, OptionError, RewardError } from '../../sdk/errors.ts'
import type { LanguageModel } from '../../sdk/generate/language-model.ts'
import { scoreExamples } from '../../sdk/generate/score.ts'
import type { RewardFunction } from '../../sdk/rewards/reward.ts'
import { importanceWeights, tokenWeights } from '../../sdk/train/advantages.ts'
import type { GRPOConfig } from '../../sdk/train/config.ts'
import { type GRPOOptions, GRPOTrainer } from '../../sdk/train/grpo.ts'
import { exampleOf, policyInputs } from '../../sdk/train/policy.ts'
import type { ScoredRollout } from '../../sdk/train/rewarded.ts'
import type { TrainLog } from '../../sdk/train/run.ts'
import { wasmTarget } from '../../targets/wasm/index.ts'
import { randomModel } from './model.ts'

let lm: LanguageModel
beforeAll(async () => {
  lm = await randomModel(await wasmTarget({ threads: 2 }))
})
afterAll(() => lm.close())

const prompts = Array.from({ length: 10 }, (_, i) => ({ prompt: 'abcdefghij'.slice(0, 3 + (i % 4)) + i }))
const folder = () => mkdtempSync(join(tmpdir(), 'halfling-'))

/** The share of bytes below 128: a random model draws about half. */
const low: RewardFunction = (completions) =>
  completions.map(({ completionIds }) => completionIds.filter((id) => id < 128).length / completionIds.length)

interface Ran {
  readonly logs: Extract<TrainLog, { loss: number }>[]
  readonly warnings: string[]
  readonly drawn: ScoredRollout[][]
}
async function run(
  args: Partial<GRPOConfig>,
  options: Partial<GRPOOptions> = {},
  model = lm,
  resume = false,
): Promise<Ran> {
  await model.setAdapters([])
  const [warnings, drawn]: [string[], ScoredRollout[][]] = [[], []]
  const trainer = new GRPOTrainer({
    model,
    trainDataset: prompts,
    rewardFuncs: low,
    peft: { r: 4 },
    onWarning: (message) => warnings.push(message),
    onRollouts: (rollouts) => drawn.push([...rollouts]),
    ...options,
    args: {
      outputDir: folder(),
      maxSteps: 2,
      learningRate: 1e-2,
      perDeviceTrainBatchSize: 16,
      numGenerations: 4,
      maxCompletionLength: 12,
      saveStrategy: 'no',
      ...args,
    },
  })
  const logs: Ran['logs'] = []
  for await (const log of trainer.train({ resume })) if ('loss' in log) logs.push(log)
  return { logs, warnings, drawn }
}

describe('the update', () => {
  it('makes what was better than its group likelier, and what was worse less likely', async () => {
    // Wrong signs, rewards of other completions or a mask that is off by one: none of these would.
    const seen: ScoredRollout[] = []
    const before = folder()
    await run({ outputDir: before, maxSteps: 1, learningRate: 3e-3 }, { onRollouts: (r) => seen.push(...r) })
    const examples = (await promptIds(seen)).map((ids, i) =>
      exampleOf({ promptIds: ids, completionIds: seen[i].completionIds }, i),
    )
    const after = await scoreExamples(lm.model, examples)
    await lm.setAdapters([])
    const start = await scoreExamples(lm.model, examples)
    const sum = (values: Float32Array) => values.reduce((a, b) => a + b, 0)
    let agreement = 0
    for (const [i, { advantage }] of seen.entries()) {
      const change = sum(after[i]) - sum(start[i])
      expect(Math.abs(change)).toBeGreaterThan(0)
      if (Math.abs(advantage) > 0.5) agreement += Math.sign(change) === Math.sign(advantage) ? 1 : -1
    }
    const sure = seen.filter(({ advantage }) => Math.abs(advantage) > 0.5).length
    expect(sure).toBeGreaterThan(8)
    expect(agreement).toBe(sure)
  })

  it('learns: 15 steps raise the reward from a half to more than 0.9; shuffled rewards do not', async () => {
    const lastReward = async (rewardFuncs: RewardFunction) => {
      const model = await randomModel(await wasmTarget({ threads: 1 }))
      const args = { maxSteps: 15, perDeviceTrainBatchSize: 32, numGenerations: 8, maxCompletionLength: 6 }
      const { logs } = await run(args, { peft: null, rewardFuncs }, model)
      await model.close()
      expect(logs[0].reward).toBeLessThan(0.7)
      return logs.at(-1)!.reward
    }
    const shuffled: RewardFunction = async (completions) => {
      const rewards = await low(completions)
      return rewards.map((_, i) => rewards[(i * 7 + 5) % rewards.length])
    }
    expect(await lastReward(low)).toBeGreaterThan(0.9)
    expect(await lastReward(shuffled)).toBeLessThan(0.75)
  })

  it('trains completion tokens alone, each with its own advantage', () => {
    const samples = [
      { promptIds: [1, 2, 3], completionIds: [4, 5], truncated: false, advantage: 2, logProbs: [-1, -2] },
      { promptIds: [6], completionIds: [7, 8, 9], truncated: false, advantage: -1, logProbs: [-3, -4, -5] },
    ]
    const weighed = samples.map((sample, i) => ({ sample, weight: i + 1 }))
    const { batch, inputs } = policyInputs(
      weighed,
      { old: false, ref: false, sequences: 2, epsLow: 0.2, epsHigh: 0.2, beta: 0 },
      1,
    )
    const real = [...batch.rows].filter((row) => row >= 0)
    expect(real).toEqual([2, 3, 5, 6, 7])
    expect([...batch.targets.subarray(0, 5)]).toEqual([4, 5, 7, 8, 9])
    expect([...inputs.advantages]).toEqual([2, 2, -1, -1, -1, ...Array(batch.rows.length - 5).fill(0)])
    expect([...inputs.weights]).toEqual([1, 1, 2, 2, 2, ...Array(batch.rows.length - 5).fill(0)])
    expect([...inputs.segments]).toEqual([0, 0, 1, 1, 1, ...Array(batch.rows.length - 5).fill(-1)])
  })

  it.each(['grpo', 'dapo', 'dr_grpo'] as const)('1 x 16 and 4 x 4 are the same, %s', async (lossType) => {
    const settings = { lossType, maxSteps: 3, beta: 0.05, learningRate: 1e-3 }
    const whole = await run(settings)
    const parts = await run({ ...settings, perDeviceTrainBatchSize: 4, gradientAccumulationSteps: 4 })
    for (const [i, log] of whole.logs.entries()) {
      expect(Math.abs(parts.logs[i].loss - log.loss)).toBeLessThan(1e-6)
      expect(Math.abs(parts.logs[i].gradNorm / log.gradNorm - 1)).toBeLessThan(1e-5)
      expect(parts.logs[i].reward).toBe(log.reward)
    }
  })

  it('weighs tokens as each loss says', () => {
    const parts = [[2, 4], [4]]
    expect(tokenWeights(parts, 'grpo', 8)).toEqual([[1 / 2 / 2 / 2, 1 / 4 / 2 / 2], [1 / 4 / 2]])
    expect(tokenWeights(parts, 'bnpo', 8)).toEqual([[1 / 6 / 2, 1 / 6 / 2], [1 / 4 / 2]])
    expect(tokenWeights(parts, 'dapo', 8)).toEqual([[1 / 10, 1 / 10], [1 / 10]])
    expect(tokenWeights(parts, 'dr_grpo', 8)).toEqual([[1 / 8 / 2 / 2, 1 / 8 / 2 / 2], [1 / 8 / 2]])
  })

  it('starts at the reference, and the divergence grows from there', async () => {
    const { logs } = await run({ beta: 0.1, maxSteps: 4 })
    expect(logs[0].kl).toBeLessThan(1e-9)
    expect(logs[3].kl).toBeGreaterThan(1e-4)
  })

  it('takes several steps from one batch: the first at the policy that drew, later ones clipped', async () => {
    const { logs, drawn } = await run({ numIterations: 3, maxSteps: 6, learningRate: 3e-2, epsilon: 0.05 })
    expect(drawn).toHaveLength(2)
    expect(logs[0].clipRatioLow! + logs[0].clipRatioHigh!).toBe(0)
    expect(logs[2].clipRatioLow! + logs[2].clipRatioHigh!).toBeGreaterThan(0.05)
    expect(logs[0].samplingDifferenceMax).toBeLessThan(1e-4)
  })

  it('leaves out what was cut off when asked to', async () => {
    const all = await run({ maskTruncatedCompletions: true, maxSteps: 1 })
    expect(all.logs[0].truncated).toBeGreaterThan(0.8)
    const none = await run({ maskTruncatedCompletions: true, maxSteps: 1, maxCompletionLength: 2 })
    if (none.logs[0].truncated === 1) expect(none.logs[0].gradNorm).toBe(0)
  })
})

describe('groups', () => {
  it('without spread are drawn anew, so often and no more', async () => {
    const sparse: RewardFunction = (completions) =>
      completions.map(({ completionIds }) => (completionIds[0] < 40 ? 1 : 0))
    const { logs, drawn } = await run({ dynamicSampling: true, maxSteps: 2 }, { rewardFuncs: sparse })
    expect(logs[0].resampledGroups).toBeGreaterThan(0)
    for (const rollouts of drawn)
      for (const { group } of rollouts)
        expect(new Set(rollouts.filter((r) => r.group === group).map(({ reward }) => reward)).size).toBe(2)
    const outputDir = folder()
    const error = await run(
      { outputDir, dynamicSampling: true, maxResamples: 2, maxSteps: 1 },
      { rewardFuncs: (c) => c.map(() => 1) },
    ).catch((e) => e)
    expect(error).toBeInstanceOf(NumericError)
    expect(error.message).toMatch(/no step has changed it, B is still zero/)
    expect(readdirSync(outputDir)).toEqual(['metrics.jsonl'])
    const [log] = readFileSync(join(outputDir, 'metrics.jsonl'), 'utf8').split('\n')
    expect(JSON.parse(log)).toMatchObject({ reward: 1, resampledGroups: 8, gradNorm: 0, loss: 0, fracRewardZeroStd: 1 })
    // What was not computed is not 0.
    for (const name of ['entropy', 'clipRatioLow', 'clipRatioHigh', 'samplingDifference', 'samplingDifferenceMax'])
      expect(JSON.parse(log)).not.toHaveProperty(name)
  })

  it('a mean over steps is over those that have the metric', async () => {
    let calls = 0
    const once: RewardFunction = (completions) => (++calls > 1 ? completions.map(() => 0) : low(completions))
    const both = await run({ maxSteps: 2, loggingSteps: 2 }, { rewardFuncs: once })
    calls = 0
    const first = await run({ maxSteps: 1 }, { rewardFuncs: once })
    expect(both.logs[0].entropy).toBe(first.logs[0].entropy)
    expect(both.logs[0].reward).toBe(first.logs[0].reward! / 2)
  })

  it('rows that no reward applies to: said at the first batch, an error when there are no others', async () => {
    const none: RewardFunction = (completions) => completions.map(() => null)
    const error = await run({}, { rewardFuncs: none, trainDataset: prompts.slice(0, 4) }).catch((e) => e)
    expect(error).toBeInstanceOf(RewardError)
    expect(error.message).toMatch(
      /^no completion has any reward \(none: null for all of them\).* Their columns are prompt/,
    )
    let calls = 0
    const late: RewardFunction = (completions) => (++calls > 1 ? low(completions) : completions.map(() => null))
    const { logs, warnings } = await run({}, { rewardFuncs: late })
    expect(warnings).toEqual([expect.stringMatching(/^step 1: no completion has any reward/)])
    expect(logs[0]).not.toHaveProperty('reward')
    expect(logs[1].reward).toBeGreaterThan(0)
    const held = await run(
      { evalStrategy: 'steps', evalSteps: 1 },
      { rewardFuncs: (c) => (c.length < 16 ? none(c) : low(c)), evalDataset: prompts.slice(0, 2) },
    ).catch((e) => e)
    expect(held.message).toMatch(/^evalDataset: no completion has any reward/)
  })

  it('sum weighted rewards; null does not count; each is logged', async () => {
    const { logs, drawn } = await run(
      { rewardWeights: [1, 10], maxSteps: 1 },
      {
        rewardFuncs: [
          low,
          function odd(completions) {
            return completions.map((_, i) => (i % 2 ? null : 0.5))
          },
        ],
      },
    )
    const rewards = await low(drawn[0])
    for (const [i, { reward }] of drawn[0].entries()) expect(reward).toBeCloseTo(rewards[i]! + (i % 2 ? 0 : 5), 10)
    expect((logs[0] as Record<string, unknown>)['rewards/odd']).toBe(0.5)
  })

  it('scale by group, batch or not at all', async () => {
    for (const scaleRewards of ['group', 'batch', 'none'] as const) {
      const { drawn } = await run({ scaleRewards, maxSteps: 1 })
      const first = drawn[0].filter(({ group }) => group === 0)
      expect(first.reduce((sum, { advantage }) => sum + advantage, 0)).toBeCloseTo(0, 6)
    }
  })
})

describe('another model draws', () => {
  it('a quantized copy: what differs is weighed and logged', async () => {
    const q8 = await randomModel(await wasmTarget({ threads: 1 }), 'q8')
    const { logs } = await run({ maxSteps: 3, importanceSamplingCorrection: 'token_truncate' }, { rolloutModel: q8 })
    expect(logs[0].samplingDifference).toBeGreaterThan(1e-5)
    expect(logs[0].samplingDifferenceMax).toBeLessThan(0.5)
    expect(Math.abs(logs[0].importanceWeight! - 1)).toBeLessThan(0.05)
    expect(q8.model.activeAdapters).toEqual([])
    await q8.close()
  })

  it('the same with int8 activations: weighed too, while exact ones give the trainer’s log-probabilities', async () => {
    const q8 = await randomModel(await wasmTarget({ threads: 1 }), 'q8')
    const exact = (await run({ maxSteps: 1 }, {}, q8)).logs[0]
    expect(exact.samplingDifferenceMax).toBeLessThan(1e-6)
    expect(exact.importanceWeight).toBeUndefined()
    const args = { maxSteps: 1, rolloutActivations: 'int8', importanceSamplingCorrection: 'token_truncate' } as const
    const rounded = (await run(args, {}, q8)).logs[0]
    expect(rounded.samplingDifference).toBeGreaterThan(1e-5)
    expect(Math.abs(rounded.importanceWeight! - 1)).toBeLessThan(0.05)
    await q8.close()
  })

  it('weights are capped or cut, by token or completion', () => {
    const [old, sampler] = [
      [-1, -1, -4],
      [-2, -1, -1],
    ]
    const close = (mode: Parameters<typeof importanceWeights>[2], want: number[]) => {
      for (const [i, w] of importanceWeights(old, sampler, mode, 2).entries()) expect(w).toBeCloseTo(want[i], 12)
    }
    close('token_truncate', [2, 1, Math.exp(-3)])
    close('token_mask', [0, 1, Math.exp(-3)])
    close('sequence_truncate', Array(3).fill(Math.exp(-2)))
    expect(importanceWeights([-1], [-3], 'sequence_mask', 3)).toEqual([0])
  })
})

describe('what goes wrong', () => {
  it('a reward that throws: the completion is shown and the state saved', async () => {
    const outputDir = folder()
    let calls = 0
    const broken: RewardFunction = (completions) => {
      if (++calls > 2) throw new Error('no such column')
      return low(completions)
    }
    const error = await run({ outputDir, maxSteps: 5 }, { rewardFuncs: broken }).catch((e) => e)
    expect(error).toBeInstanceOf(RewardError)
    expect(error.message).toMatch(/broken threw: no such column; the first of its completions: prompt "abc0?/)
    expect(readdirSync(outputDir)).toContain('checkpoint-2')
    expect(lm.model.activeAdapters).toEqual([])
  })

  it.each<[string, RewardFunction, RegExp]>([
    ['too few', (c) => c.slice(1).map(() => 1), /gave 15 rewards for 16 completions/],
    ['none', () => undefined as never, /gave undefined for 16 completions/],
    ['no numbers', (c) => c.map(() => Number.NaN), /gave NaN for: prompt/],
  ])('a reward that gives %s', async (_, rewardFuncs, message) => {
    await expect(run({}, { rewardFuncs })).rejects.toThrow(message)
  })

  it('no spread: told after three steps, with remedies; a collapse stops when asked to, and keeps the checkpoint from before', async () => {
    let calls = 0
    const fades: RewardFunction = (completions) => (++calls > 3 ? completions.map(() => 0) : low(completions))
    const { warnings } = await run({ maxSteps: 7 }, { rewardFuncs: fades })
    expect(warnings).toHaveLength(1)
    expect(warnings[0]).toMatch(/^step 6: no group has any spread of rewards .* for 3 steps\. Try .*supervised warm-up/)
    calls = 0
    const outputDir = folder()
    const stopping = { outputDir, maxSteps: 20, stopOnCollapse: true, collapsePatience: 4 }
    const saving = { saveStrategy: 'steps', saveSteps: 1, saveTotalLimit: 1 } as const
    const error = await run({ ...stopping, ...saving }, { rewardFuncs: fades }).catch((e) => e)
    expect(error).toBeInstanceOf(CollapseError)
    expect(error.message).toMatch(
      /^step 7: no group .* for 4 steps: stopped\. The last checkpoint from before is .*checkpoint-3$/,
    )
    expect(existsSync(join(outputDir, 'checkpoint-3'))).toBe(true)
  })

  it('a checkpoint in the middle of a batch holds it in one line; one that is damaged is named', async () => {
    const saving = { outputDir: folder(), numIterations: 2, saveStrategy: 'steps', saveSteps: 1 } as const
    await run({ ...saving, maxSteps: 1 })
    const file = join(saving.outputDir, 'checkpoint-1/trainer_state.json')
    const text = readFileSync(file, 'utf8')
    expect(text.trim().split('\n')).toHaveLength(1)
    const state = JSON.parse(text)
    expect(state.own.generation.samples).toHaveLength(16)
    state.own.generation.samples[3].logProbs[1] = null
    writeFileSync(file, JSON.stringify(state))
    const error = await run({ ...saving, maxSteps: 2 }, {}, lm, true).catch((e) => e)
    expect(error).toBeInstanceOf(FormatError)
    expect(error.message).toMatch(/checkpoint-1: own\.generation\.samples\.3\.logProbs\.1: .*delete the checkpoint/)
    writeFileSync(file, text)
    expect((await run({ ...saving, maxSteps: 2 }, {}, lm, true)).logs.map(({ step }) => step)).toEqual([2])
  })

  it('only completions that are cut off, or no entropy left, are told as well', async () => {
    const { warnings } = await run({ maxSteps: 3, maxCompletionLength: 1 })
    expect(warnings.join()).toMatch(/of the completions are cut off at 1 tokens/)
  })

  it.each<[Partial<GRPOConfig>, Partial<GRPOOptions>, RegExp]>([
    [{ numGenerations: 1 }, {}, /numGenerations: 1 is not an integer from 2/],
    [{ numGenerations: 5 }, {}, /no groups of 5/],
    [{ gradientAccumulationSteps: 2, stepsPerGeneration: 3 }, {}, /no multiple/],
    [{ rewardWeights: [1, 2] }, {}, /2 weights for 1 reward/],
    [{ lossType: 'ppo' as 'grpo' }, {}, /"ppo" is not one of grpo/],
    [{ beta: 0.1 }, { peft: null }, /refModel/],
    [{}, { rewardFuncs: [] }, /rewardFuncs/],
    [{ temperature: 0 }, {}, /temperature: 0 is not a number above 0/],
  ])('%o is refused', async (args, options, message) => {
    const error = await run(args, options).catch((e) => e)
    expect(error).toBeInstanceOf(OptionError)
    expect(error.message).toMatch(message)
  })
})

it('full fine-tuning, with a reference of its own', async () => {
  const [student, reference] = [
    await randomModel(await wasmTarget({ threads: 1 })),
    await randomModel(await wasmTarget({ threads: 1 })),
  ]
  const { logs } = await run(
    { beta: 0.01, maxSteps: 12, perDeviceTrainBatchSize: 32 },
    { peft: null, refModel: reference },
    student,
  )
  expect(logs[0].kl).toBeLessThan(1e-9)
  expect(logs.at(-1)!.kl).toBeGreaterThan(1e-4)
  expect(logs.at(-1)!.reward).toBeGreaterThan(logs[0].reward! + 0.1)
  await student.close()
  await reference.close()
})

it('answers held-out prompts greedily, and goes back to the best', async () => {
  const outputDir = folder()
  const logs: TrainLog[] = []
  await lm.setAdapters([])
  const trainer = new GRPOTrainer({
    model: lm,
    trainDataset: prompts,
    evalDataset: prompts.slice(0, 3),
    rewardFuncs: low,
    peft: { r: 4 },
    args: {
      ...{ outputDir, maxSteps: 4, learningRate: 1e-2, perDeviceTrainBatchSize: 16, numGenerations: 4 },
      ...{ maxCompletionLength: 8, evalStrategy: 'steps', evalSteps: 2, saveSteps: 2, loadBestModelAtEnd: true },
    },
  })
  for await (const log of trainer.train()) logs.push(log)
  const held = logs.flatMap((log) => ('evalReward' in log ? [log.evalReward] : []))
  expect(held).toHaveLength(2)
  for (const value of held) expect(value).toBeGreaterThanOrEqual(0)
})

/** Ids of the prompts of completions. */
const promptIds = async (rollouts: readonly ScoredRollout[]) =>
  rollouts.map(({ prompt }) => lm.tokenizer.encode(prompt as string, { addSpecialTokens: true }))
