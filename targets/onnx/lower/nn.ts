import { dropoutThreshold } from '../../../sdk/ops/dropout.ts'
import type { OnnxGraph } from '../model.ts'
import { atLeastZero, isGiven, scatterAdd } from './small.ts'
import { columnsOf, count, type Lowering, type Operand, rowsOf } from './types.ts'
import { gathered } from './weights.ts'

type Ops =
  | 'embed'
  | 'embedBack'
  | 'rmsnorm'
  | 'rmsnormBack'
  | 'rmsnormBackWeight'
  | 'rope'
  | 'swiglu'
  | 'swigluBack'
  | 'dropout'

/** What a layer has beside products and attention. */
export const nn: Pick<Lowering, Ops> = {
  embed: (g, { inputs: [ids, table] }) => [gathered(g, ids.value, table)],
  embedBack: (g, { inputs: [dy, ids, grad] }) => [scatterAdd(g, grad.value, g.column(ids.value), dy)],
  rmsnorm: (g, { inputs: [x, w], attrs: { eps, offset } }) => {
    const attributes = { axis: -1, epsilon: { float: eps }, stash_type: 1 }
    const [y, rstd] = g.nodeOf(2, 'SimplifiedLayerNormalization', [x.value, shifted(g, w, offset)], attributes)
    return [y, g.reshape(rstd, [rowsOf(x)])]
  },
  rmsnormBack: (g, { inputs: [dy, x, w, rstd], attrs: { offset } }) => {
    const r = g.column(rstd.value)
    const scaled = g.node('Mul', [dy.value, shifted(g, w, offset)])
    const dot = g.node('ReduceMean', [g.node('Mul', [scaled, x.value]), g.ints(1)])
    const cubed = g.node('Mul', [g.node('Mul', [r, r]), r])
    const along = g.node('Mul', [x.value, g.node('Mul', [dot, cubed])])
    return [g.node('Sub', [g.node('Mul', [scaled, r]), along])]
  },
  rmsnormBackWeight: (g, { inputs: [dy, x, rstd, grad] }) => {
    const own = g.node('Mul', [g.node('Mul', [dy.value, x.value]), g.column(rstd.value)])
    return [g.node('Add', [grad.value, g.sum(own, 0)])]
  },
  rope,
  swiglu: (g, { inputs: [gate, up], attrs: { activation } }) => {
    const acted =
      activation === 'silu'
        ? g.node('QuickGelu', [gate.value], { alpha: { float: 1 } })
        : g.node('Mul', [gate.value, g.node('Sigmoid', [inner(g, gate.value)])])
    return [g.node('Mul', [acted, up.value])]
  },
  swigluBack: (g, { inputs: [dy, { value: x }, up], attrs: { activation } }) => {
    const s = g.node('Sigmoid', [activation === 'silu' ? x : inner(g, x)])
    const slope = activation === 'silu' ? x : g.node('Mul', [x, innerSlope(g, x)])
    // s + x·u'·s·(1 - s)
    const away = g.node('Mul', [g.node('Mul', [slope, s]), g.node('Sub', [g.float(1), s])])
    const dgate = g.node('Mul', [g.node('Mul', [dy.value, up.value]), g.node('Add', [s, away])])
    return [dgate, g.node('Mul', [dy.value, g.node('Mul', [x, s])])]
  },
  dropout: (g, { inputs: [x, seed], attrs: { p, stream } }) => {
    const key = g.once(`key ${seed.value} ${stream}`, () => {
      const [first, second] = [0, 1].map((i) => g.cast(g.slice(seed.value, 0, i, i + 1), 'u32'))
      const xor = (a: string, b: string) => g.node('BitwiseXor', [a, b])
      return mixed(g, xor(g.uint32(stream), mixed(g, xor(second, mixed(g, first)))))
    })
    const range = g.once(`elements ${count(x)}`, () => g.cast(g.range(0, count(x)), 'u32'))
    const hash = mixed(g, g.node('BitwiseXor', [range, key]))
    const isKept = g.node('GreaterOrEqual', [g.cast(hash, 'i64'), g.ints(dropoutThreshold(p))])
    const scaled = g.node('Mul', [x.value, g.float(1 / (1 - p))])
    return [g.node('Where', [g.reshape(isKept, x.shape), scaled, g.float(0)])]
  },
}

const shifted = (g: OnnxGraph, w: Operand, offset: number): string =>
  offset === 0 ? w.value : g.once(`${w.value} + ${offset}`, () => g.node('Add', [w.value, g.float(offset)]))

// gelu_tanh is x·sigmoid(u), as sdk/ops/swiglu.ts has it.
const twice = 2 * Math.sqrt(2 / Math.PI)
function inner(g: OnnxGraph, x: string): string {
  const squared = g.node('Mul', [x, x])
  const factor = g.node('Add', [g.node('Mul', [squared, g.float(twice * 0.044715)]), g.float(twice)])
  return g.node('Mul', [x, factor])
}
function innerSlope(g: OnnxGraph, x: string): string {
  const squared = g.node('Mul', [x, x])
  return g.node('Add', [g.node('Mul', [squared, g.float(3 * twice * 0.044715)]), g.float(twice)])
}

/** RotaryEmbedding with a row of cosines and sines for each token: cosine 1 and sine 0 at position -1, negated sines the other way. */
function rope(
  g: OnnxGraph,
  { inputs: [x, positions, table], attrs: { inverse } }: Parameters<Lowering['rope']>[1],
): string[] {
  const [rows, half] = [rowsOf(x), columnsOf(table) / 2]
  const { cos, sin } = g.once(`rope ${positions.value} ${table.value} ${inverse}`, () => {
    const own = g.node('Gather', [table.value, atLeastZero(g, positions)])
    const isToken = g.column(isGiven(g, positions))
    const sin = g.slice(own, 1, half, 2 * half)
    return {
      cos: g.node('Where', [isToken, g.slice(own, 1, 0, half), g.float(1)]),
      sin: g.node('Where', [isToken, inverse ? g.node('Neg', [sin]) : sin, g.float(0)]),
    }
  })
  const ids = g.once(`rows ${rows}`, () => g.reshape(g.cast(g.range(0, rows), 'i64'), [1, rows]))
  const turned = g.node('RotaryEmbedding', [g.reshape(x.value, [1, ...x.shape]), ids, cos, sin])
  return [g.reshape(turned, x.shape)]
}

/** sdk/random.ts' mix after adding the golden ratio, on u32: products in i64, of which the low half is kept. */
function mixed(g: OnnxGraph, x: string): string {
  const low = (y: string) => g.cast(g.node('BitwiseAnd', [y, g.ints(0xffffffff)]), 'u32')
  const fold = (y: string, by: number) =>
    g.node('BitwiseXor', [y, g.node('BitShift', [y, g.uint32(by)], { direction: 'RIGHT' })])
  const times = (y: string, by: number) => low(g.node('Mul', [g.cast(y, 'i64'), g.ints(by)]))
  const started = low(g.node('Add', [g.cast(x, 'i64'), g.ints(0x9e3779b9)]))
  return fold(times(fold(times(fold(started, 16), 0x21f0aaad), 15), 0x735a2d97), 15)
}
