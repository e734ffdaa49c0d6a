import { dropoutThreshold } from '../../../sdk/ops/dropout.ts'
import type { OnnxGraph } from '../model.ts'
import { atLeastZero, scatterAdd } from './small.ts'
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
  embedBack: (g, { inputs: [dy, ids, grad] }) => [scatterAdd(g, grad.value, g.reshape(ids.value, [-1, 1]), dy)],
  rmsnorm: (g, { inputs: [x, w], attrs: { eps, offset } }) => {
    const attributes = { axis: -1, epsilon: { float: eps }, stash_type: 1 }
    const [y, rstd] = g.nodeOf(2, 'SimplifiedLayerNormalization', [x.value, shifted(g, w, offset)], attributes)
    return [y, g.reshape(rstd, [rowsOf(x)])]
  },
  rmsnormBack: (g, { inputs: [dy, x, w, rstd], attrs: { offset } }) => {
    const r = column(g, rstd)
    const scaled = g.node('Mul', [dy.value, shifted(g, w, offset)])
    const dot = g.node('ReduceMean', [g.node('Mul', [scaled, x.value]), g.ints(1)])
    const cubed = g.node('Mul', [g.node('Mul', [r, r]), r])
    const along = g.node('Mul', [x.value, g.node('Mul', [dot, cubed])])
    return [g.node('Sub', [g.node('Mul', [scaled, r]), along])]
  },
  rmsnormBackWeight: (g, { inputs: [dy, x, rstd, grad] }) => {
    const own = g.node('Mul', [g.node('Mul', [dy.value, x.value]), column(g, rstd)])
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
    const away = g.node('Mul', [g.node('Mul', [slope, s]), g.node('Sub', [g.floats([1]), s])])
    const dgate = g.node('Mul', [g.node('Mul', [dy.value, up.value]), g.node('Add', [s, away])])
    return [dgate, g.node('Mul', [dy.value, g.node('Mul', [x, s])])]
  },
  dropout: (g, { inputs: [x, seed], attrs: { p, stream } }) => {
    const key = g.once(`key ${seed.value} ${stream}`, () => {
      const [first, second] = [0, 1].map((i) => g.cast(g.slice(seed.value, 0, i, i + 1), 'u32'))
      const xor = (a: string, b: string) => g.node('BitwiseXor', [a, b])
      return mixed(g, xor(g.uint32(stream), mixed(g, xor(second, mixed(g, first)))))
    })
    const range = g.once(`range ${count(x)}`, () =>
      g.cast(g.node('Range', [g.int32(0), g.int32(count(x)), g.int32(1)]), 'u32'),
    )
    const hash = mixed(g, g.node('BitwiseXor', [range, key]))
    const isKept = g.node('GreaterOrEqual', [hash64(g, hash), g.ints(dropoutThreshold(p))])
    const scaled = g.node('Mul', [x.value, g.floats([1 / (1 - p)])])
    return [g.node('Where', [g.reshape(isKept, x.shape), scaled, g.floats([0])])]
  },
}

const hash64 = (g: OnnxGraph, x: string): string => g.cast(x, 'i64')
const column = (g: OnnxGraph, { value }: Operand): string => g.reshape(value, [-1, 1])
const shifted = (g: OnnxGraph, w: Operand, offset: number): string =>
  offset === 0 ? w.value : g.once(`${w.value} + ${offset}`, () => g.node('Add', [w.value, g.floats([offset])]))

// gelu_tanh is x·sigmoid(u), as sdk/ops/swiglu.ts has it.
const twice = 2 * Math.sqrt(2 / Math.PI)
function inner(g: OnnxGraph, x: string): string {
  const squared = g.node('Mul', [x, x])
  const factor = g.node('Add', [g.node('Mul', [squared, g.floats([twice * 0.044715])]), g.floats([twice])])
  return g.node('Mul', [x, factor])
}
function innerSlope(g: OnnxGraph, x: string): string {
  const squared = g.node('Mul', [x, x])
  return g.node('Add', [g.node('Mul', [squared, g.floats([3 * twice * 0.044715])]), g.floats([twice])])
}

/** RotaryEmbedding with a row of cosines and sines for each token: cosine 1 and sine 0 at position -1, negated sines the other way. */
function rope(
  g: OnnxGraph,
  { inputs: [x, positions, table], attrs: { inverse } }: Parameters<Lowering['rope']>[1],
): string[] {
  const [rows, half] = [rowsOf(x), columnsOf(table) / 2]
  const { cos, sin } = g.once(`rope ${positions.value} ${table.value} ${inverse}`, () => {
    const own = g.node('Gather', [table.value, atLeastZero(g, positions)])
    const isToken = g.reshape(g.node('GreaterOrEqual', [positions.value, g.int32(0)]), [-1, 1])
    const sin = g.slice(own, 1, half, 2 * half)
    return {
      cos: g.node('Where', [isToken, g.slice(own, 1, 0, half), g.floats([1])]),
      sin: g.node('Where', [isToken, inverse ? g.node('Neg', [sin]) : sin, g.floats([0])]),
    }
  })
  const ids = g.once(`rows ${rows}`, () => g.reshape(g.node('Range', [i64(g, 0), i64(g, rows), i64(g, 1)]), [1, rows]))
  const turned = g.node('RotaryEmbedding', [g.reshape(x.value, [1, ...x.shape]), ids, cos, sin])
  return [g.reshape(turned, x.shape)]
}
const i64 = (g: OnnxGraph, value: number): string => g.reshape(g.ints(value), [])

/** sdk/random.ts' mix after adding the golden ratio, on u32: products in i64, of which the low half is kept. */
function mixed(g: OnnxGraph, x: string): string {
  const low = (y: string) => g.cast(g.node('BitwiseAnd', [y, g.ints(0xffffffff)]), 'u32')
  const fold = (y: string, by: number) =>
    g.node('BitwiseXor', [y, g.node('BitShift', [y, g.uint32(by)], { direction: 'RIGHT' })])
  const times = (y: string, by: number) => low(g.node('Mul', [g.cast(y, 'i64'), g.ints(by)]))
  const started = low(g.node('Add', [g.cast(x, 'i64'), g.ints(0x9e3779b9)]))
  return fold(times(fold(times(fold(started, 16), 0x21f0aaad), 15), 0x735a2d97), 15)
}
