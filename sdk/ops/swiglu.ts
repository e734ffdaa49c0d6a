import type { Graph, Tensor } from '../graph/graph.ts'
import type { OpSpec } from '../graph/spec.ts'
import { array } from './array.ts'
import { floats, normal } from './cases.ts'
import { signature } from './signature.ts'

export const activations = ['silu', 'gelu_tanh'] as const
export type Activation = (typeof activations)[number]
const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x))

/** u and its slope: silu(x) = x·sigmoid(x), and x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³))) = x·sigmoid(twice that argument). */
const inner = (activation: Activation, x: number): readonly [u: number, slope: number] => {
  if (activation === 'silu') return [x, 1]
  const c = 2 * Math.sqrt(2 / Math.PI)
  return [c * (x + 0.044715 * x ** 3), c * (1 + 3 * 0.044715 * x ** 2)]
}

type SwigluAttrs = { activation: Activation }

/** activation(gate)·up */
export const swigluOp: OpSpec<SwigluAttrs> = {
  name: 'swiglu',
  inplace: [
    [0, 0],
    [1, 0],
  ],
  infer: signature('swiglu', 'gate[N,I], up[N,I] -> [N,I]'),
  vjp(g, { inputs: [gate, up], attrs }, [dy]) {
    return swigluBack(g, dy!, gate, up, attrs.activation)
  },
  reference([gate, up], { activation }) {
    return [{ shape: gate.shape, data: gate.data.map((x, i) => x * sigmoid(inner(activation, x)[0]) * up.data[i]) }]
  },
  cases: activations.flatMap((activation) => [
    { name: `${activation}, rows`, inputs: [normal([7, 65], 2), normal([7, 65])], attrs: { activation } },
    { name: `${activation}, one row`, inputs: [normal([1, 3]), normal([1, 3])], attrs: { activation } },
    {
      name: `${activation}, saturated`,
      inputs: [floats([-100, -30, -1, 0, 1, 30, 100], [1, 7]), normal([1, 7])],
      attrs: { activation },
    },
  ]),
}

/** gate and up [N, I] -> activation(gate)·up. */
export const swiglu = (g: Graph, gate: Tensor, up: Tensor, activation: Activation = 'silu'): Tensor =>
  g.apply(swigluOp, [gate, up], { activation })[0]

/** dgate = dy·up·s·(1 + gate·u'·(1 - s)), dup = dy·gate·s with s = sigmoid(u(gate)). In place only if all three are read first. */
export const swigluBackOp: OpSpec<SwigluAttrs> = {
  name: 'swigluBack',
  inplace: [
    [1, 0],
    [2, 1],
  ],
  infer: signature('swigluBack', 'dy[N,I], gate[N,I], up[N,I] -> [N,I] [N,I]'),
  reference([dy, gate, up], { activation }) {
    const dgate = array(...gate.shape)
    const dup = array(...gate.shape)
    gate.data.forEach((x, i) => {
      const [u, slope] = inner(activation, x)
      const s = sigmoid(u)
      dgate.data[i] = dy.data[i] * up.data[i] * s * (1 + x * slope * (1 - s))
      dup.data[i] = dy.data[i] * x * s
    })
    return [dgate, dup]
  },
  cases: activations.flatMap((activation) => [
    {
      name: `${activation}, rows`,
      inputs: [normal([7, 65]), normal([7, 65], 2), normal([7, 65])],
      attrs: { activation },
    },
    {
      name: `${activation}, saturated`,
      inputs: [normal([1, 7]), floats([-100, -30, -1, 0, 1, 30, 100], [1, 7]), normal([1, 7])],
      attrs: { activation },
    },
  ]),
}

export const swigluBack = (
  g: Graph,
  dy: Tensor,
  gate: Tensor,
  up: Tensor,
  activation: Activation = 'silu',
): [dgate: Tensor, dup: Tensor] => g.apply(swigluBackOp, [dy, gate, up], { activation }) as [Tensor, Tensor]
