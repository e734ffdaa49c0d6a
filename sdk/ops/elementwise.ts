import { describe, sameShape, type TensorType } from '../dtype.ts'
import { ShapeError } from '../errors.ts'
import type { Graph, Tensor } from '../graph/graph.ts'
import type { Attrs, OpCase, OpSpec, VjpNode } from '../graph/spec.ts'
import { distinct, floats, normal } from './cases.ts'
import { fill, zeros } from './fill.ts'
import { f32, signature } from './signature.ts'
import { sum } from './sum.ts'

// Small ops on the loss tensors. Two arguments have equal shapes, or one of them is a scalar [1].

const isScalar = (shape: readonly number[]): boolean => sameShape(shape, [1])

function broadcast(op: string, [a, b]: readonly TensorType[]): TensorType {
  if (sameShape(a.shape, b.shape) || isScalar(b.shape)) return f32(...a.shape)
  if (isScalar(a.shape)) return f32(...b.shape)
  throw new ShapeError(`${op}: b is ${describe(b)}, expected the shape of a ${describe(a)}, or one of them [1]`)
}

/** A gradient of the result's shape, summed where the argument was a scalar. */
const fold = (g: Graph, grad: Tensor, argument: Tensor): Tensor =>
  isScalar(argument.shape) && !isScalar(grad.shape) ? sum(g, grad) : grad

const binaryCases: OpCase[] = [
  { name: 'matrices', inputs: [normal([7, 33]), normal([7, 33])], attrs: {} },
  { name: 'scalar a', inputs: [normal([1]), normal([5, 3])], attrs: {} },
  { name: 'scalar b', inputs: [normal([65]), normal([1])], attrs: {} },
  { name: 'two scalars', inputs: [normal([1]), normal([1])], attrs: {} },
]
// Denominators stay away from 0.
const divCases: OpCase[] = [
  { name: 'matrices', inputs: [normal([7, 33]), normal([7, 33], 0.2, 2)], attrs: {} },
  { name: 'scalar a', inputs: [normal([1]), normal([5, 3], 0.2, -2)], attrs: {} },
  { name: 'scalar b', inputs: [normal([65]), normal([1], 0.1, 3)], attrs: {} },
]
// No ties here, where finite differences mean nothing; ties have their own test.
const orderCases: OpCase[] = [
  { name: 'matrices', inputs: [distinct([5, 7], 11), distinct([5, 7], 13)], attrs: {} },
  { name: 'scalar a', inputs: [floats([0.01]), distinct([9])], attrs: {} },
  { name: 'scalar b', inputs: [distinct([9]), floats([0.01])], attrs: {} },
]
const logAddExpCases: OpCase[] = [
  ...binaryCases,
  { name: 'far apart', inputs: [floats([-1e30, 80, 3, -200]), floats([2, -80, -1e30, -200])], attrs: {} },
]

function binary(
  name: string,
  cases: readonly OpCase[],
  of: (a: number, b: number) => number,
  vjp: (g: Graph, dy: Tensor, a: Tensor, b: Tensor, y: Tensor) => [() => Tensor, () => Tensor],
): OpSpec {
  const parameters = signature(name, 'a[*], b[*] ->')
  return {
    name,
    cases,
    inplace: [
      [0, 0],
      [1, 0],
    ],
    infer(inputs) {
      parameters(inputs, {})
      return [broadcast(name, inputs)]
    },
    vjp(g, { inputs: [a, b], outputs: [y] }, [dy], need) {
      const [da, db] = vjp(g, dy!, a, b, y)
      return [need[0] ? fold(g, da(), a) : null, need[1] ? fold(g, db(), b) : null]
    },
    reference([a, b]) {
      const wide = isScalar(a.shape) ? b : a
      const at = (t: typeof a, i: number) => t.data[t.data.length === 1 ? 0 : i]
      return [{ shape: wide.shape, data: wide.data.map((_, i) => of(at(a, i), at(b, i))) }]
    },
  }
}

function unary<A extends Attrs>(
  name: string,
  cases: readonly OpCase<A>[],
  of: (a: number, attrs: A) => number,
  vjp: (g: Graph, dy: Tensor, node: VjpNode<A>) => Tensor,
): OpSpec<A> {
  return {
    name,
    cases,
    inplace: [[0, 0]],
    infer: signature(name, 'a[...] -> [...]'),
    vjp: (g, node, [dy]) => [vjp(g, dy!, node)],
    reference: ([a], attrs) => [{ shape: a.shape, data: a.data.map((v) => of(v, attrs)) }],
  }
}

/** dy where a - b > 0, half of it where they are equal, 0 elsewhere. */
function winner(g: Graph, dy: Tensor, a: Tensor, b: Tensor): Tensor {
  const notLess = where(g, sub(g, b, a), zeros(g, dy.shape), scale(g, dy, 0.5))
  return where(g, sub(g, a, b), dy, notLess)
}

export const addOp = binary(
  'add',
  binaryCases,
  (a, b) => a + b,
  (_, dy) => [() => dy, () => dy],
)
export const subOp = binary(
  'sub',
  binaryCases,
  (a, b) => a - b,
  (g, dy) => [() => dy, () => scale(g, dy, -1)],
)
export const mulOp = binary(
  'mul',
  binaryCases,
  (a, b) => a * b,
  (g, dy, a, b) => [() => mul(g, dy, b), () => mul(g, dy, a)],
)
export const divOp = binary(
  'div',
  divCases,
  (a, b) => a / b,
  (g, dy, _, b, y) => [() => div(g, dy, b), () => scale(g, div(g, mul(g, dy, y), b), -1)],
)
/** The gradient goes to the smaller one, halves on ties, as in torch. */
export const minOp = binary('min', orderCases, Math.min, (g, dy, a, b) => [
  () => winner(g, dy, b, a),
  () => winner(g, dy, a, b),
])
export const maxOp = binary('max', orderCases, Math.max, (g, dy, a, b) => [
  () => winner(g, dy, a, b),
  () => winner(g, dy, b, a),
])
export const logAddExpOp = binary(
  'logAddExp',
  logAddExpCases,
  (a, b) => Math.max(a, b) + Math.log1p(Math.exp(-Math.abs(a - b))),
  (g, dy, a, b, y) => [() => mul(g, dy, exp(g, sub(g, a, y))), () => mul(g, dy, exp(g, sub(g, b, y)))],
)

export const scaleOp = unary<{ factor: number }>(
  'scale',
  [{ name: 'vector', inputs: [normal([33])], attrs: { factor: -0.75 } }],
  (a, { factor }) => a * factor,
  (g, dy, { attrs }) => scale(g, dy, attrs.factor),
)
export const expOp = unary<Attrs>(
  'exp',
  [
    { name: 'vector', inputs: [normal([33], 2)], attrs: {} },
    { name: 'far', inputs: [floats([-1e30, -200, -80, 0, 1, 20])], attrs: {} },
  ],
  Math.exp,
  (g, dy, { outputs: [y] }) => mul(g, dy, y),
)
export const logOp = unary<Attrs>(
  'log',
  [
    { name: 'vector', inputs: [normal([33], 0.2, 2)], attrs: {} },
    { name: 'far', inputs: [floats([1e-30, 1e-6, 0.999, 1.001, 1e30])], attrs: {} },
  ],
  Math.log,
  (g, dy, { inputs: [a] }) => div(g, dy, a),
)
export const log1pOp = unary<Attrs>(
  'log1p',
  [
    { name: 'vector', inputs: [normal([33], 0.1, 0.5)], attrs: {} },
    { name: 'near 0 and -1', inputs: [floats([1e-12, -1e-9, 1e-4, -0.9, 50])], attrs: {} },
  ],
  Math.log1p,
  (g, dy, { inputs: [a] }) => div(g, dy, add(g, a, fill(g, [1], 1))),
)
/** The gradient is 1 inside the closed interval and 0 outside, as in torch. */
export const clampOp = unary<{ lo: number; hi: number }>(
  'clamp',
  [{ name: 'vector', inputs: [distinct([33])], attrs: { lo: -0.75, hi: 1.25 } }],
  (a, { lo, hi }) => Math.min(Math.max(a, lo), hi),
  (g, dy, { inputs: [a], attrs: { lo, hi } }) => {
    const zero = zeros(g, dy.shape)
    const notAbove = where(g, sub(g, a, fill(g, [1], hi)), zero, dy)
    return where(g, sub(g, fill(g, [1], lo), a), zero, notAbove)
  },
)

/** condition > 0 ? a : b, all of one shape. No gradient to the condition. */
export const whereOp: OpSpec = {
  name: 'where',
  inplace: [
    [1, 0],
    [2, 0],
  ],
  infer: signature('where', 'condition[...], a[...], b[...] -> [...]'),
  vjp(g, { inputs: [condition] }, [dy], need) {
    const zero = zeros(g, dy!.shape)
    return [null, need[1] ? where(g, condition, dy!, zero) : null, need[2] ? where(g, condition, zero, dy!) : null]
  },
  reference([condition, a, b]) {
    return [{ shape: a.shape, data: a.data.map((v, i) => (condition.data[i] > 0 ? v : b.data[i])) }]
  },
  cases: [
    { name: 'matrices', inputs: [distinct([5, 7]), normal([5, 7]), normal([5, 7])], attrs: {} },
    { name: 'zero is not above 0', inputs: [floats([0, -0, 1e-30, -1]), normal([4]), normal([4])], attrs: {} },
  ],
}

export const add = (g: Graph, a: Tensor, b: Tensor): Tensor => g.apply(addOp, [a, b], {})[0]
export const sub = (g: Graph, a: Tensor, b: Tensor): Tensor => g.apply(subOp, [a, b], {})[0]
export const mul = (g: Graph, a: Tensor, b: Tensor): Tensor => g.apply(mulOp, [a, b], {})[0]
export const div = (g: Graph, a: Tensor, b: Tensor): Tensor => g.apply(divOp, [a, b], {})[0]
export const min = (g: Graph, a: Tensor, b: Tensor): Tensor => g.apply(minOp, [a, b], {})[0]
export const max = (g: Graph, a: Tensor, b: Tensor): Tensor => g.apply(maxOp, [a, b], {})[0]
/** log(exp(a) + exp(b)) */
export const logAddExp = (g: Graph, a: Tensor, b: Tensor): Tensor => g.apply(logAddExpOp, [a, b], {})[0]
/** a times a constant. */
export const scale = (g: Graph, a: Tensor, factor: number): Tensor => g.apply(scaleOp, [a], { factor })[0]
export const exp = (g: Graph, a: Tensor): Tensor => g.apply(expOp, [a], {})[0]
export const log = (g: Graph, a: Tensor): Tensor => g.apply(logOp, [a], {})[0]
/** log(1 + a) */
export const log1p = (g: Graph, a: Tensor): Tensor => g.apply(log1pOp, [a], {})[0]
export const clamp = (g: Graph, a: Tensor, lo: number, hi: number): Tensor => g.apply(clampOp, [a], { lo, hi })[0]
/** condition > 0 ? a : b */
export const where = (g: Graph, condition: Tensor, a: Tensor, b: Tensor): Tensor =>
  g.apply(whereOp, [condition, a, b], {})[0]
