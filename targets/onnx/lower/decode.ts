import { LOG_ZERO } from '../../../sdk/log-zero.ts'
import type { OnnxGraph } from '../model.ts'
import { byHead, byRow, maskOf } from './attention.ts'
import { atLeastZero, isGiven } from './small.ts'
import { columnsOf, count, type Lowering, type LowerNode, type Operand, rowsOf } from './types.ts'

type Ops = 'attentionCached' | 'kvWrite' | 'sample' | 'topLogProbs' | 'drawTokens'

/** Keys, values and tokens of answers. */
export const decode: Pick<Lowering, Ops> = {
  attentionCached,
  kvWrite,
  sample,
  topLogProbs: (g, { inputs: [logits, temperature], attrs: { k } }) => {
    const z = g.node('Div', [logits.value, temperature.value])
    const [values, ids] = g.nodeOf(2, 'TopK', [z, g.ints(k)], { axis: 1 })
    const top = g.max(z, 1, true)
    const logMass = (x: string) =>
      g.node('Add', [top, g.node('Log', [g.sum(g.node('Exp', [g.node('Sub', [x, top])]), 1, true)])])
    const total = logMass(z)
    const logProbs = g.node('Sub', [values, total])
    if (k === columnsOf(logits)) {
      const none = g.node('Expand', [g.float(LOG_ZERO), g.ints(rowsOf(logits))])
      return [g.cast(ids, 'i32'), logProbs, none]
    }
    const banned = g.node('Expand', [g.float(LOG_ZERO), g.ints(rowsOf(logits), k)])
    const rest = logMass(g.node('ScatterElements', [z, ids, banned], { axis: 1 }))
    return [g.cast(ids, 'i32'), logProbs, g.reshape(g.node('Sub', [rest, total]), [-1])]
  },
  drawTokens: (g, { inputs: [logits, temperature, uniforms] }) => {
    const z = g.node('Div', [logits.value, temperature.value])
    const cumulated = cumulatedMass(g, g.node('Exp', [g.node('Sub', [z, g.max(z, 1, true)])]))
    const draws = columnsOf(uniforms)
    const ids = Array.from({ length: draws }, (_, n) => drawn(g, cumulated, g.slice(uniforms.value, 1, n, n + 1)))
    return [draws === 1 ? ids[0] : g.node('Concat', ids, { axis: 1 })]
  },
}

/** Sums up to each id in f64, [R, V]. */
const cumulatedMass = (g: OnnxGraph, mass: string): string => g.node('CumSum', [g.cast(mass, 'f64'), g.int32(1)])

/** The first id whose cumulated mass exceeds its share [R, 1] of all, i32[R, 1]. */
function drawn(g: OnnxGraph, cumulated: string, share: string): string {
  const all = g.node('ReduceMax', [cumulated, g.ints(1)], { keepdims: 1 })
  const isPast = g.node('Greater', [cumulated, g.node('Mul', [all, g.cast(share, 'f64')])])
  return g.cast(g.node('ArgMax', [g.cast(isPast, 'f32')], { axis: 1 }), 'i32')
}

/** Rows of a cache [S·G·P] that a chunk's or a step's tokens are, i64[R, G, 1], with padding at position 0. */
function places(g: OnnxGraph, cache: Operand, positions: Operand, slot: Operand | undefined): string {
  const [, heads, capacity] = cache.shape
  return g.once(`places ${cache.shape} ${positions.value} ${slot?.value}`, () => {
    const rows = count(positions)
    const slots = slot ? slot.value : g.range(0, rows)
    const first = g.node('Mul', [g.column(slots), g.int32(heads)])
    const head = g.node('Add', [first, g.range(0, heads)])
    const start = g.node('Mul', [head, g.int32(capacity)])
    const at = g.node('Add', [start, g.column(atLeastZero(g, positions))])
    return g.cast(g.reshape(at, [rows, heads, 1]), 'i64')
  })
}

/**
 * A padding row of a step writes what stands in its slot already. Rows of a chunk are of one slot: there it writes what the last
 * token writes. A cache of f16 is held as f32 that f16 can hold.
 */
function kvWrite(g: OnnxGraph, { inputs: [cache, x, positions, slot] }: LowerNode<unknown>): string[] {
  const [slots, heads, capacity, size] = cache.shape
  const rows = count(positions)
  // The cache's own memory under another shape, so that what is scattered stays in place; a step sees no more slots than it has rows.
  const seenSlots = slot || !g.inputs.has(cache.value) ? slots : rows
  const shape = [seenSlots * heads * capacity, size]
  const source = { bound: cache.bound, part: 'values', row: 0 } as const
  const flat = g.inputs.has(cache.value)
    ? g.input(`${cache.value}/${seenSlots}`, { type: 'f32', shape, source })
    : g.reshape(cache.value, shape)
  const next = (updates: string, to: string): string[] => {
    const written = g.node('ScatterND', [flat, to, updates])
    const seen = g.reshape(written, cache.shape.with(0, seenSlots))
    g.once(`slots of ${seen}`, () => seenSlots)
    g.writes(cache.bound, written, { type: 'f32', shape }, seen)
    return [seen]
  }
  const stored = cache.dtype === 'f16' ? g.cast(g.cast(x.value, 'f16'), 'f32') : x.value
  const own = g.reshape(stored, [rows, heads, size])
  const at = places(g, cache, positions, slot)
  const isToken = g.reshape(isGiven(g, positions), [rows, 1, 1])
  const there = g.node('GatherND', [flat, at])
  if (!slot) return next(g.node('Where', [isToken, own, there]), at)
  // Padding takes place and value of the last token; where there is none all rows write what stands at position 0.
  const { last, isAny } = g.once(`last ${positions.value}`, () => ({
    last: g.node('ArgMax', [positions.value], { axis: 0, keepdims: 1 }),
    isAny: g.node('GreaterOrEqual', [g.node('ReduceMax', [positions.value, g.ints(0)]), g.int32(0)]),
  }))
  const to = g.once(`padded places ${at}`, () => g.node('Where', [isToken, at, g.node('Gather', [at, last])]))
  const value = g.node('Where', [isToken, own, g.node('Gather', [own, last])])
  return next(g.node('Where', [isAny, value, there]), to)
}

/** All of a slot's positions are scored: those of rows in a step, or of one slot for the rows of a chunk. */
function attentionCached(
  g: OnnxGraph,
  {
    inputs: [q, cacheK, cacheV, positions, slot],
    attrs: { scale, window },
  }: Parameters<Lowering['attentionCached']>[1],
): string[] {
  const [slots, kvHeads, capacity, size] = cacheK.shape
  const rows = count(positions)
  const shared = columnsOf(q) / size / kvHeads
  // Of a step each row has its slot, [R, G, P, D]; a chunk's rows lie below one another over one slot's [G, P, D].
  const own = (cache: Operand) => {
    if (slot) return g.reshape(g.node('Gather', [cache.value, slot.value]), [kvHeads, capacity, size])
    return g.once(`slots of ${cache.value}`, () => slots) === rows ? cache.value : g.slice(cache.value, 0, 0, rows)
  }
  const queries = slot
    ? byHead(g, q.value, { from: 0, to: rows }, rows, kvHeads, shared)
    : g.reshape(q.value, [rows, kvHeads, shared, size])
  const products = g.node('FusedMatMul', [queries, own(cacheK)], { transB: 1, alpha: { float: scale } })
  const mask = g.once(`cache mask ${positions.value} ${capacity} ${window} ${slot?.value}`, () => {
    const [j, i] = [g.range(0, capacity), g.column(positions.value)]
    const upTo = g.node('LessOrEqual', [j, i])
    const seen = window > 0 ? g.node('And', [upTo, g.node('Greater', [j, g.node('Sub', [i, g.int32(window)])])]) : upTo
    return slot ? maskOf(g, seen) : g.reshape(maskOf(g, seen), [rows, 1, 1, capacity])
  })
  const probabilities = (z: string) => g.node('Softmax', [g.node('Add', [z, mask])], { axis: -1 })
  const weights = slot
    ? g.reshape(probabilities(g.reshape(products, [kvHeads, shared, rows, capacity])), [
        kvHeads,
        shared * rows,
        capacity,
      ])
    : probabilities(products)
  const out = g.node('MatMul', [weights, own(cacheV)])
  const byToken = slot ? byRow(g, out, rows, kvHeads, shared) : g.reshape(out, [rows, columnsOf(q)])
  // Padding gives zeros.
  return [g.node('Where', [g.column(isGiven(g, positions)), byToken, g.float(0)])]
}

function sample(g: OnnxGraph, { inputs }: LowerNode<unknown>): string[] {
  const [logits, temperature, topK, topP, minP, uniform, editRow, editId, editBias, penalties, counts] = inputs
  const [rows, vocabulary] = logits.shape
  const column = ({ value }: Operand) => g.column(value)
  const one = g.float(1)
  const zero = g.float(0)
  let z = logits.value
  const seen = counts && g.slice(counts.value, 0, 0, rows)
  if (counts) {
    const [repetition, frequency, presence] = [0, 1, 2].map((i) => g.slice(penalties.value, 1, i, i + 1))
    const repeated = g.node('Where', [
      g.node('Greater', [z, zero]),
      g.node('Div', [z, repetition]),
      g.node('Mul', [z, repetition]),
    ])
    z = g.node('Where', [g.node('Greater', [seen, g.int32(0)]), repeated, z])
    const drawnTimes = g.cast(g.node('Div', [seen, g.int32(2)]), 'f32')
    const less = g.node('Add', [g.node('Mul', [drawnTimes, frequency]), presence])
    z = g.node('Sub', [z, g.node('Where', [g.node('Greater', [drawnTimes, zero]), less, zero])])
  }
  const isEdit = isGiven(g, editRow)
  const editAt = g.node('Add', [g.node('Mul', [atLeastZero(g, editRow), g.int32(vocabulary)]), editId.value])
  const edited = g.node(
    'ScatterElements',
    [
      g.reshape(z, [-1]),
      g.node('Where', [isEdit, editAt, g.int32(0)]),
      g.node('Where', [isEdit, editBias.value, zero]),
    ],
    { reduction: 'add' },
  )
  const isGreedy = g.node('Equal', [column(temperature), zero])
  z = g.node('Div', [g.reshape(edited, [rows, vocabulary]), g.node('Where', [isGreedy, one, column(temperature)])])
  const top = g.max(z, 1, true)
  const mass = g.node('Exp', [g.node('Sub', [z, top])])

  // As many are sorted as any row needs: all where top-p stands alone, one where nothing is cut off.
  const hasTopK = g.node('And', [
    g.node('Greater', [column(topK), g.int32(0)]),
    g.node('Less', [column(topK), g.int32(vocabulary)]),
  ])
  const hasTopP = g.node('Less', [column(topP), one])
  const sorts = g.node('Where', [hasTopK, column(topK), g.node('Where', [hasTopP, g.int32(vocabulary), g.int32(1)])])
  const most = g.cast(g.reshape(g.max(sorts, 0), [1]), 'i64')
  const [sorted] = g.nodeOf(2, 'TopK', [z, most], { axis: 1 })
  const kth = g.node('Sub', [g.node('Max', [sorts, g.int32(1)]), g.int32(1)])
  const least = g.node('Where', [hasTopK, g.node('GatherElements', [sorted, kth], { axis: 1 }), g.float(-3e38)])
  let kept = g.node('GreaterOrEqual', [z, least])
  const keptMass = (of: string) => g.sum(g.node('Where', [of, mass, zero]), 1, true)

  // top-p: an id stays while the mass of it and of all less probable ones is over 1 - p. Of equals the lowest ids stay.
  const inTopK = g.node('GreaterOrEqual', [sorted, least])
  const sortedMass = g.node('Where', [inTopK, g.node('Exp', [g.node('Sub', [sorted, top])]), zero])
  const before = g.node('CumSum', [g.cast(sortedMass, 'f64'), g.int32(1)], { exclusive: 1 })
  const share = g.node('Div', [before, g.cast(keptMass(kept), 'f64')])
  const stays = g.node('And', [
    inTopK,
    g.node('Greater', [g.node('Sub', [g.double(1), share]), g.node('Sub', [g.double(1), g.cast(column(topP), 'f64')])]),
  ])
  const staying = g.node('Max', [g.sum(g.cast(stays, 'i32'), 1, true), g.int32(1)])
  const border = g.node('GatherElements', [sorted, g.node('Sub', [staying, g.int32(1)])], { axis: 1 })
  const range = g.node('CumSum', [g.node('Expand', [g.int32(1), g.node('Shape', [sorted])]), g.int32(1)])
  const equalStaying = g.sum(
    g.cast(g.node('And', [g.node('LessOrEqual', [range, staying]), g.node('Equal', [sorted, border])]), 'i32'),
    1,
    true,
  )
  const isBorder = g.node('Equal', [z, border])
  const nth = g.node('CumSum', [g.cast(isBorder, 'i32'), g.int32(1)])
  const withinP = g.node('Or', [
    g.node('Greater', [z, border]),
    g.node('And', [isBorder, g.node('LessOrEqual', [nth, equalStaying])]),
  ])
  kept = g.node('And', [kept, g.node('Or', [withinP, g.node('Not', [hasTopP])])])
  // min-p: the most probable stays in any case.
  const likely = g.node('Or', [g.node('GreaterOrEqual', [mass, column(minP)]), g.node('GreaterOrEqual', [mass, one])])
  kept = g.node('And', [kept, likely])

  const drawnId = drawn(g, cumulatedMass(g, g.node('Where', [kept, mass, zero])), column(uniform))
  const greedyId = g.cast(g.node('ArgMax', [z], { axis: 1 }), 'i32')
  const id = g.node('Where', [isGreedy, greedyId, drawnId])
  const own = g.node('Sub', [g.node('GatherElements', [z, id], { axis: 1 }), top])
  const logProb = (total: string) => g.reshape(g.node('Sub', [own, g.node('Log', [total])]), [rows])
  const outputs = [g.reshape(id, [rows]), logProb(g.sum(mass, 1, true)), logProb(keptMass(kept))]
  if (!counts) return outputs
  const at = g.cast(g.node('Concat', [g.column(g.range(0, rows)), id], { axis: 1 }), 'i64')
  const more = g.node('Add', [g.node('GatherND', [counts.value, at]), g.int32(2)])
  return [...outputs, g.node('ScatterND', [counts.value, at, more])]
}

/** Copies of slots are no graph: they move memory (sdk/ops/kv-cache.ts). `floats`: the cache's. */
export function copySlots(
  floats: Float32Array,
  [, heads, capacity, size]: readonly number[],
  from: Int32Array,
  to: Int32Array,
  length: Int32Array,
): void {
  from.forEach((slot, m) => {
    if (slot < 0) return
    for (let head = 0; head < heads; head++) {
      const first = (slot * heads + head) * capacity * size
      floats.copyWithin((to[m] * heads + head) * capacity * size, first, first + length[m] * size)
    }
  })
}
