import { datasetHash } from '../data/dataset-hash.ts'
import { packBatch, scoredTokens } from '../data/pack.ts'
import type { RowSource } from '../data/rows.ts'
import type { Example } from '../data/tokenize.ts'
import type { LanguageModel } from '../generate/language-model.ts'
import { meanLoss } from '../generate/score.ts'
import type { Graph, Tensor } from '../graph/graph.ts'
import type { LoraConfig } from '../model/adapter.ts'
import { Programs } from '../model/programs.ts'
import { fill, mul, scale, sum, view, vocabPick } from '../ops/index.ts'
import {
  checkTrainerOptions,
  checkTrainingArguments,
  decisive,
  defaultLearningRate,
  type TrainingArguments,
  trainingDefaults,
} from './arguments.ts'
import { type TrainLog, type TrainOptions, trainSteps } from './loop.ts'
import {
  checkRowArguments,
  largestBatch,
  type RowArguments,
  type RowSettings,
  readExamples,
  rowArguments,
  rowDefaults,
  stepBatches,
  stepsPerEpoch,
  unitsOf,
} from './rows.ts'
import { decaysAsTransformers, type Forecast, TrainStep } from './step.ts'
import { prepareAdapter, rememberAdapters } from './trained.ts'

/** TRL's SFTConfig in camelCase; defaults are TRL's where nothing else is said. */
export interface SFTConfig extends TrainingArguments, RowArguments {}

type Settings = Required<TrainingArguments> & RowSettings

/** What an SFTTrainer takes. */
export interface SFTOptions {
  readonly model: LanguageModel
  /** A .jsonl, .json or .parquet file, a hub data set, or rows. */
  readonly trainDataset: RowSource
  /** Scored as evalStrategy says: `evalLoss`. */
  readonly evalDataset?: RowSource
  /** LoRA; `null` trains the full model; left out, training goes on from the active adapter, or makes one with the defaults. */
  readonly peft?: Partial<LoraConfig> | null
  readonly args: SFTConfig
  /** Told once of everything worth knowing about the data. */
  readonly onWarning?: (message: string) => void
}

/**
 * Supervised fine-tuning: cross-entropy of the scored tokens, averaged over all scored tokens of an optimizer step.
 *
 * ```ts
 * import { loadModel, SFTTrainer } from 'halfling'
 *
 * const model = await loadModel()
 * const trainer = new SFTTrainer({ model, trainDataset: 'rows.jsonl', args: { outputDir: 'out', maxSteps: 10 } })
 * for await (const log of trainer.train()) console.log(log)
 * await model.close()
 * ```
 */
export class SFTTrainer {
  readonly model: LanguageModel
  /** With the defaults filled in. */
  readonly args: Settings
  /** Bytes of the largest step, once `train` has read the rows and before the first step. */
  forecast: Forecast | null = null
  private readonly options: SFTOptions

  /** Throws OptionError for arguments out of range. */
  constructor(options: SFTOptions) {
    checkTrainerOptions(options, [], rowArguments)
    this.options = options
    this.model = options.model
    this.args = settingsOf(options.args, options.peft === null)
    checkTrainingArguments(this.args, options.evalDataset !== undefined)
    checkRowArguments(this.args)
  }

  /**
   * Trains to the end, yielding a log line every `loggingSteps` and at each evaluation. The trained adapter stays active on the
   * model and is written to `outputDir`.
   *
   * @throws DataError, OptionError, MemoryError before the first step; NumericError when a loss is not finite
   */
  async *train({ resume = false, signal, onProgress }: TrainOptions = {}): AsyncGenerator<TrainLog, void> {
    const { args, model, options } = this
    const onRow = (rows: number) => {
      signal?.throwIfAborted()
      onProgress?.({ phase: 'reading', rows })
    }
    const examples = await readExamples(model, options.trainDataset, args, options.onWarning, onRow)
    const evalExamples = options.evalDataset
      ? await readExamples(model, options.evalDataset, args, options.onWarning, onRow)
      : null
    const units = unitsOf(examples, args)
    const epoch = stepsPerEpoch(units, args)
    const totalSteps = args.maxSteps > 0 ? args.maxSteps : Math.ceil(epoch * args.numTrainEpochs)

    const putBack = await rememberAdapters(model)
    const trained = await prepareAdapter(model, options.peft, args.seed)
    const adapter = trained === null ? null : model.model.adapters.get(trained)!.config
    const step = new TrainStep(model.model, {
      trains: trained === null ? 'model' : 'adapter',
      gradientCheckpointing: args.gradientCheckpointing,
      dropout: adapter?.loraDropout ?? 0,
      decays: decaysAsTransformers,
      objective: crossEntropy,
    })
    const evalPrograms = new Programs(model.model)
    try {
      const largest = largestBatch(units, args.perDeviceTrainBatchSize)
      this.forecast = step.checkMemory(largest.tokens, largest.scored)
      onProgress?.({ phase: 'ready', totalSteps, tokens: largest.tokens, forecast: this.forecast })
      yield* trainSteps({
        model,
        trained,
        args,
        step,
        stepsPerEpoch: epoch,
        totalSteps,
        decisive: { ...decisive(args), peft: adapter, rows: units.length, dataset: datasetHash(units.flat()) },
        accumulate: async (s) => {
          const batches = stepBatches(units, s, args)
          const scored = batches.flat().reduce((n, e) => n + scoredTokens(e), 0)
          let loss = 0
          for (const [micro, batch] of batches.entries()) {
            const seed = [args.seed, s * args.gradientAccumulationSteps + micro] as const
            loss += await this.microBatch(step, batch, 1 / scored, seed, signal)
          }
          return { metrics: { loss }, tokens: batches.flat().reduce((n, e) => n + e.inputIds.length, 0) }
        },
        evaluate:
          evalExamples &&
          (async () => ({
            evalLoss: await meanLoss(model.model, evalExamples, {
              signal,
              programs: evalPrograms,
              onProgress: (rows) => onProgress?.({ phase: 'evaluating', rows, totalRows: evalExamples.length }),
            }),
          })),
        resume,
        signal,
      })
    } catch (error) {
      if (!model.isClosed) await putBack()
      throw error
    } finally {
      evalPrograms.clear()
      step.free()
    }
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
}

function settingsOf(given: SFTConfig, full: boolean): Settings {
  const set = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
  const learningRate = full ? defaultLearningRate.full : defaultLearningRate.lora
  return { ...trainingDefaults, ...rowDefaults, learningRate, ...(set as unknown as SFTConfig) }
}

/** -Σ weight·log p(target): the mean over tokens when the host's weights are 1/count. Inputs `targets` i32[R] and `weights` f32[R]. */
export function crossEntropy(g: Graph, hidden: Tensor, table: Tensor): { loss: Tensor } {
  const [r] = hidden.shape
  const targets = g.input('targets', { dtype: 'i32', shape: [r] })
  const weights = g.input('weights', { dtype: 'f32', shape: [r] })
  const [logProbs] = vocabPick(g, hidden, table, view(g, targets, [r, 1]), fill(g, [1], 1)) // [R, 1]
  return { loss: scale(g, sum(g, mul(g, view(g, logProbs, [r]), weights)), -1) }
}
