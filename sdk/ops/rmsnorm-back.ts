import type { Graph, Tensor } from '../graph/graph.ts'
import type { OpSpec } from '../graph/spec.ts'
import { array, copyOf } from './array.ts'
import { frozen, normal, vectorDTypes } from './cases.ts'
import { signature } from './signature.ts'

/** dx = rstd·(dy·v - x·rstd²·mean(dy·v·x)) with v = offset + w */
export const rmsnormBackOp: OpSpec<{ offset: number }> = {
  name: 'rmsnormBack',
  infer: signature('rmsnormBack', 'dy[M,C], x[M,C], w[C]:vector, rstd[M] -> [M,C]'),
  reference([dy, x, w, rstd], { offset }) {
    const [m, c] = x.shape
    const dx = array(m, c)
    for (let r = 0; r < m; r++) {
      const s = rstd.data[r]
      let dot = 0
      for (let k = 0; k < c; k++) dot += dy.data[r * c + k] * (offset + w.data[k]) * x.data[r * c + k]
      for (let k = 0; k < c; k++)
        dx.data[r * c + k] = s * (dy.data[r * c + k] * (offset + w.data[k]) - (x.data[r * c + k] * s * s * dot) / c)
    }
    return [dx]
  },
  cases: [
    ...vectorDTypes.map((dtype) => ({
      name: dtype,
      inputs: [normal([5, 33]), normal([5, 33]), frozen(dtype, [33], 0.2, 1), normal([5], 0.1, 1)],
      attrs: { offset: 0 },
    })),
    ...[0, 1].map((offset) => ({
      name: `one row, offset ${offset}`,
      inputs: [normal([1, 130]), normal([1, 130]), frozen('f32', [130]), normal([1], 0.1, 1)],
      attrs: { offset },
    })),
  ],
}

export const rmsnormBack = (g: Graph, dy: Tensor, x: Tensor, w: Tensor, rstd: Tensor, offset: number): Tensor =>
  g.apply(rmsnormBackOp, [dy, x, w, rstd], { offset })[0]

/** grad += sum over rows of dy·x·rstd */
export const rmsnormBackWeightOp: OpSpec = {
  name: 'rmsnormBackWeight',
  state: [[3, 0]],
  infer: signature('rmsnormBackWeight', 'dy[M,C], x[M,C], rstd[M], grad[C] -> [C]'),
  reference([dy, x, rstd, grad]) {
    const [m, c] = x.shape
    const out = copyOf(grad)
    for (let r = 0; r < m; r++)
      for (let k = 0; k < c; k++) out.data[k] += dy.data[r * c + k] * x.data[r * c + k] * rstd.data[r]
    return [out]
  },
  cases: [
    { name: 'rows', inputs: [normal([65, 33]), normal([65, 33]), normal([65], 0.1, 1), normal([33])], attrs: {} },
    { name: 'one row', inputs: [normal([1, 7]), normal([1, 7]), normal([1], 0.1, 1), normal([7])], attrs: {} },
  ],
}

export const rmsnormBackWeight = (g: Graph, dy: Tensor, x: Tensor, rstd: Tensor, grad: Tensor): Tensor =>
  g.apply(rmsnormBackWeightOp, [dy, x, rstd, grad], {})[0]
