import { epochOrder } from '../data/order.ts'
import { bucketLength, packBins, scoredTokens } from '../data/pack.ts'
import type { RowSource } from '../data/rows.ts'
import { type Example, tokenizeRows } from '../data/tokenize.ts'
import { DataError } from '../errors.ts'
import type { LanguageModel } from '../generate/language-model.ts'
import { checkWord } from '../options.ts'
import { check } from './arguments.ts'

/** How rows become tokens: TRL's SFTConfig in camelCase, with its defaults. */
export interface RowArguments {
  /** Tokens of a row at most; default 1024. */
  readonly maxLength?: number
  /** Longer rows lose their end (`keep_start`, the default), are an error, or are left out. */
  readonly truncationMode?: 'keep_start' | 'error' | 'skip'
  /** Put short rows together up to maxLength; they do not see one another. Default false. */
  readonly packing?: boolean
  /** Of prompt + completion, score the completion alone. Default true. */
  readonly completionOnlyLoss?: boolean
  /** Of messages, score what the assistant says alone. Default true. */
  readonly assistantOnlyLoss?: boolean
  /** Which column holds what: `{question: 'problem', answer: 'solution'}`. */
  readonly columns?: Readonly<Record<string, string>>
  /** `random` (default): another order each epoch; `sequential` keeps the rows in order. */
  readonly trainSamplingStrategy?: 'random' | 'sequential'
}

export const rowDefaults = {
  maxLength: 1024,
  truncationMode: 'keep_start',
  packing: false,
  trainSamplingStrategy: 'random',
} as const satisfies RowArguments

/** Names of all of them. */
export const rowArguments: readonly (keyof RowArguments)[] = [
  ...(Object.keys(rowDefaults) as (keyof typeof rowDefaults)[]),
  'completionOnlyLoss',
  'assistantOnlyLoss',
  'columns',
]

/** With the defaults filled in; what depends on the rows stays open. */
export type RowSettings = RowArguments & Required<Pick<RowArguments, keyof typeof rowDefaults>>

/** Throws OptionError. */
export function checkRowArguments(args: RowSettings): void {
  check(args, ['maxLength'], (v) => Number.isInteger(v) && v > 0, 'a positive integer')
  checkWord(args.truncationMode, ['keep_start', 'error', 'skip'], 'truncationMode')
  checkWord(args.trainSamplingStrategy, ['random', 'sequential'], 'trainSamplingStrategy')
}

/** Every row as tokens; `onRow` is told how many are read. Throws DataError naming the row, or the source that has none. */
export async function readExamples(
  { tokenizer, chatTemplate, model }: LanguageModel,
  dataset: RowSource,
  { maxLength, truncationMode, completionOnlyLoss, assistantOnlyLoss, columns }: RowSettings,
  warn?: (message: string) => void,
  onRow?: (rows: number) => void,
): Promise<Example[]> {
  const examples: Example[] = []
  const rows = tokenizeRows(dataset, tokenizer, chatTemplate, {
    maxLength: Math.min(maxLength, model.config.maxPositionEmbeddings),
    truncationMode,
    completionOnlyLoss,
    assistantOnlyLoss,
    columns,
    warn,
  })
  for await (const example of rows) {
    examples.push(example)
    onRow?.(examples.length)
  }
  if (examples.length === 0) throw new DataError(`${typeof dataset === 'string' ? dataset : 'dataset'}: no rows`)
  return examples
}

/** What is shuffled: rows, or the bins that packing makes of them. */
export type Unit = readonly Example[]

export const unitsOf = (examples: readonly Example[], { packing, maxLength }: RowSettings): Unit[] =>
  packing ? packBins(examples, maxLength) : examples.map((example) => [example])

export interface BatchSettings {
  readonly perDeviceTrainBatchSize: number
  readonly gradientAccumulationSteps: number
  readonly seed: number
  readonly trainSamplingStrategy: 'random' | 'sequential'
}

/** Optimizer steps of one pass over the units. */
export const stepsPerEpoch = (units: readonly Unit[], b: BatchSettings): number =>
  Math.ceil(Math.ceil(units.length / b.perDeviceTrainBatchSize) / b.gradientAccumulationSteps)

/** The micro-batches of optimizer step `step` (from 0): units of `perDeviceTrainBatchSize`, in their epoch's order. */
export function stepBatches(units: readonly Unit[], step: number, b: BatchSettings): Example[][] {
  const steps = stepsPerEpoch(units, b)
  const [epoch, stepInEpoch] = [Math.floor(step / steps), step % steps]
  const { perDeviceTrainBatchSize: size, gradientAccumulationSteps, seed, trainSamplingStrategy } = b
  const order =
    trainSamplingStrategy === 'sequential' ? Uint32Array.from(units.keys()) : epochOrder(units.length, seed, epoch)
  const perStep = size * gradientAccumulationSteps
  const mine = [...order.slice(stepInEpoch * perStep, (stepInEpoch + 1) * perStep)].map((i) => units[i])
  return Array.from({ length: Math.ceil(mine.length / size) }, (_, i) => mine.slice(i * size, (i + 1) * size).flat())
}

/** The largest micro-batch that can come up, in padded tokens and scored rows. */
export function largestBatch(units: readonly Unit[], size: number): { tokens: number; scored: number } {
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
