import { datasetHash } from '../data/dataset-hash.ts'
import { epochOrder } from '../data/order.ts'
import { bucketLength, type PackedBatch, packBins, scoredTokens } from '../data/pack.ts'
import type { RowSource } from '../data/rows.ts'
import { type Example, tokenizeRows } from '../data/tokenize.ts'
import { DataError } from '../errors.ts'
import type { LanguageModel } from '../generate/language-model.ts'
import { meanLoss } from '../generate/score.ts'
import type { TrainerOptions } from './arguments.ts'
import type { RowSettings, SFTSettings } from './config.ts'
import type { Run, TrainOptions } from './run.ts'

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

/** The rows of a run as tokens. */
export interface TrainingRows {
  readonly examples: readonly Example[]
  /** What is shuffled: rows, or the bins that packing makes of them. */
  readonly units: readonly Unit[]
  readonly held: readonly Example[]
}
type Unit = readonly Example[]

/** Reads a trainer's rows. Throws DataError naming the row, or the signal's reason. */
export async function readTrainingRows(
  { model, trainDataset, evalDataset, onWarning }: TrainerOptions<unknown>,
  args: SFTSettings,
  { signal, onProgress }: TrainOptions,
): Promise<TrainingRows> {
  const read = (dataset: RowSource) =>
    readExamples(model, dataset, args, onWarning, (rows) => {
      signal?.throwIfAborted()
      onProgress?.({ phase: 'reading', rows })
    })
  const examples = await read(trainDataset)
  const held = evalDataset ? await read(evalDataset) : []
  return { examples, units: args.packing ? packBins(examples, args.maxLength) : examples.map((one) => [one]), held }
}

/** What a run has to know of its rows before the first step. */
export const setupOf = ({ units }: TrainingRows, args: SFTSettings) => ({
  stepsPerEpoch: stepsPerEpoch(units, args),
  largest: largestBatch(units, args.perDeviceTrainBatchSize),
  decisive: { rows: units.length, dataset: datasetHash(units.flat()) },
})

/** The mean loss of the rows that were held out. */
export async function heldOutLoss({ model, programs, at }: Run, { held }: TrainingRows): Promise<{ evalLoss: number }> {
  const onProgress = (rows: number) => at.onProgress?.({ phase: 'evaluating', rows, totalRows: held.length })
  return { evalLoss: await meanLoss(model.model, held, { signal: at.signal, programs, onProgress }) }
}

export const tokensOf = (batches: readonly (readonly Example[])[]): number =>
  batches.flat().reduce((n, { inputIds }) => n + inputIds.length, 0)

/** What each scored row of a step weighs in its mean, and 0 for the padding of a micro-batch. */
export function meanWeights(batches: readonly (readonly Example[])[]): (batch: PackedBatch) => Float32Array {
  const weight = 1 / batches.flat().reduce((n, example) => n + scoredTokens(example), 0)
  return ({ rows }) => Float32Array.from(rows, (row) => (row < 0 ? 0 : weight))
}

/** Optimizer steps of one pass over the units. */
const stepsPerEpoch = (units: readonly Unit[], b: SFTSettings): number =>
  Math.ceil(Math.ceil(units.length / b.perDeviceTrainBatchSize) / b.gradientAccumulationSteps)

/** The micro-batches of optimizer step `step` (from 0): units of `perDeviceTrainBatchSize`, in their epoch's order. */
export function stepBatches({ units }: TrainingRows, step: number, b: SFTSettings): Example[][] {
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
function largestBatch(units: readonly Unit[], size: number): { tokens: number; scored: number } {
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
