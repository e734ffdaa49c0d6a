import { describe } from '../dtype.ts'
import { ShapeError } from '../errors.ts'
import type { Graph, Tensor } from '../graph/graph.ts'
import type { OpSpec } from '../graph/spec.ts'
import { array, copyOf } from './array.ts'
import { floats, frozen, ints, normal, trained } from './cases.ts'
import { linearBackWeight } from './linear-back.ts'
import { gradientState, noGradient, signature } from './signature.ts'

/**
 * h = scale·x·Aᵀ, out = y + h·Bᵀ. A [n, r, I] and B [n, O, r] hold n adapters, one below the other: row i takes the adapter of[i], -1
 * none (h is zeros then). Without `of` there is one adapter for all rows.
 */
export const loraOp: OpSpec = {
  name: 'lora',
  inplace: [[0, 0]],
  infer: signature(
    'lora',
    'y[N,O], x[N,I], A[nr,I], B[nO,r], scale[n], of[N]?:i32 -> [N,O] [N,r]',
    ({ O, r, nr, nO, n }, [, , a, b, scale, of]) => {
      if (nr !== n * r || nO !== n * O || (n > 1 && !of))
        throw new ShapeError(
          `lora: A is ${describe(a)} and B ${describe(b)}, expected [n*r, I] and [n*O=${O}, r] of the n adapters of scale ${describe(scale)}${of ? '' : ', one without `of`'}`,
        )
    },
  ),
  vjp(g, { inputs: [, x, a, b, scale, of], outputs: [, h] }, [dy, dH], need) {
    noGradient('lora', 'h', dH)
    if (of) throw new ShapeError('lora: no gradient flows through adapters by row; train one, without `of`')
    if (!dy) return [null, null, null, null, null]
    const [dx, t] = loraBack(g, dy, a, b, scale)
    if (need[2]) linearBackWeight(g, t, x, gradientState(g, 'lora', 'A', a))
    if (need[3]) linearBackWeight(g, dy, h, gradientState(g, 'lora', 'B', b))
    return [dy, dx, null, null, null]
  },
  reference([y, x, a, b, { data: scale }, of]) {
    const [n, i] = x.shape
    const [, o] = y.shape
    const [, r] = b.shape
    const h = array(n, r)
    const out = copyOf(y)
    for (let row = 0; row < n; row++) {
      const own = of?.data[row] ?? 0
      if (own < 0) continue
      for (let q = 0; q < r; q++) {
        let sum = 0
        for (let k = 0; k < i; k++) sum += x.data[row * i + k] * a.data[(own * r + q) * i + k]
        h.data[row * r + q] = scale[own] * sum
      }
      for (let c = 0; c < o; c++)
        for (let q = 0; q < r; q++) out.data[row * o + c] += h.data[row * r + q] * b.data[(own * o + c) * r + q]
    }
    return [out, h]
  },
  cases: [
    {
      name: 'trained',
      inputs: [normal([7, 33]), normal([7, 65]), trained([8, 65]), trained([33, 8]), floats([2])],
      attrs: {},
    },
    {
      name: 'frozen, one row',
      inputs: [normal([1, 5]), normal([1, 7]), frozen('f32', [16, 7]), frozen('f32', [5, 16]), floats([0.5])],
      attrs: {},
    },
    {
      name: 'odd rank, across tiles',
      inputs: [normal([67, 35]), normal([67, 130]), trained([3, 130]), trained([35, 3]), floats([-1.25])],
      attrs: {},
    },
    {
      name: 'three adapters by row, and none',
      inputs: [
        normal([7, 33]),
        normal([7, 65]),
        frozen('f32', [24, 65]),
        frozen('f32', [99, 8]),
        floats([2, -0.5, 1]),
        ints([1, -1, 0, 2, 2, -1, 1]),
      ],
      attrs: {},
    },
    {
      name: 'one adapter, by row',
      inputs: [
        normal([3, 5]),
        normal([3, 7]),
        frozen('f32', [16, 7]),
        frozen('f32', [5, 16]),
        floats([0.5]),
        ints([0, -1, 0]),
      ],
      attrs: {},
    },
  ],
}

/**
 * Low-rank update: y [N, O], x [N, I], A [n*r, I], B [n*O, r], scale [n], of i32[N] or left out (n is 1 then)
 * -> [y + scale·x·Aᵀ·Bᵀ [N, O], h [N, r]].
 */
export const lora = (
  g: Graph,
  y: Tensor,
  x: Tensor,
  a: Tensor,
  b: Tensor,
  scale: Tensor,
  of?: Tensor,
): [out: Tensor, h: Tensor] => g.apply(loraOp, [y, x, a, b, scale, ...(of ? [of] : [])], {}) as [Tensor, Tensor]

/** t = scale·dy·B, dx = t·A */
export const loraBackOp: OpSpec = {
  name: 'loraBack',
  infer: signature('loraBack', 'dy[N,O], A[r,I], B[O,r], scale[1] -> [N,I] [N,r]'),
  reference([dy, a, b, { data: scale }]) {
    const [n, o] = dy.shape
    const [r, i] = a.shape
    const t = array(n, r)
    const dx = array(n, i)
    for (let row = 0; row < n; row++)
      for (let q = 0; q < r; q++) {
        let sum = 0
        for (let c = 0; c < o; c++) sum += dy.data[row * o + c] * b.data[c * r + q]
        t.data[row * r + q] = scale[0] * sum
        for (let k = 0; k < i; k++) dx.data[row * i + k] += t.data[row * r + q] * a.data[q * i + k]
      }
    return [dx, t]
  },
  cases: [
    { name: 'rows', inputs: [normal([7, 33]), trained([8, 65]), trained([33, 8]), floats([2])], attrs: {} },
    { name: 'one row', inputs: [normal([1, 5]), trained([16, 7]), trained([5, 16]), floats([0.5])], attrs: {} },
    {
      name: 'odd rank, across tiles',
      inputs: [normal([67, 35]), trained([3, 130]), trained([35, 3]), floats([-1.25])],
      attrs: {},
    },
  ],
}

export const loraBack = (g: Graph, dy: Tensor, a: Tensor, b: Tensor, scale: Tensor): [dx: Tensor, t: Tensor] =>
  g.apply(loraBackOp, [dy, a, b, scale], {}) as [Tensor, Tensor]
