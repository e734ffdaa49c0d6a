import { floatDTypes } from '../dtype.ts'
import type { Graph, Tensor } from '../graph/graph.ts'
import type { OpSpec } from '../graph/spec.ts'
import { array, copyOf } from './array.ts'
import { frozen, normal } from './cases.ts'
import { signature } from './signature.ts'

/** dx = dy·w */
export const linearBackInputOp: OpSpec = {
  name: 'linearBackInput',
  infer: signature('linearBackInput', 'dy[N,O], w[O,I]:weight -> [N,I]'),
  reference([dy, w]) {
    const n = dy.shape[0]
    const [o, i] = w.shape
    const dx = array(n, i)
    for (let r = 0; r < n; r++)
      for (let c = 0; c < o; c++)
        for (let k = 0; k < i; k++) dx.data[r * i + k] += dy.data[r * o + c] * w.data[c * i + k]
    return [dx]
  },
  cases: [
    ...floatDTypes.flatMap((dtype) => [
      { name: `${dtype}, one row`, inputs: [normal([1, 33]), frozen(dtype, [33, 96])], attrs: {} },
      { name: `${dtype}, rows`, inputs: [normal([7, 65]), frozen(dtype, [65, 160])], attrs: {} },
      { name: `${dtype}, across tiles`, inputs: [normal([65, 130]), frozen(dtype, [130, 64])], attrs: {} },
    ]),
    { name: 'odd lengths', inputs: [normal([3, 5]), frozen('f32', [5, 7])], attrs: {} },
    { name: 'long inner axis', inputs: [normal([3, 1031]), frozen('f16', [1031, 35])], attrs: {} },
  ],
}

export const linearBackInput = (g: Graph, dy: Tensor, w: Tensor): Tensor => g.apply(linearBackInputOp, [dy, w], {})[0]

/** grad += dyᵀ·x */
export const linearBackWeightOp: OpSpec = {
  name: 'linearBackWeight',
  state: [[2, 0]],
  infer: signature('linearBackWeight', 'dy[N,O], x[N,I], grad[O,I] -> [O,I]'),
  reference([dy, x, grad]) {
    const [n, i] = x.shape
    const o = dy.shape[1]
    const out = copyOf(grad)
    for (let r = 0; r < n; r++)
      for (let c = 0; c < o; c++)
        for (let k = 0; k < i; k++) out.data[c * i + k] += dy.data[r * o + c] * x.data[r * i + k]
    return [out]
  },
  cases: [
    { name: 'odd lengths', inputs: [normal([3, 5]), normal([3, 7]), normal([5, 7])], attrs: {} },
    { name: 'one row', inputs: [normal([1, 33]), normal([1, 65]), normal([33, 65])], attrs: {} },
    { name: 'low rank', inputs: [normal([67, 8]), normal([67, 130]), normal([8, 130])], attrs: {} },
    { name: 'low rank, the other way', inputs: [normal([67, 130]), normal([67, 8]), normal([130, 8])], attrs: {} },
    { name: 'across tiles', inputs: [normal([130, 65]), normal([130, 33]), normal([65, 33])], attrs: {} },
    { name: 'many rows', inputs: [normal([517, 9]), normal([517, 11]), normal([9, 11])], attrs: {} },
  ],
}

/** Returns the next version of `grad`. */
export const linearBackWeight = (g: Graph, dy: Tensor, x: Tensor, grad: Tensor): Tensor =>
  g.apply(linearBackWeightOp, [dy, x, grad], {})[0]

/** grad += column sums of dy */
export const linearBackBiasOp: OpSpec = {
  name: 'linearBackBias',
  state: [[1, 0]],
  infer: signature('linearBackBias', 'dy[N,O], grad[O] -> [O]'),
  reference([dy, grad]) {
    const [n, o] = dy.shape
    const out = copyOf(grad)
    for (let r = 0; r < n; r++) for (let c = 0; c < o; c++) out.data[c] += dy.data[r * o + c]
    return [out]
  },
  cases: [
    { name: 'rows', inputs: [normal([130, 33]), normal([33])], attrs: {} },
    { name: 'one row', inputs: [normal([1, 5]), normal([5])], attrs: {} },
  ],
}

/** Returns the next version of `grad`. */
export const linearBackBias = (g: Graph, dy: Tensor, grad: Tensor): Tensor =>
  g.apply(linearBackBiasOp, [dy, grad], {})[0]
