import { epochOrder } from '../data/order.ts'
import type { Prompt } from '../data/prompts.ts'
import { RewardError } from '../errors.ts'
import type { LanguageModel } from '../generate/language-model.ts'
import { type Rollout, rollout } from '../generate/rollout.ts'
import { scoreExamples } from '../generate/score.ts'
import { Programs } from '../model/programs.ts'
import { randomBits } from '../random.ts'
import type { RewardFunction, RewardInput } from '../rewards/reward.ts'
import { z } from '../zod.ts'
import { groupAdvantages, importanceWeights, mean } from './advantages.ts'
import type { GRPOSettings } from './config.ts'
import type { GRPOOptions } from './grpo.ts'
import type { PolicyTerms } from './objectives.ts'
import { exampleOf, type Sample, sample } from './policy.ts'
import { type Drawn, hasSpread, isRewarded, nameOf, rewardsOf, rolloutMetrics } from './rewarded.ts'
import type { Run } from './run.ts'

/** Completions that are trained on for one or several steps, as a checkpoint holds them. */
export const generation = z.object({
  samples: z.array(sample).readonly(),
  metrics: z.record(z.string(), z.number()),
})
export type Generation = Readonly<z.infer<typeof generation>>

/** Prompts without any reward after which the rows are taken to have none. */
const mostUnrewarded = 16

/** Keeps what is drawn apart from other uses of a seed. */
const rolloutStream = 0x6017

/** Whether completions come from another distribution than the trainer computes: from another model, or with rounded activations. */
export const isDrawnElsewhere = (
  { rolloutModel }: Pick<GRPOOptions, 'rolloutModel'>,
  { rolloutActivations }: Pick<GRPOSettings, 'rolloutActivations'>,
): boolean => rolloutModel !== undefined || rolloutActivations === 'int8'

/** Draws what a GRPOTrainer learns from, batch by batch: completions in groups, rewarded and compared. */
export class Generations {
  private readonly options: GRPOOptions
  private readonly args: GRPOSettings
  private readonly prompts: readonly Prompt[]
  private readonly terms: PolicyTerms
  private readonly run: Pick<Run, 'trained' | 'programs' | 'at'>
  private readonly rewardFuncs: readonly RewardFunction[]
  /** Of a reference that is a model of its own. */
  private readonly refPrograms: Programs | null
  /** Whether any completion so far had a reward, and the prompts that were answered. */
  private isRewarded = false
  private asked = 0
  /** The batch that was told last: after a lost device some are drawn again. */
  private told = -1

  constructor(
    options: GRPOOptions,
    args: GRPOSettings,
    prompts: readonly Prompt[],
    terms: PolicyTerms,
    run: Pick<Run, 'trained' | 'programs' | 'at'>,
  ) {
    this.options = options
    this.args = args
    this.prompts = prompts
    this.terms = terms
    this.run = run
    this.rewardFuncs = [options.rewardFuncs].flat()
    this.refPrograms = run.trained === null && options.refModel ? new Programs(options.refModel.model) : null
  }

  /**
   * Batch `index`, of the prompts from `cursor` on: completions with advantages, and with what the updates need to know of other
   * policies; with a warning where none has a reward. Throws RewardError.
   */
  async draw(index: number, cursor: number): Promise<{ generation: Generation; cursor: number; warning?: string }> {
    const { args } = this
    const { numGenerations: size, dynamicSampling, maxResamples } = args
    const { model, rolloutModel, onRollouts } = this.options
    if (rolloutModel) await copyAdapter(model, rolloutModel, this.run.trained!)
    const groups = (args.perDeviceTrainBatchSize * args.stepsPerGeneration) / size
    const kept: Drawn[][] = []
    const all: Drawn[][] = []
    let next = cursor
    for (let round = 0; kept.length < groups && round <= (dynamicSampling ? maxResamples : 0); round++) {
      const asked = nextPrompts(this.prompts, next, groups - kept.length, args.seed)
      const drawn = await this.answers(asked, randomBits(args.seed, rolloutStream, index, round))
      next += asked.length
      for (let g = 0; g < asked.length; g++) {
        const group = drawn.slice(g * size, (g + 1) * size).map((d) => ({ ...d, group: all.length }))
        all.push(group)
        if (!dynamicSampling || hasSpread(group)) kept.push(group)
      }
    }
    const warning = this.checkRewarded(all)
    // Nothing but groups that teach nothing: they are at least counted.
    const used = kept.length > 0 ? kept : all.slice(0, groups)
    const completions = used.flat()
    const rewards = completions.map(({ reward }) => reward)
    const advantages = groupAdvantages(rewards, size, args.scaleRewards)
    if (index > this.told) {
      this.told = index
      onRollouts?.(completions.map(({ promptIds, logProbs, rewards, ...c }, i) => ({ ...c, advantage: advantages[i] })))
    }
    const samples = await this.withOtherPolicies(
      completions.map(({ promptIds, completionIds, truncated, logProbs }, i) => {
        return { promptIds, completionIds, truncated, advantage: advantages[i], logProbs }
      }),
    )
    const metrics = rolloutMetrics(all, all.length - used.length, this.rewardFuncs)
    return { generation: { samples, metrics }, cursor: next, warning }
  }

  /** Of one greedy completion of each prompt. */
  async meanReward(prompts: readonly Prompt[]): Promise<number> {
    const { maxCompletionLength, slots } = this.args
    const { signal, onProgress } = this.run.at
    const ids = prompts.map((prompt) => prompt.ids)
    const rollouts = await rollout(this.options.model, ids, {
      ...{ numGenerations: 1, temperature: 0, maxCompletionLength, seed: 0, slots, signal },
      onProgress: (rows) => onProgress?.({ phase: 'evaluating', rows, totalRows: prompts.length }),
    })
    const rewarded = (await this.rewarded(prompts, rollouts)).filter(isRewarded)
    if (rewarded.length === 0) throw new RewardError(`evalDataset: ${this.noReward(prompts)}`)
    return mean(rewarded.map(({ reward }) => reward))
  }

  /** What is to be told of a first batch without any reward. Throws RewardError where the rows have none. */
  private checkRewarded(groups: readonly (readonly Drawn[])[]): string | undefined {
    const isFirst = this.asked === 0
    this.asked += groups.length
    this.isRewarded ||= groups.flat().some(isRewarded)
    if (this.isRewarded) return undefined
    const what = this.noReward(this.prompts)
    if (this.asked >= Math.min(this.prompts.length, mostUnrewarded)) throw new RewardError(what)
    return isFirst ? what : undefined
  }

  private noReward(prompts: readonly Prompt[]): string {
    const names = this.rewardFuncs.map(nameOf).join(', ')
    return `no completion has any reward (${names}: null for all of them), so that nothing can be learned: do the rows lack what it compares with? Their columns are ${Object.keys(prompts[0].values).join(', ')}; accuracyReward wants answer or solution`
  }

  async close(): Promise<void> {
    const { rolloutModel } = this.options
    this.refPrograms?.clear()
    if (rolloutModel && this.run.trained !== null) await dropAdapter(rolloutModel, this.run.trained)
  }

  /** Completions of these prompts with their rewards. */
  private async answers(asked: readonly Prompt[], seed: number): Promise<Drawn[]> {
    const { model, rolloutModel } = this.options
    const { signal, onProgress } = this.run.at
    const total = asked.length * this.args.numGenerations
    const ids = asked.map((prompt) => prompt.ids)
    const rollouts = await rollout(rolloutModel ?? model, ids, {
      ...this.args,
      exactActivations: this.args.rolloutActivations === 'f32',
      seed,
      signal,
      onProgress: (done, tokens) => onProgress?.({ phase: 'rollouts', done, total, tokens }),
    })
    return this.rewarded(asked, rollouts)
  }

  private async rewarded(asked: readonly Prompt[], rollouts: readonly Rollout[]): Promise<Drawn[]> {
    const inputs = rollouts.map((r): RewardInput & Pick<Rollout, 'promptIds' | 'logProbs'> => ({
      prompt: asked[r.prompt].prompt,
      group: r.prompt,
      completion: r.text,
      completionIds: r.tokenIds,
      truncated: r.truncated,
      row: asked[r.prompt].values,
      promptIds: r.promptIds,
      logProbs: r.logProbs,
    }))
    const each: (readonly (number | null)[])[] = []
    for (const reward of this.rewardFuncs) each.push(await rewardsOf(reward, inputs))
    const weights = this.args.rewardWeights ?? this.rewardFuncs.map(() => 1)
    return inputs.map((input, i) => ({
      ...input,
      rewards: each.map((values) => values[i]),
      reward: each.reduce((sum, values, f) => sum + weights[f] * (values[i] ?? 0), 0),
    }))
  }

  /** With the log-probabilities of the policy as it was, and of the reference: the model without the adapter that trains. */
  private async withOtherPolicies(samples: readonly Sample[]): Promise<Sample[]> {
    const { model, refModel } = this.options
    const { importanceSamplingCorrection: mode, importanceSamplingCap: cap } = this.args
    const { programs, trained } = this.run
    let all = [...samples]
    if (this.terms.old) {
      const scores = await this.scores(model, all, programs)
      all = all.map((s, i) => ({ ...s, oldLogProbs: scores[i] }))
    }
    if (isDrawnElsewhere(this.options, this.args))
      all = all.map((s) => ({ ...s, importance: importanceWeights(s.oldLogProbs!, s.logProbs, mode, cap) }))
    if (this.terms.ref) {
      const scores = this.refPrograms
        ? await this.scores(refModel!, all, this.refPrograms)
        : await this.scores(model, all, programs, trained !== null)
      all = all.map((s, i) => ({ ...s, refLogProbs: scores[i] }))
    }
    return all
  }

  private async scores(lm: LanguageModel, samples: readonly Sample[], programs: Programs, withoutLastAdapter = false) {
    const { temperature } = this.args
    const options = { temperature, withoutLastAdapter, signal: this.run.at.signal, programs }
    return (await scoreExamples(lm.model, samples.map(exampleOf), options)).map((logProbs) => [...logProbs])
  }
}

/** Prompts by a cursor that runs through epochs, each in another order. */
function nextPrompts(prompts: readonly Prompt[], cursor: number, count: number, seed: number): Prompt[] {
  return Array.from({ length: count }, (_, i) => {
    const [epoch, at] = [Math.floor((cursor + i) / prompts.length), (cursor + i) % prompts.length]
    return prompts[epochOrder(prompts.length, seed, epoch)[at]]
  })
}

/** The policy's adapter for the model that draws. */
async function copyAdapter(from: LanguageModel, to: LanguageModel, name: string): Promise<void> {
  await from.model.pullAdapters()
  const adapter = from.model.adapters.get(name)!
  if (to.model.activeAdapters.includes(name)) return to.model.replaceAdapter(adapter)
  to.model.adapters.set(name, adapter)
  await to.model.setAdapters([...to.model.activeAdapters, name])
}

async function dropAdapter(lm: LanguageModel, name: string): Promise<void> {
  if (lm.isClosed || !lm.model.activeAdapters.includes(name)) return
  await lm.model.setAdapters(lm.model.activeAdapters.filter((active) => active !== name))
  lm.model.adapters.delete(name)
}
