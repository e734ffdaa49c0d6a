import { datasetHash } from '../data/dataset-hash.ts'
import { epochOrder } from '../data/order.ts'
import { bucketLength } from '../data/pack.ts'
import { type Prompt, readPrompts } from '../data/prompts.ts'
import type { RowSource } from '../data/rows.ts'
import { CollapseError, DataError } from '../errors.ts'
import type { LanguageModel } from '../generate/language-model.ts'
import { type Rollout, rollout } from '../generate/rollout.ts'
import { scoreExamples } from '../generate/score.ts'
import type { LoraConfig } from '../model/adapter.ts'
import { Programs } from '../model/programs.ts'
import { randomBits } from '../random.ts'
import type { RewardFunction, RewardInput } from '../rewards/reward.ts'
import { groupAdvantages, importanceWeights, mean, tokenWeights } from './advantages.ts'
import { checkTrainerOptions, checkTrainingArguments, decisive } from './arguments.ts'
import { listCheckpoints } from './checkpoint.ts'
import { Collapse, type Streaks } from './collapse.ts'
import {
  checkGrpoArguments,
  type GRPOConfig,
  type GrpoSettings,
  grpoDefaults,
  optionalArguments,
  settingsOf,
} from './grpo-arguments.ts'
import { type StepResult, type TrainLog, type TrainOptions, trainSteps } from './loop.ts'
import type { RolloutMetrics } from './metrics.ts'
import { exampleOf, type PolicyObjective, policyInputs, policyObjective, type Sample, TokenSums } from './policy.ts'
import { type Drawn, hasSpread, nameOf, rewardsOf, rolloutMetrics, type ScoredRollout } from './rewarded.ts'
import { decaysAsTransformers, type Forecast, TrainStep } from './step.ts'
import { prepareAdapter, rememberAdapters } from './trained.ts'

/** What a GRPOTrainer takes. */
export interface GRPOOptions {
  readonly model: LanguageModel
  /** Prompts (`prompt`, `question` or `messages`) with whatever columns the rewards need: a file, a hub data set, or rows. */
  readonly trainDataset: RowSource
  /** Answered greedily as evalStrategy says: `evalReward`. */
  readonly evalDataset?: RowSource
  readonly rewardFuncs: RewardFunction | readonly RewardFunction[]
  /** LoRA; `null` trains the full model; left out, training goes on from the active adapter, or makes one with the defaults. */
  readonly peft?: Partial<LoraConfig> | null
  /** Full fine-tuning with beta: the model as it was, loaded once more. With LoRA it is the model without the adapter. */
  readonly refModel?: LanguageModel
  /** Draws the completions in place of the model, which it is a quantized copy of; LoRA only. */
  readonly rolloutModel?: LanguageModel
  readonly args: GRPOConfig
  /** Told of what is worth knowing about the run. */
  readonly onWarning?: (message: string) => void
  /** Told of every batch of completions. */
  readonly onRollouts?: (rollouts: readonly ScoredRollout[]) => void
}

/** Completions that are trained on for one or several steps. */
interface Generation {
  readonly samples: readonly Sample[]
  readonly metrics: Readonly<Record<string, number>>
}

/** Keep what is drawn for one purpose apart from another of the same seed. */
const [rolloutStream, shuffleStream] = [0x6017, 0x5406]

/**
 * Group relative policy optimization (arXiv 2402.03300), as TRL's GRPOTrainer: completions are drawn in groups, rewarded, and made
 * likelier or less likely by how they compare with their group.
 *
 * ```ts
 * import { accuracyReward, GRPOTrainer, loadModel } from 'halfling'
 *
 * const model = await loadModel()
 * const trainer = new GRPOTrainer({
 *   model,
 *   trainDataset: 'rows.jsonl',
 *   rewardFuncs: accuracyReward,
 *   args: { outputDir: 'policy', maxSteps: 2, maxCompletionLength: 64 },
 * })
 * for await (const log of trainer.train()) console.log(log)
 * await model.close()
 * ```
 */
export class GRPOTrainer {
  readonly model: LanguageModel
  /** With the defaults filled in. */
  readonly args: GrpoSettings
  /** Bytes of the largest step, once `train` has read the rows and before the first step. */
  forecast: Forecast | null = null
  private readonly options: GRPOOptions
  private readonly rewardFuncs: readonly RewardFunction[]

  /** Throws OptionError for arguments out of range. */
  constructor(options: GRPOOptions) {
    checkTrainerOptions(
      options,
      ['rewardFuncs', 'refModel', 'rolloutModel', 'onRollouts'],
      [...Object.keys(grpoDefaults), ...optionalArguments],
    )
    this.options = options
    this.model = options.model
    this.rewardFuncs = [options.rewardFuncs].flat()
    this.args = settingsOf(options.args, options.peft === null)
    checkTrainingArguments(this.args, options.evalDataset !== undefined)
    checkGrpoArguments(this.args, options, this.rewardFuncs)
  }

  /**
   * Trains to the end, yielding a log line every `loggingSteps` and at each evaluation. The trained adapter stays active on the
   * model and is written to `outputDir`.
   *
   * @throws DataError, OptionError, MemoryError before the first step; RewardError, NumericError, CollapseError
   */
  async *train({ resume = false, signal, onProgress }: TrainOptions = {}): AsyncGenerator<TrainLog, void> {
    const { args, model, options } = this
    const read = async (source: RowSource): Promise<Prompt[]> => {
      const prompts: Prompt[] = []
      for await (const prompt of readPrompts(source, model.tokenizer, model.chatTemplate, args)) {
        prompts.push(prompt)
        signal?.throwIfAborted()
        onProgress?.({ phase: 'reading', rows: prompts.length })
      }
      if (prompts.length === 0) throw new DataError('dataset: no rows')
      return prompts
    }
    const prompts = await read(options.trainDataset)
    const evalPrompts = options.evalDataset ? await read(options.evalDataset) : null
    const { numGenerations, perDeviceTrainBatchSize, gradientAccumulationSteps, stepsPerGeneration } = args
    const groups = (perDeviceTrainBatchSize * stepsPerGeneration) / numGenerations
    const parts = stepsPerGeneration / gradientAccumulationSteps
    const updates = parts * args.numIterations
    const epoch = Math.ceil(prompts.length / groups) * updates
    const totalSteps = args.maxSteps > 0 ? args.maxSteps : Math.ceil(epoch * args.numTrainEpochs)

    const putBack = await rememberAdapters(model)
    const trained = await prepareAdapter(model, options.peft, args.seed)
    const adapter = trained === null ? null : model.model.adapters.get(trained)!.config
    const objective = objectiveOf(args, updates > 1 || options.rolloutModel !== undefined)
    const step = new TrainStep(model.model, {
      trains: trained === null ? 'model' : 'adapter',
      gradientCheckpointing: args.gradientCheckpointing,
      dropout: adapter?.loraDropout ?? 0,
      decays: decaysAsTransformers,
      objective: (g, hidden, table) => policyObjective(g, hidden, table, objective),
    })
    const programs = new Programs(model.model)
    const refPrograms = trained === null && options.refModel ? new Programs(options.refModel.model) : programs
    const run = { objective, programs, refPrograms, trained, prompts, groups, onProgress, signal }
    const collapse = new Collapse(args.collapsePatience)
    let cursor = 0
    let generation: Generation | null = null
    try {
      const largest = largestStep(prompts, args, model.model.config.maxPositionEmbeddings)
      this.forecast = step.checkMemory(largest.tokens, largest.scored)
      onProgress?.({ phase: 'ready', totalSteps, tokens: largest.tokens, forecast: this.forecast })
      yield* trainSteps({
        model,
        trained,
        args,
        step,
        stepsPerEpoch: epoch,
        totalSteps,
        decisive: {
          ...decisive({ ...args, stopOnCollapse: undefined, collapsePatience: undefined }),
          peft: adapter,
          rewards: this.rewardFuncs.map(nameOf),
          rows: prompts.length,
          dataset: datasetHash(prompts.map(({ ids }, row) => ({ inputIds: [...ids], labels: [...ids], row }))),
        },
        accumulate: async (s) => {
          const update = s % updates
          if (update === 0 || !generation) {
            const drawn = await this.generate(run, Math.floor(s / updates), cursor)
            ;[generation, cursor] = [drawn.generation, drawn.cursor]
          }
          const own = partOf(generation.samples, update % parts, parts, [args.seed, Math.floor(s / parts)])
          const result = await this.update(step, own, run, s)
          const metrics = { ...result.metrics, ...generation.metrics }
          const { warning, stop } = collapse.after(metrics as unknown as RolloutMetrics)
          if (warning !== undefined) options.onWarning?.(`step ${s + 1}: ${warning}`)
          if (stop && args.stopOnCollapse) throw await this.collapsed(s + 1, stop, args.collapsePatience)
          return { ...result, metrics, ...(warning !== undefined && { warning }) }
        },
        evaluate: evalPrompts && (async () => ({ evalReward: await this.meanReward(evalPrompts, run) })),
        memory: {
          save: () => ({
            cursor,
            generation: step.steps % updates === 0 ? null : generation,
            streaks: collapse.streaks,
          }),
          restore: (saved) => {
            const own = saved as { cursor: number; generation: Generation | null; streaks: Streaks }
            ;[cursor, generation, collapse.streaks] = [own.cursor, own.generation, own.streaks]
          },
        },
        rotates: () => !args.stopOnCollapse || collapse.longest === 0,
        resume,
        signal,
      })
    } catch (error) {
      if (!model.isClosed) await putBack()
      throw error
    } finally {
      programs.clear()
      refPrograms.clear()
      step.free()
      if (options.rolloutModel && trained !== null) await dropAdapter(options.rolloutModel, trained)
    }
  }

  /** Completions of the next prompts with rewards, advantages and what the updates need to know of other policies. */
  private async generate(
    run: GrpoRun,
    index: number,
    from: number,
  ): Promise<{ generation: Generation; cursor: number }> {
    const { args, model, options } = this
    const { numGenerations: size, dynamicSampling, maxResamples } = args
    const sampler = options.rolloutModel ?? model
    if (options.rolloutModel) await copyAdapter(model, options.rolloutModel, run.trained!)
    const kept: Drawn[][] = []
    const all: Drawn[][] = []
    let cursor = from
    for (let round = 0; kept.length < run.groups && round <= (dynamicSampling ? maxResamples : 0); round++) {
      const asked = nextPrompts(run.prompts, cursor, run.groups - kept.length, args.seed)
      const drawn = await this.draw(run, sampler, asked, randomBits(args.seed, rolloutStream, index, round))
      cursor += asked.length
      for (let g = 0; g < asked.length; g++) {
        const group = drawn.slice(g * size, (g + 1) * size).map((d) => ({ ...d, group: all.length }))
        all.push(group)
        if (!dynamicSampling || hasSpread(group)) kept.push(group)
      }
    }
    // Nothing but groups that teach nothing: they are at least counted.
    const used = kept.length > 0 ? kept : all.slice(0, run.groups)
    const completions = used.flat()
    const advantages = groupAdvantages(
      completions.map(({ reward }) => reward),
      size,
      args.scaleRewards,
    )
    options.onRollouts?.(
      completions.map(({ promptIds: _, logProbs, rewards, ...c }, i) => ({ ...c, advantage: advantages[i] })),
    )
    let samples = completions.map(({ promptIds, completionIds, truncated, logProbs }, i): Sample => {
      return { promptIds, completionIds, truncated, logProbs, advantage: advantages[i] }
    })
    if (run.objective.old) samples = await withLogProbs(samples, 'oldLogProbs', model, args.temperature, run)
    if (options.rolloutModel) {
      const { importanceSamplingCorrection: mode, importanceSamplingCap: cap } = args
      samples = samples.map((sample) => ({
        ...sample,
        importance: importanceWeights(sample.oldLogProbs!, sample.logProbs, mode, cap),
      }))
    }
    if (run.objective.ref) {
      const reference = run.trained === null ? options.refModel! : model
      samples = await withLogProbs(samples, 'refLogProbs', reference, args.temperature, run)
    }
    return { generation: { samples, metrics: rolloutMetrics(all, all.length - used.length, this.rewardFuncs) }, cursor }
  }

  /** Completions of these prompts with their rewards. */
  private async draw(run: GrpoRun, sampler: LanguageModel, asked: readonly Prompt[], seed: number): Promise<Drawn[]> {
    const { args } = this
    const ids = asked.map((prompt) => prompt.ids)
    const total = asked.length * args.numGenerations
    const rollouts = await rollout(sampler, ids, {
      ...args,
      seed,
      signal: run.signal,
      onProgress: (done, tokens) => run.onProgress?.({ phase: 'rollouts', done, total, tokens }),
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

  /** Gradients of one optimizer step over its completions. */
  private async update(step: TrainStep, samples: readonly Sample[], run: GrpoRun, s: number): Promise<StepResult> {
    const { args } = this
    const size = args.perDeviceTrainBatchSize
    const parts = Array.from({ length: Math.ceil(samples.length / size) }, (_, i) =>
      samples.slice(i * size, (i + 1) * size),
    )
    const counts = ({ truncated, completionIds }: Sample) =>
      truncated && args.maskTruncatedCompletions ? 0 : completionIds.length
    const weights = tokenWeights(
      parts.map((part) => part.map(counts)),
      args.lossType,
      args.maxCompletionLength,
    )
    const sums = new TokenSums()
    for (const [micro, part] of parts.entries()) {
      const seed = [args.seed, s * args.gradientAccumulationSteps + micro] as const
      const weighed = part.map((sample, i) => ({ sample, weight: counts(sample) === 0 ? 0 : weights[micro][i] }))
      // Without a KL term a completion as good as its group has no gradient.
      const teaching = weighed.filter(({ sample, weight }) => weight > 0 && (sample.advantage !== 0 || args.beta !== 0))
      if (teaching.length === 0) continue
      const { batch, inputs } = policyInputs(teaching, run.objective, args.temperature)
      const out = await step.accumulate(batch, inputs, seed, run.signal)
      sums.add(teaching, out, args)
    }
    return {
      metrics: sums.metrics(run.objective, this.options.rolloutModel !== undefined),
      tokens: samples.reduce((n, c) => n + c.promptIds.length + c.completionIds.length, 0),
    }
  }

  /** Of one greedy completion of each prompt. */
  private async meanReward(prompts: readonly Prompt[], { signal, onProgress }: GrpoRun): Promise<number> {
    const ids = prompts.map((prompt) => prompt.ids)
    const greedy = { numGenerations: 1, temperature: 0, maxCompletionLength: this.args.maxCompletionLength, seed: 0 }
    const told = (done: number) => onProgress?.({ phase: 'evaluating', rows: done, totalRows: prompts.length })
    const rollouts = await rollout(this.model, ids, { ...greedy, slots: this.args.slots, signal, onProgress: told })
    return mean((await this.rewarded(prompts, rollouts)).map(({ reward }) => reward))
  }

  private async collapsed(step: number, what: string, patience: number): Promise<CollapseError> {
    const { outputDir } = this.args
    const all = outputDir === null ? [] : await listCheckpoints(outputDir)
    const good = all.filter((checkpoint) => checkpoint.step <= step - patience).at(-1)
    return new CollapseError(
      `step ${step}: ${what}, for ${patience} steps: stopped. ${good ? `The last checkpoint from before is ${good.folder}` : `There is no older checkpoint${outputDir === null ? '' : ` in ${outputDir} (lower saveSteps)`}`}`,
    )
  }
}

/** What the parts of one run share. */
interface GrpoRun {
  readonly objective: PolicyObjective
  readonly programs: Programs
  readonly refPrograms: Programs
  readonly trained: string | null
  readonly prompts: readonly Prompt[]
  /** Prompts of a batch of completions. */
  readonly groups: number
  readonly onProgress?: TrainOptions['onProgress']
  readonly signal?: AbortSignal
}

/** Prompts by a cursor that runs through epochs, each in another order. */
function nextPrompts(prompts: readonly Prompt[], cursor: number, count: number, seed: number): Prompt[] {
  return Array.from({ length: count }, (_, i) => {
    const [epoch, at] = [Math.floor((cursor + i) / prompts.length), (cursor + i) % prompts.length]
    return prompts[epochOrder(prompts.length, seed, epoch)[at]]
  })
}

/** Part `part` of `parts`; shuffled where there are several, anew for each pass. */
function partOf(
  samples: readonly Sample[],
  part: number,
  parts: number,
  seed: readonly [number, number],
): readonly Sample[] {
  if (parts === 1) return samples
  const order = epochOrder(samples.length, randomBits(seed[0], shuffleStream), seed[1])
  const size = Math.ceil(samples.length / parts)
  return [...order.subarray(part * size, (part + 1) * size)].map((i) => samples[i])
}

/** The log-probabilities of all completions: the policy's, or the reference's (without the adapter that trains). */
async function withLogProbs(
  samples: readonly Sample[],
  name: 'oldLogProbs' | 'refLogProbs',
  lm: LanguageModel,
  temperature: number,
  { programs, refPrograms, signal, trained }: GrpoRun,
): Promise<Sample[]> {
  const isReference = name === 'refLogProbs'
  const scored = await scoreExamples(lm.model, samples.map(exampleOf), {
    temperature,
    withoutLastAdapter: isReference && trained !== null,
    signal,
    programs: isReference ? refPrograms : programs,
  })
  return samples.map((sample, i) => ({ ...sample, [name]: [...scored[i]] }))
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

/** The largest micro-batch that can come up, in padded tokens and scored rows. */
function largestStep(
  prompts: readonly Prompt[],
  { perDeviceTrainBatchSize, numGenerations, maxCompletionLength }: GrpoSettings,
  context: number,
): { tokens: number; scored: number } {
  const lengths = prompts.map(({ ids }) => ids.length).sort((a, b) => b - a)
  const of = (i: number) => lengths[Math.min(Math.floor(i / numGenerations), lengths.length - 1)]
  let tokens = 0
  for (let i = 0; i < perDeviceTrainBatchSize; i++) tokens += Math.min(of(i) + maxCompletionLength, context)
  return { tokens: bucketLength(tokens), scored: bucketLength(perDeviceTrainBatchSize * maxCompletionLength) }
}

function objectiveOf(args: GrpoSettings, old: boolean): PolicyObjective {
  const sequences = args.importanceSamplingLevel === 'sequence' ? args.perDeviceTrainBatchSize : null
  return { old, ref: args.beta !== 0, sequences, epsLow: args.epsilon, epsHigh: args.epsilonHigh, beta: args.beta }
}
