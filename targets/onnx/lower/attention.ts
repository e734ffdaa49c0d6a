// Attention over packed rows in blocks of queries, each with the keys from the first that any of its rows sees up to its end: no N x N
// for long rows, nothing of earlier segments. Query heads of one key head lie below one another, so that one product serves them and
// gradients of k and v add up inside theirs.
import { LOG_ZERO } from '../../../sdk/log-zero.ts'
import type { OnnxGraph } from '../model.ts'
import { count, type Lowering, type LowerNode, type Operand, rowsOf } from './types.ts'

/** Scores of one block, at most. */
const mostScores = 16e6 / 4

interface Block {
  readonly from: number
  readonly to: number
}

function blocksOf(rows: number, heads: number): Block[] {
  const size = Math.max(1, Math.min(Math.max(64, Math.ceil(rows / 8)), Math.floor(mostScores / (heads * rows))))
  return Array.from({ length: Math.ceil(rows / size) }, (_, b) => ({
    from: b * size,
    to: Math.min(rows, (b + 1) * size),
  }))
}

/** A block's rows of x [N, H·D] -> [G, H/G · n, D]; `shared` is H/G, 1 of keys and values. */
export function byHead(
  g: OnnxGraph,
  x: string,
  { from, to }: Block,
  rows: number,
  kvHeads: number,
  shared: number,
): string {
  return g.once(`heads of ${x} ${from} ${to} ${shared}`, () => {
    const own = from === 0 && to === rows ? x : g.slice(x, 0, from, to)
    const heads = g.node('Transpose', [g.reshape(own, [to - from, kvHeads, shared, -1])], { perm: [1, 2, 0, 3] })
    return g.reshape(heads, [kvHeads, shared * (to - from), -1])
  })
}

/** Rows of keys or values, [G, keys, D], from one that the run decides on (i64 [1]). */
function keysByHead(g: OnnxGraph, { value, shape }: Operand, first: string, to: number, kvHeads: number): string {
  return g.once(`heads of ${value} ${first} ${to}`, () => {
    const own = g.node('Slice', [value, first, g.ints(to), g.ints(0)])
    return g.node('Transpose', [g.reshape(own, [-1, kvHeads, shape[1] / kvHeads])], { perm: [1, 0, 2] })
  })
}

/** The way back, [n, H·D]. `after`: see `reshape`. */
export function byRow(
  g: OnnxGraph,
  x: string,
  n: number,
  kvHeads: number,
  shared: number,
  after: readonly string[] = [],
): string {
  const heads = g.node('Transpose', [g.reshape(x, [kvHeads, shared, n, -1], after)], { perm: [2, 0, 1, 3] })
  return g.reshape(heads, [n, -1])
}

/** The first key that any row from a block's beginning on sees: it never falls from block to block. */
function firstKey(g: OnnxGraph, starts: Operand, { from }: Block, window: number): string {
  return g.once(`first of ${starts.value} ${from} ${window}`, () => {
    if (from === 0) return g.ints(0)
    const least = g.node('ReduceMin', [g.slice(starts.value, 0, from, count(starts)), g.ints(0)], { keepdims: 1 })
    return g.node('Max', [g.cast(least, 'i64'), g.ints(window > 0 ? Math.max(0, from - window + 1) : 0)])
  })
}

/** scale·q·k of a block, masked: [G, H/G, n, keys]. Token i sees keys starts[i]..i, its window of them. */
function scores(
  g: OnnxGraph,
  [q, k]: readonly [string, string],
  block: Block,
  starts: Operand,
  { kvHeads, shared, scale, window }: Shape,
): string {
  const [n, rows] = [block.to - block.from, count(starts)]
  const products = g.node('FusedMatMul', [q, k], { transB: 1, alpha: { float: scale } })
  const mask = g.once(`mask ${starts.value} ${block.from} ${block.to} ${window}`, () => {
    const i = g.column(g.range(block.from, block.to))
    const j = g.node('Slice', [g.range(0, rows), firstKey(g, starts, block, window), g.ints(block.to), g.ints(0)])
    const first = g.column(g.slice(starts.value, 0, block.from, block.to))
    const least = window > 0 ? g.node('Max', [first, g.node('Sub', [i, g.int32(window - 1)])]) : first
    const seen = g.node('And', [g.node('GreaterOrEqual', [j, least]), g.node('LessOrEqual', [j, i])])
    return maskOf(g, seen)
  })
  return g.node('Add', [g.reshape(products, [kvHeads, shared, n, -1]), mask])
}

/** What is added to scores: nothing where they count. */
export const maskOf = (g: OnnxGraph, seen: string): string => g.node('Where', [seen, g.float(0), g.float(LOG_ZERO)])

interface Shape {
  readonly kvHeads: number
  readonly shared: number
  readonly scale: number
  readonly window: number
}

const joined = <K extends string>(g: OnnxGraph, parts: readonly Readonly<Record<K, string>>[], which: K): string => {
  const all = parts.map((part) => part[which])
  return all.length === 1 ? all[0] : g.node('Concat', all, { axis: 0 })
}

export const attention: Pick<Lowering, 'attention' | 'attentionBack'> = {
  attention: (g, { inputs: [q, k, v, starts], attrs }) => {
    const shape = { ...attrs, shared: attrs.heads / attrs.kvHeads }
    const { kvHeads, shared } = shape
    const rows = rowsOf(q)
    const parts = blocksOf(rows, attrs.heads).map((block) => {
      const n = block.to - block.from
      const first = firstKey(g, starts, block, attrs.window)
      const own = byHead(g, q.value, block, rows, kvHeads, shared)
      const z = scores(g, [own, keysByHead(g, k, first, block.to, kvHeads)], block, starts, shape)
      const p = g.node('Softmax', [z], { axis: -1 })
      // The greatest probability is exp(greatest score - lse).
      const lse = g.node('Sub', [g.max(z, -1), g.node('Log', [g.max(p, -1)])])
      const flat = g.reshape(p, [kvHeads, shared * n, -1])
      const out = g.node('MatMul', [flat, keysByHead(g, v, first, block.to, kvHeads)])
      return { out: byRow(g, out, n, kvHeads, shared, [lse]), lse: byRow(g, lse, n, kvHeads, shared) }
    })
    return [joined(g, parts, 'out'), joined(g, parts, 'lse')]
  },
  attentionBack,
}

function attentionBack(
  g: OnnxGraph,
  { inputs, attrs }: LowerNode<Parameters<Lowering['attentionBack']>[1]['attrs']>,
): string[] {
  const [dout, q, k, v, out, lse, starts] = inputs
  const shape = { ...attrs, shared: attrs.heads / attrs.kvHeads }
  const { kvHeads, shared, scale } = shape
  const rows = rowsOf(q)
  const blocks = blocksOf(rows, attrs.heads)
  const parts = blocks.map((block) => {
    const n = block.to - block.from
    const first = firstKey(g, starts, block, attrs.window)
    const [own, down] = [q, dout].map(({ value }) => byHead(g, value, block, rows, kvHeads, shared))
    const [kOwn, vOwn] = [k, v].map((x) => keysByHead(g, x, first, block.to, kvHeads))
    const z = scores(g, [own, kOwn], block, starts, shape)
    const total = g.reshape(byHead(g, lse.value, block, rows, kvHeads, shared), [kvHeads, shared, n, 1])
    const p = g.reshape(g.node('Exp', [g.node('Sub', [z, total])]), [kvHeads, shared * n, -1])
    const along = g.sum(g.node('Mul', [down, byHead(g, out.value, block, rows, kvHeads, shared)]), -1, true)
    const dp = g.node('FusedMatMul', [down, vOwn], { transB: 1 })
    const ds = g.node('Mul', [p, g.node('Sub', [dp, along])])
    const alpha = { alpha: { float: scale } }
    // [G, keys, D]
    const dk = g.node('FusedMatMul', [ds, own], { transA: 1, ...alpha })
    const dv = g.node('FusedMatMul', [p, down], { transA: 1 })
    const dq = g.node('FusedMatMul', [ds, kOwn], alpha)
    return { dq: byRow(g, dq, n, kvHeads, shared, [dk, dv]), dk, dv, first }
  })
  /** [N, G·D]. What is before a block's first key is done. */
  const total = (which: 'dk' | 'dv'): string => {
    const done: string[] = []
    const open = parts.reduce((so, part, b) => {
      if (b === 0) return part[which]
      const past = g.node('Sub', [part.first, parts[b - 1].first])
      done.push(g.node('Slice', [so, g.ints(0), past, g.ints(1)]))
      const still = g.node('Slice', [so, past, g.ints(rows), g.ints(1)])
      const longer = g.node('Pad', [still, g.ints(0, 0, 0, 0, blocks[b].to - blocks[b - 1].to, 0)])
      return g.node('Add', [longer, part[which]])
    }, '')
    return byRow(g, done.length > 0 ? g.node('Concat', [...done, open], { axis: 1 }) : open, rows, kvHeads, 1)
  }
  return [joined(g, parts, 'dq'), total('dk'), total('dv')]
}
