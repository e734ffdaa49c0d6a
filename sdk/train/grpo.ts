import { datasetHash } from '../data/dataset-hash.ts'
import { epochOrder } from '../data/order.ts'
import { bucketLength } from '../data/pack.ts'
import { type Prompt, readPrompts } from '../data/prompts.ts'
import type { RowSource } from '../data/rows.ts'
import { CollapseError, DataError, OptionError, RewardError } from '../errors.ts'
import type { LanguageModel } from '../generate/language-model.ts'
import { randomBits } from '../random.ts'
import type { RewardFunction } from '../rewards/reward.ts'
import { storeAt } from '../store/store.ts'
import { z } from '../zod.ts'
import { tokenWeights } from './advantages.ts'
import { readArguments, type TrainerOptions } from './arguments.ts'
import { listCheckpoints } from './checkpoint.ts'
import { isAiling, noStreaks, streaks, watchCollapse } from './collapse.ts'
import { type GRPOConfig, type GRPOSettings, grpoConfig, learningRates } from './config.ts'
import { Generations, generation, isDrawnElsewhere } from './generations.ts'
import type { RolloutMetrics } from './metrics.ts'
import { type PolicyTerms, policy } from './objectives.ts'
import { policyInputs, type Sample, TokenSums, type Weighed } from './policy.ts'
import { nameOf, type ScoredRollout } from './rewarded.ts'
import { Run, type TrainLog, type TrainOptions, type TrainPlan } from './run.ts'

/** What a GRPOTrainer takes. */
export interface GRPOOptions extends TrainerOptions<GRPOConfig> {
  /** Asked once about each batch of completions; after a lost device again about those since the last copy of the run. */
  readonly rewardFuncs: RewardFunction | readonly RewardFunction[]
  /** Full fine-tuning with beta: the model as it was, loaded once more. With LoRA it is the model without the adapter. */
  readonly refModel?: LanguageModel
  /** Draws the completions in place of the model, which it is a quantized copy of; LoRA only. */
  readonly rolloutModel?: LanguageModel
  /** Told of every batch of completions. */
  readonly onRollouts?: (rollouts: readonly ScoredRollout[]) => void
}

/** What it remembers from one step to the next: the next prompt, the batch that is trained on, and what goes wrong. */
const memory = z.object({ cursor: z.int().min(0), generation: generation.nullable(), streaks })
type Memory = Readonly<z.infer<typeof memory>>

/** Keeps the order of completions apart from other uses of a seed. */
const shuffleStream = 0x5406

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
  readonly args: GRPOSettings
  private readonly options: GRPOOptions
  private readonly terms: PolicyTerms
  /** A batch of completions is trained on in so many steps, one after the other, and so often. */
  private readonly parts: number
  private readonly updates: number

  /** Throws OptionError for arguments out of range. */
  constructor(options: GRPOOptions) {
    const args = readGRPOArguments(options)
    this.args = args
    this.options = options
    this.model = options.model
    this.parts = args.stepsPerGeneration / args.gradientAccumulationSteps
    this.updates = this.parts * args.numIterations
    this.terms = {
      old: this.updates > 1 || isDrawnElsewhere(options, args),
      ref: args.beta !== 0,
      sequences: args.importanceSamplingLevel === 'sequence' ? args.perDeviceTrainBatchSize : null,
      epsLow: args.epsilon,
      epsHigh: args.epsilonHigh,
      beta: args.beta,
    }
  }

  /**
   * Reads the rows, and tells what training them takes; nothing is trained.
   *
   * @throws DataError, OptionError, MemoryError
   */
  async plan(): Promise<TrainPlan> {
    const { run } = await this.open()
    return run.plan().finally(() => run.leave())
  }

  /**
   * Trains to the end, yielding a log line every `loggingSteps` and at each evaluation. The trained adapter stays active on the
   * model and is written to `outputDir`.
   *
   * @throws DataError, OptionError, MemoryError before the first step; RewardError, NumericError, CollapseError
   */
  async *train(at: TrainOptions = {}): AsyncGenerator<TrainLog, void> {
    const { run, prompts, held } = await this.open(at)
    const generations = new Generations(this.options, this.args, prompts, this.terms, run)
    try {
      yield* run.train(() => this.loop(run, generations, held))
    } finally {
      await generations.close()
    }
  }

  private async open(at: TrainOptions = {}) {
    const { args, options } = this
    const prompts = await this.readPrompts(options.trainDataset, at)
    const held = options.evalDataset ? await this.readPrompts(options.evalDataset, at) : []
    const groups = (args.perDeviceTrainBatchSize * args.stepsPerGeneration) / args.numGenerations
    const run = await Run.open<Memory>(options, args, at, {
      objective: policy(this.terms),
      stepsPerEpoch: Math.ceil(prompts.length / groups) * this.updates,
      largest: largestStep(prompts, args, this.model.model.config.maxPositionEmbeddings),
      decisive: {
        // These end a run, and change none of its numbers.
        stopOnCollapse: undefined,
        collapsePatience: undefined,
        rewards: [options.rewardFuncs].flat().map(nameOf),
        rows: prompts.length,
        dataset: datasetHash(prompts.map(({ ids }, row) => ({ inputIds: [...ids], labels: [...ids], row }))),
      },
      memory: { start: { cursor: 0, generation: null, streaks: noStreaks }, schema: memory },
    })
    return { run, prompts, held }
  }

  private async *loop(
    run: Run<Memory>,
    generations: Generations,
    held: readonly Prompt[],
  ): AsyncGenerator<TrainLog, void> {
    const { args, options, parts, updates, terms } = this
    const { seed, stopOnCollapse, collapsePatience } = args
    for await (const step of run.steps()) {
      let unrewarded: string | undefined
      if (!run.memory.generation) {
        const { warning, ...drawn } = await generations
          .draw(Math.floor(step / updates), run.memory.cursor)
          .catch(async (error) => {
            // A mistake in somebody's reward does not cost what was learned before it.
            if (error instanceof RewardError) await run.save(rotates(run, args))
            throw error
          })
        run.memory = { ...run.memory, ...drawn }
        unrewarded = warning
      }
      const { generation, cursor } = run.memory
      const samples = partOf(generation!.samples, step % parts, parts, [seed, Math.floor(step / parts)])
      const sums = new TokenSums()
      for (const [micro, completions] of this.microBatches(samples).entries()) {
        if (completions.length === 0) continue
        const { batch, inputs } = policyInputs(completions, terms, args.temperature)
        sums.add(completions, await run.accumulate(micro, batch, inputs), terms)
      }
      const metrics = { ...sums.metrics(terms, isDrawnElsewhere(options, args)), ...generation!.metrics }
      const health = watchCollapse(run.memory.streaks, metrics as unknown as RolloutMetrics, collapsePatience)
      const warning = unrewarded ?? health.warning
      if (warning !== undefined && run.isNew) options.onWarning?.(`step ${step + 1}: ${warning}`)
      if (health.stop && stopOnCollapse) throw await this.collapsed(step + 1, health.stop)
      const isSpent = (step + 1) % updates === 0
      run.memory = { cursor, generation: isSpent ? null : generation, streaks: health.streaks }
      const tokens = samples.reduce((n, c) => n + c.promptIds.length + c.completionIds.length, 0)
      yield* run.update(metrics, tokens, warning)
      yield* run.evaluate(async () => ({ evalReward: await generations.meanReward(held) }))
      await run.checkpoint(rotates(run, args))
    }
  }

  /** The completions of a step in micro-batches, those that have something to teach. */
  private microBatches(samples: readonly Sample[]): Weighed[][] {
    const { perDeviceTrainBatchSize: size, maskTruncatedCompletions, lossType, maxCompletionLength, beta } = this.args
    const parts = Array.from({ length: Math.ceil(samples.length / size) }, (_, i) =>
      samples.slice(i * size, (i + 1) * size),
    )
    const counts = ({ truncated, completionIds }: Sample) =>
      truncated && maskTruncatedCompletions ? 0 : completionIds.length
    const lengths = parts.map((part) => part.map(counts))
    const weights = tokenWeights(lengths, lossType, maxCompletionLength)
    // Without a KL term a completion as good as its group has no gradient.
    const teaches = (sample: Sample) => counts(sample) > 0 && (sample.advantage !== 0 || beta !== 0)
    return parts.map((part, micro) =>
      part.map((sample, i) => ({ sample, weight: weights[micro][i] })).filter(({ sample }) => teaches(sample)),
    )
  }

  private async readPrompts(source: RowSource, { signal, onProgress }: TrainOptions): Promise<Prompt[]> {
    const { tokenizer, chatTemplate } = this.model
    const prompts: Prompt[] = []
    for await (const prompt of readPrompts(source, tokenizer, chatTemplate, this.args)) {
      prompts.push(prompt)
      signal?.throwIfAborted()
      onProgress?.({ phase: 'reading', rows: prompts.length })
    }
    if (prompts.length === 0) throw new DataError('dataset: no rows')
    return prompts
  }

  private async collapsed(step: number, what: string): Promise<CollapseError> {
    const { outputDir, collapsePatience: patience } = this.args
    const output = outputDir === null ? null : await storeAt(outputDir)
    const all = output ? await listCheckpoints(output) : []
    const good = all.filter((checkpoint) => checkpoint.step <= step - patience).at(-1)
    return new CollapseError(
      `step ${step}: ${what}, for ${patience} steps: stopped. ${good ? `The last checkpoint from before is ${good.folder.name}` : `There is no older checkpoint${output ? ` in ${output.name} (lower saveSteps)` : ''}`}`,
    )
  }
}

/** Of an ailing run that may be stopped no checkpoint is thrown away. */
const rotates = ({ memory }: Run<Memory>, { stopOnCollapse }: GRPOSettings): boolean =>
  !stopOnCollapse || !isAiling(memory.streaks)

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

/** The largest micro-batch that can come up, in padded tokens and scored rows. */
function largestStep(
  prompts: readonly Prompt[],
  { perDeviceTrainBatchSize, numGenerations, maxCompletionLength }: GRPOSettings,
  context: number,
): { tokens: number; scored: number } {
  const lengths = prompts.map(({ ids }) => ids.length).sort((a, b) => b - a)
  const of = (i: number) => lengths[Math.min(Math.floor(i / numGenerations), lengths.length - 1)]
  let tokens = 0
  for (let i = 0; i < perDeviceTrainBatchSize; i++) tokens += Math.min(of(i) + maxCompletionLength, context)
  return { tokens: bucketLength(tokens), scored: bucketLength(perDeviceTrainBatchSize * maxCompletionLength) }
}

/** The arguments with their defaults. Throws OptionError naming the first that is out of range or goes badly with another. */
function readGRPOArguments(options: GRPOOptions): GRPOSettings {
  const { peft, refModel, rolloutModel } = options
  const own = ['rewardFuncs', 'refModel', 'rolloutModel', 'onRollouts']
  const filled = readArguments(grpoConfig, options, learningRates.grpo, own)
  const { gradientAccumulationSteps, epsilonHigh = filled.epsilon } = filled
  const { stepsPerGeneration = gradientAccumulationSteps, numGenerations, rewardWeights } = filled
  if (stepsPerGeneration % gradientAccumulationSteps !== 0)
    throw new OptionError(
      `stepsPerGeneration: ${stepsPerGeneration} is no multiple of gradientAccumulationSteps (${gradientAccumulationSteps})`,
    )
  const completions = filled.perDeviceTrainBatchSize * stepsPerGeneration
  if (completions % numGenerations !== 0)
    throw new OptionError(
      `numGenerations: ${completions} completions at once (perDeviceTrainBatchSize x stepsPerGeneration) are no groups of ${numGenerations}`,
    )
  const rewards = [options.rewardFuncs].flat()
  if (rewards.length === 0 || rewards.some((reward) => typeof reward !== 'function'))
    throw new OptionError('rewardFuncs: wanted a function of completions, or several')
  if (rewardWeights !== undefined && rewardWeights.length !== rewards.length)
    throw new OptionError(`rewardWeights: ${rewardWeights.length} weights for ${rewards.length} reward functions`)
  if (peft === null && filled.beta !== 0 && !refModel)
    throw new OptionError(
      'beta: full fine-tuning changes the reference itself: give it as refModel, or use beta 0 or LoRA',
    )
  if (peft === null && rolloutModel)
    throw new OptionError('rolloutModel: full fine-tuning changes all weights, which it would not get: use LoRA')
  return { ...filled, epsilonHigh, stepsPerGeneration }
}
