import { floatDTypes } from '../dtype.ts'
import type { Graph, Tensor } from '../graph/graph.ts'
import type { OpSpec } from '../graph/spec.ts'
import { array, copyOf } from './array.ts'
import { frozen, ints, normal, spread, trained } from './cases.ts'
import { gradientState, signature } from './signature.ts'

export const embedOp: OpSpec = {
  name: 'embed',
  infer: signature('embed', 'ids[N]:i32, table[V,C]:weight -> [N,C]'),
  vjp(g, { inputs: [ids, table] }, [dy], need) {
    if (need[1]) embedBack(g, dy!, ids, gradientState(g, 'embed', 'table', table))
    return [null, null]
  },
  reference([ids, table]) {
    const c = table.shape[1]
    const y = array(ids.shape[0], c)
    ids.data.forEach((id, n) => {
      y.data.set(table.data.subarray(id * c, (id + 1) * c), n * c)
    })
    return [y]
  },
  cases: [
    ...floatDTypes.map((dtype) => ({
      name: dtype,
      inputs: [ints(spread(7, 13)), frozen(dtype, [13, 96])],
      attrs: {},
    })),
    { name: 'one row', inputs: [ints([4]), frozen('f32', [5, 3])], attrs: {} },
    { name: 'trained, repeated ids', inputs: [ints([2, 0, 2, 4, 2]), trained([5, 7])], attrs: {} },
  ],
}

/** Rows of a table: ids i32[N], table [V, C] of any weight dtype -> [N, C]. */
export const embed = (g: Graph, ids: Tensor, table: Tensor): Tensor => g.apply(embedOp, [ids, table], {})[0]

export const embedBackOp: OpSpec = {
  name: 'embedBack',
  state: [[2, 0]],
  infer: signature('embedBack', 'dy[N,C], ids[N]:i32, grad[V,C] -> [V,C]'),
  reference([dy, ids, grad]) {
    const c = dy.shape[1]
    const out = copyOf(grad)
    ids.data.forEach((id, n) => {
      for (let k = 0; k < c; k++) out.data[id * c + k] += dy.data[n * c + k]
    })
    return [out]
  },
  cases: [
    { name: 'repeated ids', inputs: [normal([9, 33]), ints([3, 1, 3, 3, 0, 6, 1, 3, 6]), normal([7, 33])], attrs: {} },
    { name: 'one row', inputs: [normal([1, 5]), ints([2]), normal([3, 5])], attrs: {} },
  ],
}

/** grad[ids[n]] += dy[n]. Returns the next version of `grad`. */
export const embedBack = (g: Graph, dy: Tensor, ids: Tensor, grad: Tensor): Tensor =>
  g.apply(embedBackOp, [dy, ids, grad], {})[0]
