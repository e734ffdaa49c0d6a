import { ContextError } from '../errors.ts'
import type { Graph, Tensor } from '../graph/graph.ts'
import { cachedHidden, cacheName, headWeight } from '../model/decoder.ts'
import type { Model } from '../model/model.ts'
import { fill, kvCopy, linear, type SamplePenalties, sample, topLogProbs } from '../ops/index.ts'
import { uniform } from '../random.ts'
import type { RunInputs, RunOutputs } from '../target.ts'
import { countsName, type KeyValueCache } from './cache.ts'
import type { Request } from './request.ts'
import { type Edit, hasPenalties, logitEdits, type Sampling } from './sampling.ts'

/** One sequence being generated; its place in the list of sequences is its slot. */
export interface Sequence
  extends Pick<Request, 'promptIds' | 'sampling' | 'stream'>,
    Partial<Pick<Request, 'topLogProbs' | 'adapter'>> {
  /** The answer so far; its last token is not in the cache yet. */
  readonly drawn: number[]
  /** Tokens whose keys and values are in the cache. */
  cached: number
  /** Tokens of the answer that the sampler's counts of this slot hold; -1: they are those of something else. */
  counted: number
}

/** The likeliest tokens, with natural logarithms of the full softmax at temperature 1, before penalties. */
export interface TopLogProbs {
  readonly ids: readonly number[]
  readonly logProbs: readonly number[]
}

export interface Sampled {
  readonly id: number
  /** Natural logarithm, under the full softmax at the sampling temperature (at 1 when greedy). */
  readonly logProb: number
  readonly top?: TopLogProbs
}

/** Rows of a chunk of a prompt, at most. */
export const chunkRows = 256
/** Sizes come in buckets, so that few Programs are compiled. */
export const rowBucket = (n: number): number => 2 ** Math.ceil(Math.log2(n))
/** Tokens of a prompt run as whole eighths of the next power of two, at least 8: what pads them is computed too. */
function prefillBucket(n: number): number {
  const unit = Math.max(8, rowBucket(n) / 8)
  return Math.ceil(n / unit) * unit
}
const editBucket = (n: number): number => (n === 0 ? 1 : Math.max(64, rowBucket(n)))

/** Feeds tokens of a slot in chunks for their keys and values. `sequence.cached` advances chunk by chunk. */
export async function feed(
  model: Model,
  cache: KeyValueCache,
  slot: number,
  sequence: Pick<Sequence, 'cached' | 'adapter'>,
  ids: readonly number[],
  signal?: AbortSignal,
): Promise<void> {
  await makeRoom(model, cache, sequence.cached + ids.length)
  for (let at = 0; at < ids.length; at += chunkRows) {
    const chunk = ids.slice(at, at + chunkRows)
    const rows = prefillBucket(chunk.length)
    const executable = await cache.program(`prefill ${rows}`, (g) => {
      hiddenOf(g, model, cache, rows, g.input('slot', { dtype: 'i32', shape: [1] }))
    })
    const inputs = {
      ids: Int32Array.from({ length: rows }, (_, i) => chunk[i] ?? 0),
      positions: Int32Array.from({ length: rows }, (_, i) => (i < chunk.length ? sequence.cached + i : -1)),
      slot: Int32Array.of(slot),
      ...adapterInputs(model, rows, () => sequence.adapter),
    }
    await executable.run(inputs, { signal })
    sequence.cached += chunk.length
  }
}

/** What rows say where the model has adapters that they choose from. i32[R] */
function adapterInputs(model: Model, rows: number, of: (row: number) => string | undefined) {
  const names = model.adaptersByRow
  if (names.length === 0) return
  return { adapterOf: Int32Array.from({ length: rows }, (_, i) => names.indexOf(of(i) ?? '')) }
}

/** One slot's first positions for another: a prompt that several sequences continue is computed once. */
export interface SlotCopy {
  readonly from: number
  readonly to: number
  readonly length: number
}

/** Carries out copies one after the other. */
export async function copySlots(model: Model, cache: KeyValueCache, copies: readonly SlotCopy[]): Promise<void> {
  if (copies.length === 0) return
  const m = rowBucket(copies.length)
  const executable = await cache.program(`copy ${m}`, (g) => {
    const [from, to, length] = ['from', 'to', 'length'].map((name) => g.input(name, { dtype: 'i32', shape: [m] }))
    for (let layer = 0; layer < model.config.numHiddenLayers; layer++)
      for (const part of ['k', 'v'] as const) kvCopy(g, g.state(cacheName(part, layer), cache.type), from, to, length)
  })
  const i32 = (of: (copy: SlotCopy) => number, pad: number) =>
    Int32Array.from({ length: m }, (_, i) => (copies[i] ? of(copies[i]) : pad))
  await executable.run({ from: i32((c) => c.from, -1), to: i32((c) => c.to, 0), length: i32((c) => c.length, 0) })
}

/**
 * The next `steps` tokens of each sequence: row i is slot i. What comes after a token that ends a sequence is to be thrown away; a
 * sequence that may have fewer tokens (`room`) is padding from then on.
 */
export async function decode<S extends Sequence>(
  model: Model,
  cache: KeyValueCache,
  sequences: readonly S[],
  { steps = 1, room = () => steps, signal }: DecodeOptions<S> = {},
): Promise<Sampled[][]> {
  const own = sequences.map((s) => Math.min(steps, room(s)))
  await makeRoom(model, cache, Math.max(...sequences.map((s, i) => s.cached + own[i])))
  const rows = Math.min(rowBucket(sequences.length), cache.slots)
  const edits = sequences.flatMap(({ sampling }, row) => logitEdits(sampling).map((edit) => ({ row, ...edit })))
  const shape: SamplerShape = {
    edits: editBucket(edits.length),
    top: Math.max(0, ...sequences.map((s) => s.topLogProbs ?? 0)),
    penalizes: sequences.some(({ sampling }) => hasPenalties(sampling)),
  }
  if (shape.penalizes) await writeCounts(model, cache, sequences)
  const executable = await cache.program(`decode ${rows}, ${JSON.stringify(shape)}`, (g) => {
    const hidden = hiddenOf(g, model, cache, rows) // [R, C]
    sampler(g, linear(g, hidden, headWeight(g, model.context()), undefined, cache.activations), cache, shape)
  })
  const inputs = {
    ids: Int32Array.from({ length: rows }, (_, i) => sequences[i]?.drawn.at(-1) ?? sequences[i]?.promptIds.at(-1) ?? 0),
    positions: Int32Array.from({ length: steps * rows }, (_, at) => {
      const [step, i] = [Math.floor(at / rows), at % rows]
      return i < sequences.length && step < own[i] ? sequences[i].cached + step : -1
    }),
    ...adapterInputs(model, rows, (i) => sequences[i]?.adapter),
    ...samplerInputs(sequences, rows, steps, edits, shape),
  }
  const out = await executable.run(inputs, { steps, ...(steps > 1 && { carry: { ids: 'id' } }), signal })
  return sequences.map((s, i) => {
    s.cached += own[i]
    s.counted = shape.penalizes ? s.counted + steps : -1
    return Array.from({ length: own[i] }, (_, step) => sampledOf(s, out, step * rows + i, shape.top))
  })
}

export interface DecodeOptions<S extends Sequence> {
  readonly steps?: number
  /** Tokens that a sequence may have at most; default `steps`. */
  readonly room?: (sequence: S) => number
  readonly signal?: AbortSignal
}

async function makeRoom(model: Model, cache: KeyValueCache, positions: number): Promise<void> {
  const limit = model.config.maxPositionEmbeddings
  if (positions > limit)
    throw new ContextError(
      `${positions} tokens do not fit in the model's context of ${limit} (shorten the prompt, or use contextOverflow: 'dropOldest' in a chat)`,
    )
  await cache.reserve(positions)
}

function sampledOf({ topLogProbs: k = 0 }: Sequence, out: RunOutputs, at: number, top: number): Sampled {
  const first = <T extends Int32Array | Float32Array>(all: T) => [...all.subarray(at * top, at * top + k)]
  return {
    id: out.id[at],
    logProb: out.logProb[at],
    ...(k > 0 && { top: { ids: first(out.topIds), logProbs: first(out.topLogProbs) } }),
  }
}

/** Rows of a decode step, row r is slot r, or with `slot` a chunk of one slot. [R, C] */
function hiddenOf(g: Graph, model: Model, cache: KeyValueCache, rows: number, slot?: Tensor): Tensor {
  const i32 = (name: string) => g.input(name, { dtype: 'i32', shape: [rows] })
  const { activations } = cache
  const c = { ...model.context(), activations, ...(model.adaptersByRow.length > 0 && { adapterOf: i32('adapterOf') }) }
  return cachedHidden(g, c, i32('ids'), i32('positions'), cache.type, slot)
}

/** Where the counts of a slot are not those of its sequence, they are written: once a sequence, as a rule. */
async function writeCounts(model: Model, cache: KeyValueCache, sequences: readonly Sequence[]): Promise<void> {
  for (const [slot, s] of sequences.entries()) {
    if (!hasPenalties(s.sampling) || s.counted === s.drawn.length) continue
    const counts = new Int32Array(model.config.vocabSize)
    for (const id of s.promptIds) counts[id] = 1
    for (const id of s.drawn) counts[id] += 2
    await cache.writeCounts(slot, counts)
    s.counted = s.drawn.length
  }
}

/** What decides a sampler's Program. */
interface SamplerShape {
  readonly edits: number
  readonly top: number
  readonly penalizes: boolean
}

/** `logits` [S, V] */
function sampler(g: Graph, logits: Tensor, cache: KeyValueCache, { edits, top, penalizes }: SamplerShape): void {
  const [rows] = logits.shape
  const i32 = (name: string, n: number) => g.input(name, { dtype: 'i32', shape: [n] })
  const f32 = (name: string, ...shape: number[]) => g.input(name, { dtype: 'f32', shape })
  const controls = {
    temperature: f32('temperature', rows),
    topK: i32('topK', rows),
    topP: f32('topP', rows),
    minP: f32('minP', rows),
    uniform: f32('uniform', rows),
    editRow: i32('editRow', edits),
    editId: i32('editId', edits),
    editBias: f32('editBias', edits),
  }
  const seen: SamplePenalties | undefined = penalizes
    ? { penalties: f32('penalties', rows, 3), counts: g.state(countsName, cache.countsType) }
    : undefined
  const [id, logProb] = sample(g, logits, controls, seen)
  g.output('id', id)
  g.output('logProb', logProb)
  if (top === 0) return
  const [topIds, topLogs] = topLogProbs(g, logits, fill(g, [1], 1), top)
  g.output('topIds', topIds)
  g.output('topLogProbs', topLogs)
}

function samplerInputs(
  sequences: readonly Sequence[],
  rows: number,
  steps: number,
  edits: readonly (Edit & { row: number })[],
  shape: SamplerShape,
): RunInputs {
  const floats = (of: (s: Sampling) => number, pad: number) =>
    Float32Array.from({ length: rows }, (_, i) => (sequences[i] ? of(sequences[i].sampling) : pad))
  const i32 = (of: (edit: Edit & { row: number }) => number, pad: number) =>
    Int32Array.from({ length: shape.edits }, (_, i) => (edits[i] ? of(edits[i]) : pad))
  return {
    temperature: floats((s) => s.temperature, 0),
    topK: Int32Array.from({ length: rows }, (_, i) => sequences[i]?.sampling.topK ?? 0),
    topP: floats((s) => s.topP, 1),
    minP: floats((s) => s.minP, 0),
    // One uniform a token, keyed by what it is for and by nothing that depends on the batch. [steps, rows]
    uniform: Float32Array.from({ length: steps * rows }, (_, at) => {
      const s = sequences[at % rows]
      return s ? uniform(s.sampling.seed, ...s.stream, s.cached + 1 + Math.floor(at / rows)) : 0
    }),
    editRow: i32(({ row }) => row, -1),
    editId: i32(({ id }) => id, 0),
    editBias: Float32Array.from({ length: shape.edits }, (_, i) => edits[i]?.bias ?? 0),
    ...(shape.penalizes && {
      // [rows, 3]
      penalties: Float32Array.from(
        Array.from({ length: rows }, (_, i) => {
          const s = sequences[i]?.sampling
          return s ? [s.repetitionPenalty, s.frequencyPenalty, s.presencePenalty] : [1, 0, 0]
        }).flat(),
      ),
    }),
  }
}
