import { OptionError } from '../errors.ts'
import type { Schedule } from './schedule.ts'

/** What every trainer takes: transformers' TrainingArguments in camelCase, with its defaults where nothing else is said. */
export interface TrainingArguments {
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
  readonly weightDecay?: number
  readonly adamBeta1?: number
  readonly adamBeta2?: number
  readonly adamEpsilon?: number
  readonly maxGradNorm?: number
  /** Recompute each layer in the reverse pass: about a third slower, memory of one layer instead of all. */
  readonly gradientCheckpointing?: boolean
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
  if (!args.outputDir) throw new OptionError('outputDir: where should the result go?')
  const evaluates = args.evalStrategy !== 'no'
  if (evaluates && !hasEvalDataset) throw new OptionError(`evalStrategy '${args.evalStrategy}' needs an evalDataset`)
  if (args.loadBestModelAtEnd && (!evaluates || args.saveStrategy === 'no'))
    throw new OptionError("loadBestModelAtEnd needs evalStrategy and saveStrategy 'steps' or 'epoch'")
  if (args.earlyStoppingPatience !== null && !evaluates)
    throw new OptionError("earlyStoppingPatience needs evalStrategy 'steps' or 'epoch'")
}

/** Throws OptionError unless each of these is null or fits. */
export function check<T extends object>(
  args: T,
  keys: readonly (keyof T & string)[],
  fits: (value: number) => boolean,
  what: string,
): void {
  for (const key of keys) {
    const value = args[key]
    if (value !== null && !fits(value as number)) throw new OptionError(`${key}: ${value} is not ${what}`)
  }
}
