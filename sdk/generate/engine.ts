import { ContextError, NumericError } from '../errors.ts'
import type { Graph } from '../graph/graph.ts'
import { cachedHidden, cacheName, headWeight } from '../model/decoder.ts'
import type { Model } from '../model/model.ts'
import { fill, gatherRows, kvCopy, linear, sample, topLogProbs } from '../ops/index.ts'
import { uniform } from '../random.ts'
import type { RunInputs } from '../target.ts'
import type { KeyValueCache } from './cache.ts'
import { type Edit, logitEdits, type Sampling } from './sampling.ts'

/** One sequence being generated: where its keys and values are, and what its sampler remembers. */
export interface Sequence {
  readonly slot: number
  readonly sampling: Sampling
  /** Distinguishes samples of one seed: (prompt, sample). */
  readonly stream: readonly [prompt: number, sample: number]
  /** Tokens whose keys and values are in the cache. */
  cached: number
  /** Prompt and answer, for the repetition penalty. */
  readonly seen: Set<number>
  /** Answer only, for the frequency and presence penalties. */
  readonly counts: Map<number, number>
  /** So many of the likeliest tokens come with each; default 0. */
  readonly topLogProbs?: number
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

const chunkRows = 256
const rowBucket = (n: number): number => 2 ** Math.ceil(Math.log2(n))
const prefillBucket = (n: number): number => Math.max(16, rowBucket(n))
const editBucket = (n: number): number => (n === 0 ? 1 : Math.max(64, rowBucket(n)))

/** Feeds the prompt in chunks and draws the token after it. `sequence.cached` advances chunk by chunk. */
export async function prefill(
  model: Model,
  cache: KeyValueCache,
  sequence: Sequence,
  ids: readonly number[],
  signal?: AbortSignal,
): Promise<Sampled> {
  await makeRoom(model, cache, sequence.cached + ids.length)
  const last = chunkRows * Math.floor((ids.length - 1) / chunkRows)
  await feed(model, cache, sequence, ids.slice(0, last), signal)
  const chunk = ids.slice(last)
  const inputs = { ...chunkInputs(sequence, chunk), picked: Int32Array.of(chunk.length - 1) }
  const [sampled] = await run(model, cache, inputs.ids.length, 1, inputs, [sequence], signal, chunk.length)
  sequence.cached += chunk.length
  return sampled
}

/** Feeds tokens in chunks for their keys and values alone. `sequence.cached` advances chunk by chunk. */
export async function feed(
  model: Model,
  cache: KeyValueCache,
  sequence: Pick<Sequence, 'slot' | 'cached'>,
  ids: readonly number[],
  signal?: AbortSignal,
): Promise<void> {
  await makeRoom(model, cache, sequence.cached + ids.length)
  for (let at = 0; at < ids.length; at += chunkRows) {
    const chunk = ids.slice(at, at + chunkRows)
    const inputs = chunkInputs(sequence, chunk)
    await run(model, cache, inputs.ids.length, 0, inputs, [], signal)
    sequence.cached += chunk.length
  }
}

function chunkInputs({ slot, cached }: Pick<Sequence, 'slot' | 'cached'>, chunk: readonly number[]) {
  const rows = prefillBucket(chunk.length)
  return {
    ids: Int32Array.from({ length: rows }, (_, i) => chunk[i] ?? 0),
    positions: Int32Array.from({ length: rows }, (_, i) => (i < chunk.length ? cached + i : -1)),
    slots: new Int32Array(rows).fill(slot),
  }
}

/** One slot's first positions for others: a prompt that several sequences continue is computed once. */
export interface SlotCopy {
  readonly from: number
  readonly to: number
  readonly length: number
}

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

/** One token further for each sequence; `ids[i]` is the last token of `sequences[i]`, not yet in the cache. */
export async function decode(
  model: Model,
  cache: KeyValueCache,
  sequences: readonly Sequence[],
  ids: readonly number[],
  signal?: AbortSignal,
): Promise<Sampled[]> {
  await makeRoom(model, cache, Math.max(...sequences.map((s) => s.cached)) + 1)
  const rows = rowBucket(sequences.length)
  const inputs: RunInputs = {
    ids: Int32Array.from({ length: rows }, (_, i) => ids[i] ?? 0),
    positions: Int32Array.from({ length: rows }, (_, i) => sequences[i]?.cached ?? -1),
    slots: Int32Array.from({ length: rows }, (_, i) => sequences[i]?.slot ?? 0),
  }
  const sampled = await run(model, cache, rows, rows, inputs, sequences, signal, 1)
  for (const s of sequences) s.cached++
  return sampled
}

async function makeRoom(model: Model, cache: KeyValueCache, positions: number): Promise<void> {
  const limit = model.config.maxPositionEmbeddings
  if (positions > limit)
    throw new ContextError(
      `${positions} tokens do not fit in the model's context of ${limit} (shorten the prompt, or use contextOverflow: 'dropOldest' in a chat)`,
    )
  await cache.reserve(positions)
}

/** `logitRows` is 0 (keys and values only), 1 (the row in `picked`) or all rows. */
async function run(
  model: Model,
  cache: KeyValueCache,
  rows: number,
  logitRows: number,
  inputs: RunInputs,
  sequences: readonly Sequence[],
  signal?: AbortSignal,
  ahead = 0,
): Promise<Sampled[]> {
  const edits = sequences.flatMap((s, row) => logitEdits(s.sampling, s.seen, s.counts).map((e) => ({ row, ...e })))
  const editRows = editBucket(edits.length)
  const pick = logitRows !== 0 && logitRows !== rows
  const top = Math.max(0, ...sequences.map((s) => s.topLogProbs ?? 0))
  const key = logitRows === 0 ? `prefill ${rows}` : `sample ${logitRows} of ${rows}, ${editRows} edits, top ${top}`
  const executable = await cache.program(key, (g) => build(g, model, cache, rows, logitRows, editRows, top))
  if (logitRows === 0) {
    await executable.run(inputs, { signal })
    return []
  }
  const all = { ...inputs, ...samplerInputs(sequences, logitRows, edits, editRows, ahead) }
  if (!pick) delete (all as Record<string, unknown>).picked
  const out = await executable.run(all, { signal })
  const [id, logProb] = [out.id as Int32Array, out.logProb as Float32Array]
  const broken = sequences.findIndex((_, i) => !Number.isFinite(logProb[i]))
  if (broken >= 0)
    throw new NumericError(
      `token ${sequences[broken].cached + ahead}: the logits are not finite (broken weights, or an adapter that diverged in training?)`,
    )
  const [topIds, topLogProbs] = [out.topIds as Int32Array, out.topLogProbs as Float32Array]
  const topOf = (i: number, k: number): TopLogProbs => ({
    ids: [...topIds.subarray(i * top, i * top + k)],
    logProbs: [...topLogProbs.subarray(i * top, i * top + k)],
  })
  return sequences.map(({ topLogProbs: k = 0 }, i) => ({
    id: id[i],
    logProb: logProb[i],
    ...(k > 0 && { top: topOf(i, k) }),
  }))
}

function build(
  g: Graph,
  model: Model,
  cache: KeyValueCache,
  rows: number,
  logitRows: number,
  edits: number,
  top: number,
): void {
  const i32 = (name: string, n: number) => g.input(name, { dtype: 'i32', shape: [n] })
  const f32 = (name: string, n: number) => g.input(name, { dtype: 'f32', shape: [n] })
  const c = model.context()
  const hidden = cachedHidden(g, c, i32('ids', rows), i32('positions', rows), i32('slots', rows), cache.type) // [R, C]
  if (logitRows === 0) return
  const scored = logitRows === rows ? hidden : gatherRows(g, hidden, i32('picked', logitRows))
  const logits = linear(g, scored, headWeight(g, c)) // [S, V]
  const [id, logProb] = sample(g, logits, {
    temperature: f32('temperature', logitRows),
    topK: i32('topK', logitRows),
    topP: f32('topP', logitRows),
    minP: f32('minP', logitRows),
    uniform: f32('uniform', logitRows),
    editRow: i32('editRow', edits),
    editId: i32('editId', edits),
    editScale: f32('editScale', edits),
    editBias: f32('editBias', edits),
  })
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
  edits: readonly (Edit & { row: number })[],
  editRows: number,
  ahead: number,
): RunInputs {
  const floats = (of: (s: Sequence) => number, pad: number) =>
    Float32Array.from({ length: rows }, (_, i) => (sequences[i] ? of(sequences[i]) : pad))
  return {
    temperature: floats((s) => s.sampling.temperature, 0),
    topK: Int32Array.from({ length: rows }, (_, i) => sequences[i]?.sampling.topK ?? 0),
    topP: floats((s) => s.sampling.topP, 1),
    minP: floats((s) => s.sampling.minP, 0),
    // One uniform a token, keyed by what it is for and by nothing that depends on the batch.
    uniform: floats((s) => uniform(s.sampling.seed, ...s.stream, s.cached + ahead), 0),
    editRow: Int32Array.from({ length: editRows }, (_, i) => edits[i]?.row ?? -1),
    editId: Int32Array.from({ length: editRows }, (_, i) => edits[i]?.id ?? 0),
    editScale: Float32Array.from({ length: editRows }, (_, i) => edits[i]?.scale ?? 1),
    editBias: Float32Array.from({ length: editRows }, (_, i) => edits[i]?.bias ?? 0),
  }
}
