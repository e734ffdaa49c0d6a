import { OptionError } from '../errors.ts'
import { LanguageModel } from '../generate/language-model.ts'
import { checkKeys, checkWord, shown } from '../options.ts'
import { type Schedule, schedules } from './schedule.ts'

/** What every trainer takes: transformers' TrainingArguments in camelCase, with its defaults where nothing else is said. */
export interface TrainingArguments {
  /**
   * For the adapter (or model), checkpoints and metrics.jsonl; made where it is missing. null writes nothing: what was trained stays on
   * the model, and there is no going on after an interruption.
   */
  readonly outputDir: string | null
  /** Default 2e-4 for LoRA (TRL's 2e-5 is for full fine-tuning, and the default there). */
  readonly learningRate?: number
  /** How the learning rate goes on after the warm-up; default `linear`, down to 0 at the last step. */
  readonly lrSchedulerType?: Schedule
  /** The learning rate rises from 0 over so many steps; default 0. */
  readonly warmupSteps?: number
  /** The same as a share of all steps, 0 to 1; warmupSteps wins. */
  readonly warmupRatio?: number
  /** Passes over the rows, fractions too; default 3. */
  readonly numTrainEpochs?: number
  /** Optimizer steps; overrides numTrainEpochs when positive. Default -1. */
  readonly maxSteps?: number
  /** Rows computed together; default 8. Memory grows with it. */
  readonly perDeviceTrainBatchSize?: number
  /** Default 8. */
  readonly perDeviceEvalBatchSize?: number
  /** Batches an optimizer step; default 1. */
  readonly gradientAccumulationSteps?: number
  /** Of weights, not of biases and norms; default 0. */
  readonly weightDecay?: number
  /** Default 0.9. */
  readonly adamBeta1?: number
  /** Default 0.999. */
  readonly adamBeta2?: number
  /** Default 1e-8. */
  readonly adamEpsilon?: number
  /** Gradients are scaled down to this global norm; 0 leaves them. Default 1. */
  readonly maxGradNorm?: number
  /** Recompute each layer in the reverse pass: about a third slower, memory of one layer instead of all. Default true. */
  readonly gradientCheckpointing?: boolean
  /** Of the order of rows, the adapter's start and dropout; default 42. The same seed gives the same bits. */
  readonly seed?: number
  /** Steps from one log line to the next; default 1. */
  readonly loggingSteps?: number
  /** When evalDataset is scored; default `no`. */
  readonly evalStrategy?: 'no' | 'steps' | 'epoch'
  /** For evalStrategy `steps`; default 100. */
  readonly evalSteps?: number
  /** When a checkpoint is written; default `steps`. */
  readonly saveStrategy?: 'no' | 'steps' | 'epoch'
  /** For saveStrategy `steps`; default 500. */
  readonly saveSteps?: number
  /** Checkpoints that are kept, the newest; null (the default) keeps all. */
  readonly saveTotalLimit?: number | null
  /** End with the checkpoint of the lowest evalLoss; default false. */
  readonly loadBestModelAtEnd?: boolean
  /** Stop after so many evaluations without a better one; null (the default): never. */
  readonly earlyStoppingPatience?: number | null
}

export const trainingDefaults = {
  lrSchedulerType: 'linear',
  warmupSteps: 0,
  warmupRatio: 0,
  numTrainEpochs: 3,
  maxSteps: -1,
  perDeviceTrainBatchSize: 8,
  perDeviceEvalBatchSize: 8,
  gradientAccumulationSteps: 1,
  weightDecay: 0,
  adamBeta1: 0.9,
  adamBeta2: 0.999,
  adamEpsilon: 1e-8,
  maxGradNorm: 1,
  gradientCheckpointing: true,
  seed: 42,
  loggingSteps: 1,
  evalStrategy: 'no',
  evalSteps: 100,
  saveStrategy: 'steps',
  saveSteps: 500,
  saveTotalLimit: null,
  loadBestModelAtEnd: false,
  earlyStoppingPatience: null,
} as const satisfies Partial<TrainingArguments>

export const defaultLearningRate = { lora: 2e-4, full: 2e-5 }

/** Arguments that do not change the numbers of a run up to a given step, so a resumed run may have others. */
const freeToChange: ReadonlySet<string> = new Set<keyof TrainingArguments>([
  'outputDir',
  'loggingSteps',
  'saveStrategy',
  'saveSteps',
  'saveTotalLimit',
  'perDeviceEvalBatchSize',
  'numTrainEpochs',
  'maxSteps',
  'loadBestModelAtEnd',
])

/** The arguments that decide the numbers of a run. */
export const decisive = (args: object): Record<string, unknown> =>
  Object.fromEntries(Object.entries(args).filter(([key, value]) => !freeToChange.has(key) && value !== undefined))

/** Throws OptionError for an option or an argument of an unknown name, and for a model that is none. */
export function checkTrainerOptions(
  options: { readonly model: unknown; readonly args: unknown },
  known: readonly string[],
  knownArguments: readonly string[],
): void {
  checkKeys(options, ['model', 'trainDataset', 'evalDataset', 'peft', 'args', 'onWarning', ...known], 'trainer')
  if (!(options.model instanceof LanguageModel))
    throw new OptionError(`model: wanted what loadModel gives, got ${shown(options.model)}`)
  checkKeys(options.args, ['outputDir', 'learningRate', ...Object.keys(trainingDefaults), ...knownArguments], 'args')
}

/** Throws OptionError naming the first argument that is out of range or goes badly with another. */
export function checkTrainingArguments(args: Required<TrainingArguments>, hasEvalDataset: boolean): void {
  const whole = Number.isInteger
  check(args, ['learningRate', 'numTrainEpochs', 'adamEpsilon'], (v) => v > 0 && v < Infinity, 'a positive number')
  check(args, ['weightDecay', 'maxGradNorm'], (v) => v >= 0 && v < Infinity, 'a number from 0')
  check(args, ['adamBeta1', 'adamBeta2', 'warmupRatio'], (v) => v >= 0 && v < 1, 'within 0 and 1')
  check(args, ['warmupSteps'], (v) => whole(v) && v >= 0, 'an integer from 0')
  check(args, ['maxSteps'], whole, 'an integer')
  check(args, ['seed'], (v) => whole(v) && v >= 0 && v < 2 ** 32, 'an integer from 0 to 2^32 - 1')
  check(
    args,
    [
      'perDeviceTrainBatchSize',
      'perDeviceEvalBatchSize',
      'gradientAccumulationSteps',
      'loggingSteps',
      'evalSteps',
      'saveSteps',
      'saveTotalLimit',
      'earlyStoppingPatience',
    ],
    (v) => whole(v) && v > 0,
    'a positive integer',
  )
  checkWord(args.lrSchedulerType, schedules, 'lrSchedulerType')
  checkWord(args.evalStrategy, ['no', 'steps', 'epoch'], 'evalStrategy')
  checkWord(args.saveStrategy, ['no', 'steps', 'epoch'], 'saveStrategy')
  if (args.outputDir !== null && !args.outputDir)
    throw new OptionError('outputDir: where should the result go? (null: nowhere, it stays on the model)')
  if (args.outputDir === null && args.loadBestModelAtEnd)
    throw new OptionError('loadBestModelAtEnd needs an outputDir: the best is read from its checkpoint')
  const evaluates = args.evalStrategy !== 'no'
  if (evaluates && !hasEvalDataset) throw new OptionError(`evalStrategy '${args.evalStrategy}' needs an evalDataset`)
  if (args.loadBestModelAtEnd && (!evaluates || args.saveStrategy === 'no'))
    throw new OptionError("loadBestModelAtEnd needs evalStrategy and saveStrategy 'steps' or 'epoch'")
  if (args.earlyStoppingPatience !== null && !evaluates)
    throw new OptionError("earlyStoppingPatience needs evalStrategy 'steps' or 'epoch'")
}

/** Throws OptionError unless each of these is null or a number that fits. */
export function check<T extends object>(
  args: T,
  keys: readonly (keyof T & string)[],
  fits: (value: number) => boolean,
  what: string,
): void {
  for (const key of keys) {
    const value = args[key]
    if (value !== null && !(typeof value === 'number' && fits(value)))
      throw new OptionError(`${key}: ${shown(value)} is not ${what}`)
  }
}
