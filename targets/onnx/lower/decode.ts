import { LOG_ZERO } from '../../../sdk/log-zero.ts'
import type { OnnxGraph } from '../model.ts'
import { atLeastZero } from './small.ts'
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
      const none = g.node('Expand', [g.floats([LOG_ZERO]), g.ints(rowsOf(logits))])
      return [g.cast(ids, 'i32'), logProbs, none]
    }
    const banned = g.node('Expand', [g.floats([LOG_ZERO]), g.ints(rowsOf(logits), k)])
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
    const slots = slot ? slot.value : g.cast(g.ints(...Array(rows).keys()), 'i32')
    const first = g.node('Mul', [g.reshape(slots, [-1, 1]), g.int32(heads)])
    const head = g.node('Add', [first, g.cast(g.ints(...Array(heads).keys()), 'i32')])
    const start = g.node('Mul', [head, g.int32(capacity)])
    const at = g.node('Add', [start, g.reshape(atLeastZero(g, positions), [rows, 1])])
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
  const isPadding = g.reshape(g.node('Less', [positions.value, g.int32(0)]), [rows, 1, 1])
  const there = g.node('GatherND', [flat, at])
  if (!slot) {
    return next(g.node('Where', [isPadding, there, own]), at)
  }
  // Padding takes place and value of the last token; where there is none all rows write what stands at position 0.
  const { last, isAny } = g.once(`last ${positions.value}`, () => ({
    last: g.node('ArgMax', [positions.value], { axis: 0, keepdims: 1 }),
    isAny: g.node('GreaterOrEqual', [g.node('ReduceMax', [positions.value, g.ints(0)]), g.int32(0)]),
  }))
  const to = g.once(`padded places ${at}`, () => g.node('Where', [isPadding, g.node('Gather', [at, last]), at]))
  const value = g.node('Where', [isPadding, g.node('Gather', [own, last]), own])
  return next(g.node('Where', [isAny, value, there]), to)
}

const masked = -1e30

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
  const own = (cache: Operand) => {
    if (slot) return g.node('Gather', [cache.value, slot.value])
    return g.once(`slots of ${cache.value}`, () => slots) === rows ? cache.value : g.slice(cache.value, 0, 0, rows)
  }
  // A step: [R, G, shared, D] by [R, G, P, D]. A chunk: its rows lie below one another, [1, G, shared·R, D] by [1, G, P, D].
  const byHead = g.node(
    'Transpose',
    [
      g.reshape(
        q.value,
        [slot ? 1 : rows, slot ? rows : 1, kvHeads, shared, size].filter((_, i) => slot || i !== 1),
      ),
    ],
    {
      perm: slot ? [0, 2, 3, 1, 4] : [0, 1, 2, 3],
    },
  )
  const queries = slot ? g.reshape(byHead, [1, kvHeads, shared * rows, size]) : byHead
  const products = g.node('FusedMatMul', [queries, own(cacheK)], { transB: 1, alpha: { float: scale } })
  const mask = g.once(`cache mask ${positions.value} ${capacity} ${window}`, () => {
    const [j, i] = [g.cast(g.ints(...Array(capacity).keys()), 'i32'), g.reshape(positions.value, [rows, 1])]
    const upTo = g.node('LessOrEqual', [j, i])
    const seen = window > 0 ? g.node('And', [upTo, g.node('Greater', [j, g.node('Sub', [i, g.int32(window)])])]) : upTo
    return g.node('Where', [seen, g.floats([0]), g.floats([masked])])
  })
  // [R, 1, 1, P] or [1, 1, 1, R, P]
  const z = slot
    ? g.reshape(g.node('Add', [g.reshape(products, [kvHeads, shared, rows, capacity]), mask]), [
        1,
        kvHeads,
        shared * rows,
        capacity,
      ])
    : g.node('Add', [products, g.reshape(mask, [rows, 1, 1, capacity])])
  const out = g.node('MatMul', [g.node('Softmax', [z], { axis: -1 }), own(cacheV)])
  const byRow = slot
    ? g.node('Transpose', [g.reshape(out, [kvHeads, shared, rows, size])], { perm: [2, 0, 1, 3] })
    : out
  // Padding gives zeros.
  const isToken = g.reshape(g.node('GreaterOrEqual', [positions.value, g.int32(0)]), [rows, 1])
  return [g.node('Where', [isToken, g.reshape(byRow, [rows, columnsOf(q)]), g.floats([0])])]
}

function sample(g: OnnxGraph, { inputs }: LowerNode<unknown>): string[] {
  const [logits, temperature, topK, topP, minP, uniform, editRow, editId, editBias, penalties, counts] = inputs
  const [rows, vocabulary] = logits.shape
  const column = ({ value }: Operand) => g.reshape(value, [rows, 1])
  const one = g.floats([1])
  const zero = g.floats([0])
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
  const isEdit = g.node('GreaterOrEqual', [editRow.value, g.int32(0)])
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
  const least = g.node('Where', [hasTopK, g.node('GatherElements', [sorted, kth], { axis: 1 }), g.floats([-3e38])])
  let kept = g.node('GreaterOrEqual', [z, least])
  const keptMass = (of: string) => g.sum(g.node('Where', [of, mass, zero]), 1, true)

  // top-p: an id stays while the mass of it and of all less probable ones is over 1 - p. Of equals the lowest ids stay.
  const inTopK = g.node('GreaterOrEqual', [sorted, least])
  const sortedMass = g.node('Where', [inTopK, g.node('Exp', [g.node('Sub', [sorted, top])]), zero])
  const before = g.node('CumSum', [g.cast(sortedMass, 'f64'), g.int32(1)], { exclusive: 1 })
  const share = g.node('Div', [before, g.cast(keptMass(kept), 'f64')])
  const stays = g.node('And', [
    inTopK,
    g.node('Greater', [
      g.node('Sub', [g.doubles([1]), share]),
      g.node('Sub', [g.doubles([1]), g.cast(column(topP), 'f64')]),
    ]),
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
  const at = g.node('Concat', [g.ints2(Array.from({ length: rows }, (_, r) => r)), g.cast(id, 'i64')], { axis: 1 })
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
