import type { Graph, Tensor } from '../graph/graph.ts'
import type { OpSpec } from '../graph/spec.ts'
import { array } from './array.ts'
import { frozen, normal, trained, vectorDTypes } from './cases.ts'
import { rmsnormBack, rmsnormBackWeight } from './rmsnorm-back.ts'
import { gradientState, noGradient, signature } from './signature.ts'

/** y = x / sqrt(mean(x²) + eps) · (offset + w) by row; the reciprocal root is kept for the reverse pass. */
export const rmsnormOp: OpSpec<{ eps: number; offset: number }> = {
  name: 'rmsnorm',
  infer: signature('rmsnorm', 'x[M,C], w[C]:vector -> [M,C] [M]'),
  vjp(g, { inputs: [x, w], outputs: [, rstd], attrs }, [dy, dRstd], need) {
    noGradient('rmsnorm', 'rstd', dRstd)
    if (!dy) return [null, null]
    if (need[1]) rmsnormBackWeight(g, dy, x, rstd, gradientState(g, 'rmsnorm', 'w', w))
    return [need[0] ? rmsnormBack(g, dy, x, w, rstd, attrs.offset) : null, null]
  },
  reference([x, w], { eps, offset }) {
    const [m, c] = x.shape
    const y = array(m, c)
    const rstd = array(m)
    for (let r = 0; r < m; r++) {
      let squares = 0
      for (let k = 0; k < c; k++) squares += x.data[r * c + k] ** 2
      rstd.data[r] = 1 / Math.sqrt(squares / c + eps)
      for (let k = 0; k < c; k++) y.data[r * c + k] = x.data[r * c + k] * rstd.data[r] * (offset + w.data[k])
    }
    return [y, rstd]
  },
  cases: [
    ...vectorDTypes.map((dtype) => ({
      name: dtype,
      inputs: [normal([7, 65]), frozen(dtype, [65], 0.2, 1)],
      attrs: { eps: 1e-6, offset: 0 },
    })),
    { name: 'trained', inputs: [normal([33, 7]), trained([7], 0.2, 1)], attrs: { eps: 1e-5, offset: 0 } },
    { name: 'one row, large', inputs: [normal([1, 130], 100), trained([130], 1)], attrs: { eps: 1e-6, offset: 0 } },
    {
      name: 'tiny values, eps matters',
      inputs: [normal([3, 5], 1e-3), trained([5], 1)],
      attrs: { eps: 1e-5, offset: 0 },
    },
    { name: '1 + w, trained', inputs: [normal([5, 35]), trained([35], 0.2)], attrs: { eps: 1e-6, offset: 1 } },
    { name: '1 + w, bf16', inputs: [normal([7, 65]), frozen('bf16', [65], 0.2)], attrs: { eps: 1e-6, offset: 1 } },
  ],
}

/** Root-mean-square norm by row, times offset + w: x [M, C], w [C] -> [y [M, C], rstd [M]]. */
export const rmsnorm = (g: Graph, x: Tensor, w: Tensor, eps: number, offset = 0): [y: Tensor, rstd: Tensor] =>
  g.apply(rmsnormOp, [x, w], { eps, offset }) as [Tensor, Tensor]
