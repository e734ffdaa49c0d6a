import { notScored, type PackedBatch, packBatch, scoredTokens } from '../data/pack.ts'
import type { Example } from '../data/tokenize.ts'
import { ContextError, NumericError } from '../errors.ts'
import type { Graph } from '../graph/graph.ts'
import { headWeight, packedHidden } from '../model/decoder.ts'
import { surviving } from '../model/lost.ts'
import type { Model } from '../model/model.ts'
import { Programs } from '../model/programs.ts'
import { type Activations, gatherRows, vocabPick } from '../ops/index.ts'
import type { Tokenizer } from '../text/tokenizer.ts'
import { checkTokenIds } from './sampling.ts'

/** Rows of at most this many tokens together are scored in one run. */
const maxPackedTokens = 1024

/** What `scoreExamples` takes. */
export interface ScoreOptions {
  /** Of the softmax; default 1. */
  readonly temperature?: number
  /** Leaves the last active adapter out: the reference of reinforcement learning. */
  readonly withoutLastAdapter?: boolean
  /** Of products with quantized weights; default f32. int8: as answers are computed where the target has kernels for it. */
  readonly activations?: Activations
  readonly signal?: AbortSignal
  /** Told how many examples are scored. */
  readonly onProgress?: (examples: number) => void
}

/**
 * Log-probabilities of the scored tokens (labels other than -100) of each example, in order, under the full softmax.
 * The first token of a row has no prediction and is never scored.
 */
export async function scoreExamples(
  model: Model,
  examples: readonly Example[],
  options: ScoreOptions & { programs?: Programs } = {},
): Promise<Float32Array[]> {
  const { onProgress, programs = new Programs(model), temperature = 1 } = options
  const results: Float32Array[] = []
  for (const batch of packs(model, examples)) {
    const logProbs = await scorePacked(model, programs, packBatch(batch), temperature, options)
    let row = 0
    for (const example of batch) {
      const own = logProbs.slice(row, row + scoredTokens(example))
      if (!own.every(Number.isFinite))
        throw new NumericError(
          `row ${example.row}: its log-probabilities are not finite (broken weights, or an adapter that diverged?)`,
        )
      results.push(own)
      row += own.length
    }
    onProgress?.(results.length)
  }
  return results
}

/**
 * Examples that go through the model together: as many as have 1,024 tokens at most, or one.
 *
 * @throws ContextError for an example that does not fit, OptionError for ids that the vocabulary does not have, before the first
 */
export function* packs(model: Model, examples: readonly Example[]): Generator<Example[]> {
  const { vocabSize, maxPositionEmbeddings } = model.config
  for (const { inputIds, labels, row } of examples) {
    checkTokenIds(inputIds, vocabSize, `row ${row}`)
    checkTokenIds(
      labels.filter((label) => label !== notScored),
      vocabSize,
      `row ${row}, labels`,
    )
    if (inputIds.length > maxPositionEmbeddings)
      throw new ContextError(
        `row ${row}: ${inputIds.length} tokens do not fit in the model's context of ${maxPositionEmbeddings}`,
      )
  }
  for (let at = 0, end = 0; at < examples.length; at = end) {
    let tokens = 0
    while (end < examples.length && (end === at || tokens + examples[end].inputIds.length <= maxPackedTokens))
      tokens += examples[end++].inputIds.length
    yield examples.slice(at, end)
  }
}

/**
 * A text as windows that follow each other, each scored by itself: of `window` tokens at most, the beginning-of-sequence token in front of
 * each where the tokenizer puts one in front of a text. Of the text's own tokens, no more than `maxTokens`.
 */
export function textWindows(
  tokenizer: Tokenizer,
  text: string,
  window = 512,
  maxTokens = Number.POSITIVE_INFINITY,
): Example[] {
  const all = tokenizer.encode(text, { addSpecialTokens: true })
  const front = all[0] !== undefined && all[0] === tokenizer.bosTokenId ? [all[0]] : []
  const own = all.slice(front.length, front.length + maxTokens)
  const windows: Example[] = []
  for (let at = 0; at < own.length; at += window - front.length) {
    const inputIds = [...front, ...own.slice(at, at + window - front.length)]
    // One token alone has nothing before it.
    if (inputIds.length > 1) windows.push({ inputIds, labels: inputIds, row: windows.length })
  }
  return windows
}

/** Mean cross-entropy of the scored tokens, nats. */
export async function meanLoss(
  model: Model,
  examples: readonly Example[],
  options: ScoreOptions & { programs?: Programs } = {},
): Promise<number> {
  const logProbs = await scoreExamples(model, examples, options)
  const count = logProbs.reduce((n, row) => n + row.length, 0)
  return -logProbs.reduce((total, row) => row.reduce((a, b) => a + b, total), 0) / count
}

async function scorePacked(
  model: Model,
  programs: Programs,
  batch: PackedBatch,
  temperature: number,
  { withoutLastAdapter = false, activations = 'f32', signal }: ScoreOptions,
): Promise<Float32Array> {
  const [n, r] = [batch.ids.length, batch.rows.length]
  const key = `score ${n} ${r} ${activations}${withoutLastAdapter ? ' without the last adapter' : ''}`
  const { ids, positions, starts, rows, targets } = batch
  const inputs = { ids, positions, starts, rows, targets, temperature: Float32Array.of(temperature) }
  return surviving(model, async () => {
    const executable = await programs.get(key, (g) => buildScore(g, model, n, r, withoutLastAdapter, activations))
    return (await executable.run(inputs, { signal })).logProbs as Float32Array
  })
}

function buildScore(
  g: Graph,
  model: Model,
  n: number,
  r: number,
  withoutLastAdapter: boolean,
  activations: Activations,
): void {
  const i32 = (name: string, ...shape: number[]) => g.input(name, { dtype: 'i32', shape })
  const all = { ...model.context(), activations }
  const c = withoutLastAdapter ? { ...all, adapters: all.adapters.slice(0, -1) } : all
  const hidden = packedHidden(g, c, i32('ids', n), i32('positions', n), i32('starts', n)) // [N, C]
  const scored = gatherRows(g, hidden, i32('rows', r)) // [R, C]
  const [logProbs] = vocabPick(
    g,
    scored,
    headWeight(g, c),
    i32('targets', r, 1),
    g.input('temperature', { dtype: 'f32', shape: [1] }),
    activations,
  )
  g.output('logProbs', logProbs)
}
