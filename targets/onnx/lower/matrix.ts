import type { OnnxGraph } from '../model.ts'
import { count, type Lowering, type Operand } from './types.ts'
import { dequantized, product, productBack } from './weights.ts'

type Ops =
  | 'linear'
  | 'linearBackInput'
  | 'linearBackWeight'
  | 'linearBackBias'
  | 'lora'
  | 'loraBack'
  | 'doraNorm'
  | 'scaleColumns'
  | 'scaleColumnsBack'

/** Products, adapters, and what they leave to columns. */
export const matrix: Pick<Lowering, Ops> = {
  linear: (g, { inputs: [x, w, bias], attrs: { activations } }) => [
    product(g, x, w, { bias: bias?.value, rounded: activations !== 'f32' }),
  ],
  linearBackInput: (g, { inputs: [dy, w] }) => [productBack(g, dy.value, w)],
  linearBackWeight: (g, { inputs: [dy, x, grad] }) => [
    g.asLeaf(g.node('Gemm', [dy.value, x.value, grad.value], { transA: 1 })),
  ],
  linearBackBias: (g, { inputs: [dy, grad] }) => [g.node('Add', [grad.value, g.sum(dy.value, 0)])],
  lora: (g, { inputs: [y, x, a, b, scale, of] }) => {
    if (of) return loraByRow(g, [y, x, a, b, scale, of])
    const h = g.node('Mul', [g.node('Gemm', [x.value, a.value], { transB: 1 }), scale.value])
    return [g.node('Gemm', [h, b.value, y.value], { transB: 1 }), h]
  },
  loraBack: (g, { inputs: [dy, a, b, scale] }) => {
    const t = g.node('Mul', [g.node('MatMul', [dy.value, b.value]), scale.value])
    return [g.node('MatMul', [t, a.value]), t]
  },
  // w and low [O, I] live for this node alone.
  doraNorm: (g, { inputs: [w, a, b, scale] }) => {
    const low = g.node('Mul', [g.node('MatMul', [b.value, a.value]), scale.value])
    const merged = g.node('Add', [dequantized(g, w), low])
    return [g.node('Sqrt', [g.node('ReduceSumSquare', [merged, g.ints(1)], { keepdims: 0 })])]
  },
  scaleColumns: (g, { inputs: [y, gain, bias] }) => {
    const scaled = g.node('Mul', [y.value, gain.value])
    return [bias ? g.node('Add', [scaled, bias.value]) : scaled]
  },
  scaleColumnsBack: (g, { inputs: [dy, y] }) => [g.sum(g.node('Mul', [dy.value, y.value]), 0)],
}

/** All n adapters of all rows, those that are not a row's own times 0. */
function loraByRow(g: OnnxGraph, [y, x, a, b, scale, of]: readonly Operand[]): string[] {
  const [n, rank, rows] = [count(scale), b.shape[1], y.shape[0]]
  // [N, n]: its scale where the adapter is the row's.
  const own = g.once(`adapters by ${of.value} of ${scale.value}`, () => {
    const isOwn = g.node('Equal', [g.column(of.value), g.range(0, n)])
    return g.node('Mul', [g.cast(isOwn, 'f32'), scale.value])
  })
  const hidden = g.reshape(g.node('Gemm', [x.value, a.value], { transB: 1 }), [rows, n, rank])
  const h = g.node('Mul', [hidden, g.reshape(own, [rows, n, 1])])
  const low = g.node(
    'FusedMatMul',
    [g.node('Transpose', [h], { perm: [1, 0, 2] }), g.reshape(b.value, [n, -1, rank])],
    {
      transB: 1,
    },
  )
  return [g.node('Add', [y.value, g.sum(low, 0)]), g.sum(h, 1)]
}
