import { epochOrder } from '../data/order.ts'
import { bucketLength, packBatch, packBins, scoredTokens } from '../data/pack.ts'
import type { RowSource } from '../data/rows.ts'
import { type Example, tokenizeRows } from '../data/tokenize.ts'
import { DataError, NumericError, OptionError } from '../errors.ts'
import type { LanguageModel } from '../generate/language-model.ts'
import { scoreExamples } from '../generate/score.ts'
import type { Graph, Tensor } from '../graph/graph.ts'
import type { LoraConfig } from '../model/adapter.ts'
import { Programs } from '../model/programs.ts'
import { fill, mul, scale, sum, view, vocabPick } from '../ops/index.ts'
import {
  listCheckpoints,
  readState,
  restoreMoments,
  rotateCheckpoints,
  saveCheckpoint,
  type TrainerState,
} from './checkpoint.ts'
import { MetricsFile, type MetricsLine } from './metrics.ts'
import { learningRateAt, type Schedule } from './schedule.ts'
import { decaysAsTransformers, type Forecast, TrainStep } from './step.ts'
import { prepareAdapter, restoreTrained, saveTrained } from './trained.ts'

/** TRL's SFTConfig in camelCase; defaults are TRL's where nothing else is said. */
export interface SFTConfig {
  readonly outputDir: string
  /** Default 2e-4 for LoRA (TRL's 2e-5 is for full fine-tuning, and the default there). */
  readonly learningRate?: number
  readonly lrSchedulerType?: Schedule
  readonly warmupSteps?: number
  /** Share of all steps; warmupSteps wins. */
  readonly warmupRatio?: number
  readonly numTrainEpochs?: number
  /** Overrides numTrainEpochs when positive. */
  readonly maxSteps?: number
  readonly perDeviceTrainBatchSize?: number
  readonly perDeviceEvalBatchSize?: number
  readonly gradientAccumulationSteps?: number
  readonly maxLength?: number
  /** Longer rows lose their end, are an error, or are left out. */
  readonly truncationMode?: 'keep_start' | 'error' | 'skip'
  readonly packing?: boolean
  /** Of prompt + completion, score the completion alone. Default true. */
  readonly completionOnlyLoss?: boolean
  /** Of messages, score what the assistant says alone. Default true. */
  readonly assistantOnlyLoss?: boolean
  /** Which column holds what: `{question: 'problem', answer: 'solution'}`. */
  readonly columns?: Readonly<Record<string, string>>
  readonly weightDecay?: number
  readonly adamBeta1?: number
  readonly adamBeta2?: number
  readonly adamEpsilon?: number
  readonly maxGradNorm?: number
  /** Recompute each layer in the reverse pass: about a third slower, memory of one layer instead of all. */
  readonly gradientCheckpointing?: boolean
  /** `sequential` keeps the rows in order (transformers' trainSamplingStrategy). */
  readonly trainSamplingStrategy?: 'random' | 'sequential'
  readonly seed?: number
  readonly loggingSteps?: number
  readonly evalStrategy?: 'no' | 'steps' | 'epoch'
  readonly evalSteps?: number
  readonly saveStrategy?: 'no' | 'steps' | 'epoch'
  readonly saveSteps?: number
  /** null keeps all checkpoints. */
  readonly saveTotalLimit?: number | null
  readonly loadBestModelAtEnd?: boolean
  /** Stop after so many evaluations without a better one. */
  readonly earlyStoppingPatience?: number | null
}

const defaults = {
  lrSchedulerType: 'linear',
  warmupSteps: 0,
  warmupRatio: 0,
  numTrainEpochs: 3,
  maxSteps: -1,
  perDeviceTrainBatchSize: 8,
  perDeviceEvalBatchSize: 8,
  gradientAccumulationSteps: 1,
  maxLength: 1024,
  truncationMode: 'keep_start',
  packing: false,
  weightDecay: 0,
  adamBeta1: 0.9,
  adamBeta2: 0.999,
  adamEpsilon: 1e-8,
  maxGradNorm: 1,
  gradientCheckpointing: true,
  trainSamplingStrategy: 'random',
  seed: 42,
  loggingSteps: 1,
  evalStrategy: 'no',
  evalSteps: 100,
  saveStrategy: 'steps',
  saveSteps: 500,
  saveTotalLimit: null,
  loadBestModelAtEnd: false,
  earlyStoppingPatience: null,
} as const satisfies Partial<SFTConfig>

/** SFTConfig with the defaults filled in; what depends on the rows stays open. */
type Settings = SFTConfig & Omit<Required<SFTConfig>, 'completionOnlyLoss' | 'assistantOnlyLoss' | 'columns'>

/** Arguments that do not change the numbers of a run up to a given step, so a resumed run may have others. */
const freeToChange = [
  'outputDir',
  'loggingSteps',
  'saveStrategy',
  'saveSteps',
  'saveTotalLimit',
  'perDeviceEvalBatchSize',
  'numTrainEpochs',
  'maxSteps',
  'loadBestModelAtEnd',
] as const

export interface SFTOptions {
  readonly model: LanguageModel
  /** A .jsonl or .json file, or rows. */
  readonly trainDataset: RowSource
  readonly evalDataset?: RowSource
  /** LoRA; `null` trains the full model; left out, training goes on from the active adapter, or makes one with the defaults. */
  readonly peft?: Partial<LoraConfig> | null
  readonly args: SFTConfig
  /** Told once of everything worth knowing about the data. */
  readonly onWarning?: (message: string) => void
}

/** A log line, with where the run stands. */
export type TrainLog = MetricsLine & { readonly totalSteps: number }

/**
 * Supervised fine-tuning: cross-entropy of the scored tokens, averaged over all scored tokens of an optimizer step.
 *
 *     for await (const log of new SFTTrainer({ model, trainDataset: 'rows.jsonl', args: { outputDir: 'out' } }).train()) ...
 */
export class SFTTrainer {
  readonly model: LanguageModel
  readonly args: Settings
  /** Memory of the largest step, known before the first one. */
  forecast: Forecast | null = null
  private readonly options: SFTOptions

  constructor(options: SFTOptions) {
    const full = options.peft === null
    this.options = options
    this.model = options.model
    const given = Object.fromEntries(Object.entries(options.args).filter(([, value]) => value !== undefined))
    this.args = { ...defaults, learningRate: full ? 2e-5 : 2e-4, ...(given as unknown as SFTConfig) }
    checkArguments(this.args, options)
  }

  /**
   * Trains to the end, yielding a log line every `loggingSteps` and at each evaluation. The trained adapter stays active on the
   * model and is written to `outputDir`.
   *
   * @param resume go on from the newest checkpoint in `outputDir`, or start where there is none
   * @throws DataError, OptionError, MemoryError before the first step; NumericError when a loss is not finite
   */
  async *train({
    resume = false,
    signal,
  }: {
    resume?: boolean
    signal?: AbortSignal
  } = {}): AsyncGenerator<TrainLog, void> {
    const { args, model } = this
    const { join } = await import('node:path')
    const units = await this.readUnits(this.options.trainDataset)
    const evalExamples = this.options.evalDataset ? await this.readExamples(this.options.evalDataset) : null
    const batchesPerEpoch = Math.ceil(units.length / args.perDeviceTrainBatchSize)
    const stepsPerEpoch = Math.ceil(batchesPerEpoch / args.gradientAccumulationSteps)
    const totalSteps = args.maxSteps > 0 ? args.maxSteps : Math.ceil(stepsPerEpoch * args.numTrainEpochs)
    const warmupSteps = args.warmupSteps || Math.ceil(args.warmupRatio * totalSteps)

    const trained = await prepareAdapter(model, this.options.peft, args.seed)
    const dropout = trained === null ? 0 : model.model.adapters.get(trained)!.config.loraDropout
    const step = new TrainStep(model.model, {
      trains: trained === null ? 'model' : 'adapter',
      gradientCheckpointing: args.gradientCheckpointing,
      dropout,
      decays: decaysAsTransformers,
      objective: crossEntropy,
    })
    const evalPrograms = new Programs(model.model)
    try {
      const largest = largestBatch(units, args.perDeviceTrainBatchSize)
      this.forecast = step.checkMemory(largest.tokens, largest.scored)
      const metrics = new MetricsFile(join(args.outputDir, 'metrics.jsonl'))
      let state: TrainerState = {
        version: 1,
        step: 0,
        tokens: 0,
        pendingLosses: [],
        metricsBytes: 0,
        best: null,
        evaluationsSinceBest: 0,
        arguments: this.resumeArguments(units, trained),
      }
      const there = await listCheckpoints(args.outputDir)
      if (there.length > 0 && !resume)
        throw new OptionError(
          `${args.outputDir} holds the checkpoints of another run: resume it, delete it, or give another outputDir`,
        )
      const checkpoint = there.at(-1)
      if (checkpoint) {
        state = await readState(checkpoint.folder, state.arguments)
        await restoreTrained(model, trained, checkpoint.folder)
        await restoreMoments(checkpoint.folder, step)
        step.steps = state.step
      }
      await metrics.open(state.metricsBytes)

      let { tokens, best, evaluationsSinceBest } = state
      let losses = [...state.pendingLosses]
      let [loggedAt, loggedTokens] = [performance.now(), tokens]
      const save = async (at: number) => {
        const now: TrainerState = {
          ...state,
          step: at,
          tokens,
          pendingLosses: losses,
          metricsBytes: metrics.bytes,
          best,
          evaluationsSinceBest,
        }
        await saveCheckpoint(args.outputDir, now, step, (folder) => saveTrained(model, trained, folder))
        await rotateCheckpoints(
          args.outputDir,
          args.saveTotalLimit,
          args.loadBestModelAtEnd ? (best?.step ?? null) : null,
        )
      }

      for (let s = state.step; s < totalSteps; s++) {
        const epoch = Math.floor(s / stepsPerEpoch)
        const group = this.stepBatches(units, epoch, s % stepsPerEpoch)
        const scored = group.flat(2).reduce((n, e) => n + scoredTokens(e), 0)
        let loss = 0
        for (const [micro, batch] of group.entries())
          loss += await this.microBatch(
            step,
            batch.flat(),
            1 / scored,
            [args.seed, s * args.gradientAccumulationSteps + micro],
            signal,
          )
        if (!Number.isFinite(loss))
          throw new NumericError(
            `step ${s + 1}: the loss is ${loss}; the last checkpoint in ${args.outputDir} is whole (lower the learning rate)`,
          )
        tokens += group.flat(2).reduce((n, e) => n + e.inputIds.length, 0)
        losses.push(loss)
        const learningRate = learningRateAt(args.lrSchedulerType, args.learningRate, s, warmupSteps, totalSteps)
        const gradNorm = await step.apply({ ...args, learningRate })

        const done = s + 1
        const last = done === totalSteps
        const endsEpoch = done % stepsPerEpoch === 0
        if (done % args.loggingSteps === 0 || last) {
          const seconds = (performance.now() - loggedAt) / 1000
          const line: MetricsLine = {
            step: done,
            epoch: done / stepsPerEpoch,
            loss: losses.reduce((a, b) => a + b, 0) / losses.length,
            gradNorm,
            learningRate,
            tokens,
            tokensPerSecond: (tokens - loggedTokens) / seconds,
          }
          losses = []
          ;[loggedAt, loggedTokens] = [performance.now(), tokens]
          await metrics.append(line)
          yield { ...line, totalSteps }
        }
        let stop = false
        if (evalExamples && due(args.evalStrategy, args.evalSteps, done, endsEpoch, last)) {
          const evalLoss = await this.evaluate(evalExamples, evalPrograms, signal)
          const line: MetricsLine = { step: done, evalLoss }
          await metrics.append(line)
          evaluationsSinceBest++
          if (best === null || evalLoss < best.evalLoss) [best, evaluationsSinceBest] = [{ step: done, evalLoss }, 0]
          stop = args.earlyStoppingPatience !== null && evaluationsSinceBest >= args.earlyStoppingPatience
          yield { ...line, totalSteps }
          loggedAt = performance.now()
        }
        const isBest = args.loadBestModelAtEnd && best?.step === done
        if (
          args.saveStrategy !== 'no' &&
          (due(args.saveStrategy, args.saveSteps, done, endsEpoch, last) || isBest || stop)
        )
          await save(done)
        if (stop) break
        signal?.throwIfAborted()
      }
      if (args.loadBestModelAtEnd && best)
        await restoreTrained(model, trained, join(args.outputDir, `checkpoint-${best.step}`))
      await model.model.pullAdapters()
      await saveTrained(model, trained, args.outputDir)
    } finally {
      evalPrograms.clear()
      step.free()
    }
  }

  /** Mean cross-entropy of the scored tokens, nats. */
  private async evaluate(examples: readonly Example[], programs: Programs, signal?: AbortSignal): Promise<number> {
    const logProbs = await scoreExamples(this.model.model, examples, { signal, programs })
    const count = logProbs.reduce((n, row) => n + row.length, 0)
    return -logProbs.reduce((total, row) => row.reduce((a, b) => a + b, total), 0) / count
  }

  private async microBatch(
    step: TrainStep,
    examples: readonly Example[],
    weight: number,
    seed: readonly [number, number],
    signal?: AbortSignal,
  ): Promise<number> {
    const batch = packBatch(examples)
    const weights = Float32Array.from(batch.rows, (row) => (row < 0 ? 0 : weight))
    const out = await step.accumulate(batch, { targets: batch.targets, weights }, seed, signal)
    return out.loss[0]
  }

  /** The micro-batches of one optimizer step: units of `perDeviceTrainBatchSize`, in the epoch's order. */
  private stepBatches(units: readonly (readonly Example[])[], epoch: number, stepInEpoch: number): Example[][][] {
    const { perDeviceTrainBatchSize: size, gradientAccumulationSteps, seed, trainSamplingStrategy } = this.args
    const order =
      trainSamplingStrategy === 'sequential' ? Uint32Array.from(units.keys()) : epochOrder(units.length, seed, epoch)
    const perStep = size * gradientAccumulationSteps
    const mine = [...order.slice(stepInEpoch * perStep, (stepInEpoch + 1) * perStep)].map((i) => [...units[i]])
    return Array.from({ length: Math.ceil(mine.length / size) }, (_, i) => mine.slice(i * size, (i + 1) * size))
  }

  private async readExamples(dataset: RowSource): Promise<Example[]> {
    const { maxLength, truncationMode, completionOnlyLoss, assistantOnlyLoss, columns } = this.args
    const examples: Example[] = []
    const { tokenizer, chatTemplate } = this.model
    const rows = tokenizeRows(dataset, tokenizer, chatTemplate, {
      maxLength: Math.min(maxLength, this.model.model.config.maxPositionEmbeddings),
      truncationMode,
      completionOnlyLoss,
      assistantOnlyLoss,
      columns,
      warn: this.options.onWarning,
    })
    for await (const example of rows) examples.push(example)
    if (examples.length === 0) throw new DataError(`${typeof dataset === 'string' ? dataset : 'dataset'}: no rows`)
    return examples
  }

  /** What is shuffled: rows, or the bins that packing makes of them. */
  private async readUnits(dataset: RowSource): Promise<Example[][]> {
    const examples = await this.readExamples(dataset)
    return this.args.packing ? packBins(examples, this.args.maxLength) : examples.map((e) => [e])
  }

  private resumeArguments(units: readonly (readonly Example[])[], trained: string | null): Record<string, unknown> {
    const free = new Set<string>(freeToChange)
    const mine = Object.entries(this.args).filter(([key, value]) => !free.has(key) && value !== undefined)
    const adapter = trained === null ? null : this.model.model.adapters.get(trained)!.config
    return { ...Object.fromEntries(mine), peft: adapter, rows: units.length, dataset: fingerprint(units) }
  }
}

/** -Σ weight·log p(target): the mean over tokens when the host's weights are 1/count. Inputs `targets` i32[R] and `weights` f32[R]. */
export function crossEntropy(g: Graph, hidden: Tensor, table: Tensor): { loss: Tensor } {
  const [r] = hidden.shape
  const targets = g.input('targets', { dtype: 'i32', shape: [r] })
  const weights = g.input('weights', { dtype: 'f32', shape: [r] })
  const [logProbs] = vocabPick(g, hidden, table, view(g, targets, [r, 1]), fill(g, [1], 1)) // [R, 1]
  return { loss: scale(g, sum(g, mul(g, view(g, logProbs, [r]), weights)), -1) }
}

/** FNV-1a of all tokens and labels: another data set of the same length is another run. */
function fingerprint(units: readonly (readonly Example[])[]): string {
  let hash = 0x811c9dc5
  const mix = (value: number) => {
    hash = Math.imul(hash ^ value, 0x01000193)
    hash ^= hash >>> 15
  }
  for (const unit of units)
    for (const { inputIds, labels } of unit) {
      mix(inputIds.length)
      for (const [t, id] of inputIds.entries()) {
        mix(id)
        mix(labels[t])
      }
    }
  return (hash >>> 0).toString(16).padStart(8, '0')
}

const due = (
  strategy: 'no' | 'steps' | 'epoch',
  every: number,
  step: number,
  endsEpoch: boolean,
  last: boolean,
): boolean => strategy !== 'no' && (last || (strategy === 'epoch' ? endsEpoch : step % every === 0))

/** The largest micro-batch that can come up, in padded tokens and scored rows. */
function largestBatch(units: readonly (readonly Example[])[], size: number): { tokens: number; scored: number } {
  const top = (of: (e: Example) => number) =>
    bucketLength(
      units
        .map((unit) => unit.reduce((n, e) => n + of(e), 0))
        .sort((a, b) => b - a)
        .slice(0, size)
        .reduce((a, b) => a + b, 0),
    )
  return { tokens: top((e) => e.inputIds.length), scored: top(scoredTokens) }
}

function checkArguments(args: Settings, options: SFTOptions): void {
  const check = (keys: readonly (keyof Settings)[], fits: (value: number) => boolean, what: string) => {
    for (const key of keys) {
      const value = args[key]
      if (value !== null && !fits(value as number)) throw new OptionError(`${key}: ${value} is not ${what}`)
    }
  }
  const whole = Number.isInteger
  check(['learningRate', 'numTrainEpochs', 'adamEpsilon'], (v) => v > 0 && v < Infinity, 'a positive number')
  check(['weightDecay', 'maxGradNorm'], (v) => v >= 0 && v < Infinity, 'a number from 0')
  check(['adamBeta1', 'adamBeta2', 'warmupRatio'], (v) => v >= 0 && v < 1, 'within 0 and 1')
  check(['warmupSteps'], (v) => whole(v) && v >= 0, 'an integer from 0')
  check(['maxSteps'], whole, 'an integer')
  check(['seed'], (v) => whole(v) && v >= 0 && v < 2 ** 32, 'an integer from 0 to 2^32 - 1')
  check(
    [
      'perDeviceTrainBatchSize',
      'perDeviceEvalBatchSize',
      'gradientAccumulationSteps',
      'maxLength',
      'loggingSteps',
      'evalSteps',
      'saveSteps',
      'saveTotalLimit',
      'earlyStoppingPatience',
    ],
    (v) => whole(v) && v > 0,
    'a positive integer',
  )
  if (!args.outputDir) throw new OptionError('outputDir: where should the result go?')
  const evaluates = args.evalStrategy !== 'no'
  if (evaluates && !options.evalDataset)
    throw new OptionError(`evalStrategy '${args.evalStrategy}' needs an evalDataset`)
  if (args.loadBestModelAtEnd && (!evaluates || args.saveStrategy === 'no'))
    throw new OptionError("loadBestModelAtEnd needs evalStrategy and saveStrategy 'steps' or 'epoch'")
  if (args.earlyStoppingPatience !== null && !evaluates)
    throw new OptionError("earlyStoppingPatience needs evalStrategy 'steps' or 'epoch'")
}
