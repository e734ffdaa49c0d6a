import type { Graph, Tensor } from '../graph/graph.ts'
import type { OpSpec } from '../graph/spec.ts'
import { array } from './array.ts'
import { floats, normal } from './cases.ts'
import { f32, signature } from './signature.ts'

const parameters = signature('swiglu', 'gate[N,I]', 'up[N,I]')
const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x))

/** silu(gate)·up, silu(x) = x·sigmoid(x) */
export const swigluOp: OpSpec = {
  name: 'swiglu',
  inplace: [
    [0, 0],
    [1, 0],
  ],
  infer(inputs) {
    const { N, I } = parameters(inputs)
    return [f32(N, I)]
  },
  vjp(g, { inputs: [gate, up] }, [dy]) {
    return swigluBack(g, dy!, gate, up)
  },
  reference([gate, up]) {
    return [{ shape: gate.shape, data: gate.data.map((x, i) => x * sigmoid(x) * up.data[i]) }]
  },
  cases: [
    { name: 'rows', inputs: [normal([7, 65], 2), normal([7, 65])], attrs: {} },
    { name: 'one row', inputs: [normal([1, 3]), normal([1, 3])], attrs: {} },
    { name: 'saturated', inputs: [floats([-100, -30, -1, 0, 1, 30, 100], [1, 7]), normal([1, 7])], attrs: {} },
  ],
}

/** gate and up [N, I] -> silu(gate)·up. */
export const swiglu = (g: Graph, gate: Tensor, up: Tensor): Tensor => g.apply(swigluOp, [gate, up], {})[0]

const backArguments = signature('swigluBack', 'dy[N,I]', 'gate[N,I]', 'up[N,I]')

/** dgate = dy·up·s·(1 + gate·(1 - s)), dup = dy·gate·s with s = sigmoid(gate). In place only if all three are read first. */
export const swigluBackOp: OpSpec = {
  name: 'swigluBack',
  inplace: [
    [1, 0],
    [2, 1],
  ],
  infer(inputs) {
    const { N, I } = backArguments(inputs)
    return [f32(N, I), f32(N, I)]
  },
  reference([dy, gate, up]) {
    const dgate = array(...gate.shape)
    const dup = array(...gate.shape)
    gate.data.forEach((x, i) => {
      const s = sigmoid(x)
      dgate.data[i] = dy.data[i] * up.data[i] * s * (1 + x * (1 - s))
      dup.data[i] = dy.data[i] * x * s
    })
    return [dgate, dup]
  },
  cases: [
    { name: 'rows', inputs: [normal([7, 65]), normal([7, 65], 2), normal([7, 65])], attrs: {} },
    {
      name: 'saturated',
      inputs: [normal([1, 7]), floats([-100, -30, -1, 0, 1, 30, 100], [1, 7]), normal([1, 7])],
      attrs: {},
    },
  ],
}

export const swigluBack = (g: Graph, dy: Tensor, gate: Tensor, up: Tensor): [dgate: Tensor, dup: Tensor] =>
  g.apply(swigluBackOp, [dy, gate, up], {}) as [Tensor, Tensor]
