import { floatDTypes } from '../dtype.ts'
import type { Graph, Tensor } from '../graph/graph.ts'
import type { OpSpec } from '../graph/spec.ts'
import { array } from './array.ts'
import { frozen, normal, trained, vectorDTypes } from './cases.ts'
import { linearBackBias, linearBackInput, linearBackWeight } from './linear-back.ts'
import { gradientState, signature } from './signature.ts'

/** y = x·wᵀ + b */
export const linearOp: OpSpec = {
  name: 'linear',
  infer: signature('linear', 'x[N,I], w[O,I]:weight, b[O]?:vector -> [N,O]'),
  vjp(g, { inputs: [x, w, b] }, [dy], need) {
    if (need[1]) linearBackWeight(g, dy!, x, gradientState(g, 'linear', 'w', w))
    if (need[2]) linearBackBias(g, dy!, gradientState(g, 'linear', 'b', b))
    return [need[0] ? linearBackInput(g, dy!, w) : null, null, null]
  },
  reference([x, w, b]) {
    const [n, i] = x.shape
    const o = w.shape[0]
    const y = array(n, o)
    for (let r = 0; r < n; r++)
      for (let c = 0; c < o; c++) {
        let sum = b ? b.data[c] : 0
        for (let k = 0; k < i; k++) sum += x.data[r * i + k] * w.data[c * i + k]
        y.data[r * o + c] = sum
      }
    return [y]
  },
  cases: [
    ...floatDTypes.flatMap((dtype) => [
      { name: `${dtype}, one row`, inputs: [normal([1, 544]), frozen(dtype, [33, 544])], attrs: {} },
      { name: `${dtype}, rows`, inputs: [normal([7, 160]), frozen(dtype, [65, 160]), frozen('f32', [65])], attrs: {} },
      { name: `${dtype}, across tiles`, inputs: [normal([65, 64]), frozen(dtype, [130, 64])], attrs: {} },
    ]),
    ...vectorDTypes.map((dtype) => ({
      name: `bias ${dtype}`,
      inputs: [normal([3, 5]), frozen('f32', [7, 5]), frozen(dtype, [7])],
      attrs: {},
    })),
    { name: 'trained', inputs: [normal([5, 33]), trained([7, 33]), trained([7])], attrs: {} },
    { name: 'trained, one by one', inputs: [normal([1, 1]), trained([1, 1]), trained([1])], attrs: {} },
    { name: 'trained, across tiles', inputs: [normal([33, 65]), trained([67, 65])], attrs: {} },
    { name: 'long inner axis', inputs: [normal([3, 1031]), frozen('f32', [5, 1031])], attrs: {} },
    { name: 'few rows, long', inputs: [normal([3, 544]), frozen('q8', [6, 544]), frozen('f32', [6])], attrs: {} },
  ],
}

/** x [N, I], w [O, I] of any weight dtype, b [O] -> x·wᵀ + b [N, O]. Also the vocabulary logits. */
export const linear = (g: Graph, x: Tensor, w: Tensor, b?: Tensor): Tensor =>
  g.apply(linearOp, b ? [x, w, b] : [x, w], {})[0]
