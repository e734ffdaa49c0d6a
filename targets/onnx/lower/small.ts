import { parseShape } from '../../../sdk/ops/signature.ts'
import type { OnnxGraph } from '../model.ts'
import type { Lower, Lowering, Operand } from './types.ts'

type Ops =
  | 'add'
  | 'sub'
  | 'mul'
  | 'div'
  | 'min'
  | 'max'
  | 'logAddExp'
  | 'scale'
  | 'exp'
  | 'log'
  | 'log1p'
  | 'clamp'
  | 'where'
  | 'sum'
  | 'expand'
  | 'fill'
  | 'view'
  | 'stopGradient'
  | 'accumulate'
  | 'gatherRows'
  | 'scatterRows'
  | 'segmentSum'
  | 'sumSquares'
  | 'adamw'

/** An operator of ONNX as it is. */
const plain =
  (op: string): Lower<unknown> =>
  (g, { inputs }) => [
    g.node(
      op,
      inputs.map(({ value }) => value),
    ),
  ]

/** Elementwise ops on losses, rows by number, the optimizer. */
export const small: Pick<Lowering, Ops> = {
  add: plain('Add'),
  sub: plain('Sub'),
  mul: plain('Mul'),
  div: plain('Div'),
  min: plain('Min'),
  max: plain('Max'),
  exp: plain('Exp'),
  log: plain('Log'),
  accumulate: plain('Add'),
  logAddExp: (g, { inputs: [a, b] }) => {
    const apart = g.node('Abs', [g.node('Sub', [a.value, b.value])])
    return [g.node('Add', [g.node('Max', [a.value, b.value]), g.node('Softplus', [g.node('Neg', [apart])])])]
  },
  scale: (g, { inputs: [a], attrs: { factor } }) => [g.node('Mul', [a.value, g.float(factor)])],
  log1p: (g, { inputs: [x] }) => [log1p(g, x.value)],
  clamp: (g, { inputs: [a], attrs: { lo, hi } }) => [g.node('Clip', [a.value, g.float(lo), g.float(hi)])],
  where: (g, { inputs: [condition, a, b] }) => [
    g.node('Where', [g.node('Greater', [condition.value, g.float(0)]), a.value, b.value]),
  ],
  sum: (g, { inputs: [a], attrs: { axis } }) => [
    axis === 'last' ? g.sum(a.value, -1) : g.sum(g.reshape(a.value, [1, -1]), 1),
  ],
  expand: (g, { inputs: [a], attrs }) => {
    const shape = parseShape('expand', attrs.shape)
    const from = a.shape.length === shape.length - 1 && shape.length > 1 ? g.reshape(a.value, [...a.shape, 1]) : a.value
    return [g.node('Expand', [from, g.ints(...shape)])]
  },
  fill: (g, { attrs: { shape, value } }) => [filled(g, parseShape('fill', shape), value)],
  view: (g, { inputs: [x], attrs }) => [g.reshape(x.value, parseShape('view', attrs.shape))],
  stopGradient: (_, { inputs: [x] }) => [x.value],
  gatherRows: (g, { inputs: [x, rows] }) => {
    return [
      g.node('Where', [g.column(isGiven(g, rows)), g.node('Gather', [x.value, atLeastZero(g, rows)]), g.float(0)]),
    ]
  },
  // Padding adds to one more row, which is left out again. Elements are scattered one after the other: repeats add in one order.
  scatterRows: (g, { inputs: [dy, rows], attrs: { count } }) => {
    const to = g.column(padded(g, rows, count))
    return [g.slice(scatterAdd(g, filled(g, [count + 1, dy.shape[1]], 0), to, dy), 0, 0, count)]
  },
  segmentSum: (g, { inputs: [x, segments], attrs: { count } }) => [
    g.slice(scatterAdd(g, filled(g, [count + 1], 0), padded(g, segments, count), x), 0, 0, count),
  ],
  sumSquares: (g, { inputs: [x] }) => [
    g.node('ReduceSumSquare', [g.reshape(x.value, [1, -1]), g.ints(1)], { keepdims: 0 }),
  ],
  adamw: (g, { inputs: [p, grad, m, v, normSquared, hyper], attrs: { decay } }) => {
    const h = (i: number) => g.once(`hyper ${hyper.value} ${i}`, () => g.slice(hyper.value, 0, i, i + 1))
    const [lr, beta1, beta2, eps, weightDecay, maxGradNorm, correction1, correction2, rest1, rest2] = Array.from(
      { length: 10 },
      (_, i) => h(i),
    )
    const { isNormFinite, clip } = g.once(`clip ${normSquared.value} ${hyper.value}`, () => {
      const isNormFinite = g.node('Less', [g.node('Abs', [normSquared.value]), g.float(Number.POSITIVE_INFINITY)])
      const norm = g.node('Add', [g.node('Sqrt', [normSquared.value]), g.float(1e-6)])
      const most = g.node('Min', [g.node('Div', [maxGradNorm, norm]), g.float(1)])
      return { isNormFinite, clip: g.node('Where', [g.node('Greater', [maxGradNorm, g.float(0)]), most, g.float(1)]) }
    })
    const clipped = g.node('Mul', [grad.value, clip])
    const moved = (old: string, keep: string, rest: string, by: string) =>
      g.node('Add', [g.node('Mul', [old, keep]), g.node('Mul', [by, rest])])
    const first = moved(m.value, beta1, rest1, clipped)
    const second = moved(v.value, beta2, rest2, g.node('Mul', [clipped, clipped]))
    const root = g.once(`root ${hyper.value}`, () => g.node('Sqrt', [correction2]))
    const width = g.node('Add', [g.node('Div', [g.node('Sqrt', [second]), root]), eps])
    const rate = g.once(`rate ${hyper.value}`, () => g.node('Div', [lr, correction1]))
    const step = g.node('Mul', [g.node('Div', [first, width]), rate])
    const kept = g.once(`decay ${hyper.value}`, () => g.node('Sub', [g.float(1), g.node('Mul', [lr, weightDecay])]))
    const next = g.node('Sub', [decay ? g.node('Mul', [p.value, kept]) : p.value, step])
    const orOld = (value: string, old: string) => g.node('Where', [isNormFinite, value, old])
    // Zeros that wait for the step: the memory is the gradient's.
    const zeros = g.node('Where', [g.cast(g.float(0), 'bool'), next, g.float(0)])
    return [orOld(next, p.value), zeros, orOld(first, m.value), orOld(second, v.value)]
  },
}

/** Whether a value is zeros for sure: terms with it are left out. */
export const isZeros = (g: OnnxGraph, { value, shape }: Operand): boolean => value === filled(g, shape, 0)

/** One value for all that ask for the same. */
const filled = (g: OnnxGraph, shape: readonly number[], value: number): string =>
  g.once(`fill ${shape} ${value}`, () => g.node('Expand', [g.float(value), g.ints(...shape)]))

/** i32 with 0 in place of -1. */
export const atLeastZero = (g: OnnxGraph, { value }: Operand): string =>
  g.once(`at least 0 ${value}`, () => g.node('Max', [value, g.int32(0)]))

/** False where an index is -1. */
export const isGiven = (g: OnnxGraph, { value }: Operand): string =>
  g.once(`given ${value}`, () => g.node('GreaterOrEqual', [value, g.int32(0)]))

const padded = (g: OnnxGraph, rows: Operand, count: number): string =>
  g.node('Where', [isGiven(g, rows), rows.value, g.int32(count)])

/** y with x added at rows `to` ([R, 1] or [R]). */
export function scatterAdd(g: OnnxGraph, y: string, to: string, x: Operand): string {
  const each = x.shape.length > 1 ? g.node('Expand', [to, g.ints(...x.shape)]) : to
  return g.node('ScatterElements', [y, each, x.value], { axis: 0, reduction: 'add' })
}

/** log(1 + x) as x·log(u) / (u - 1) with u = 1 + x as it is rounded: what the sum lost is in both. */
export function log1p(g: OnnxGraph, x: string): string {
  const u = g.node('Add', [x, g.float(1)])
  const rest = g.node('Sub', [u, g.float(1)])
  const isZero = g.node('Equal', [rest, g.float(0)])
  return g.node('Where', [isZero, x, g.node('Mul', [x, g.node('Div', [g.node('Log', [u]), rest])])])
}
