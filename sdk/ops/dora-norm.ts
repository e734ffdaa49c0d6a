import { floatDTypes } from '../dtype.ts'
import type { Graph, Tensor } from '../graph/graph.ts'
import type { OpSpec } from '../graph/spec.ts'
import { array } from './array.ts'
import { floats, frozen, trained } from './cases.ts'
import { signature } from './signature.ts'

/** Length of each row of w + scale·B·A. Detached: PEFT sends no gradient through it. */
export const doraNormOp: OpSpec = {
  name: 'doraNorm',
  infer: signature('doraNorm', 'w[O,I]:weight, A[r,I], B[O,r], scale[1] -> [O]'),
  reference([w, a, b, { data: scale }]) {
    const [o, i] = w.shape
    const r = a.shape[0]
    const norm = array(o)
    for (let c = 0; c < o; c++) {
      let squares = 0
      for (let k = 0; k < i; k++) {
        let low = 0
        for (let q = 0; q < r; q++) low += b.data[c * r + q] * a.data[q * i + k]
        squares += (w.data[c * i + k] + scale[0] * low) ** 2
      }
      norm.data[c] = Math.sqrt(squares)
    }
    return [norm]
  },
  cases: [
    ...floatDTypes.map((dtype) => ({
      name: dtype,
      inputs: [frozen(dtype, [33, 96]), trained([8, 96]), trained([33, 8]), floats([2])],
      attrs: {},
    })),
    {
      name: 'odd lengths',
      inputs: [frozen('f32', [5, 7]), trained([3, 7]), trained([5, 3]), floats([0.5])],
      attrs: {},
    },
  ],
}

/** w [O, I] of any weight dtype, A [r, I], B [O, r], scale [1] -> row norms of w + scale·B·A [O]. */
export const doraNorm = (g: Graph, w: Tensor, a: Tensor, b: Tensor, scale: Tensor): Tensor =>
  g.apply(doraNormOp, [w, a, b, scale], {})[0]
