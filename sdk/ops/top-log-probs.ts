import { ShapeError } from '../errors.ts'
import type { Graph, Tensor } from '../graph/graph.ts'
import type { OpSpec } from '../graph/spec.ts'
import { LOG_ZERO } from '../log-zero.ts'
import { array } from './array.ts'
import { floats, normal } from './cases.ts'
import { signature } from './signature.ts'

type Attrs = { readonly k: number }

/** The k likeliest ids of each row, most likely first and lower ids first among equals; the mass of all others as a log. */
export const topLogProbsOp: OpSpec<Attrs> = {
  name: 'topLogProbs',
  infer: signature('topLogProbs', 'logits[R,V], temperature[1] -> [R,k]:i32 [R,k] [R]', ({ V }, _, { k }: Attrs) => {
    if (!Number.isInteger(k) || k < 1 || k > V) throw new ShapeError(`topLogProbs: k is ${k}, of ${V} ids`)
  }),
  reference([logits, { data: temperature }], { k }) {
    const [rows, vocabulary] = logits.shape
    const [ids, logProbs, tail] = [array(rows, k), array(rows, k), array(rows)]
    for (let r = 0; r < rows; r++) {
      const z = logits.data.slice(r * vocabulary, (r + 1) * vocabulary).map((v) => v / temperature[0])
      const order = [...z.keys()].sort((a, b) => z[b] - z[a] || a - b)
      const top = z[order[0]]
      const mass = (list: readonly number[]) => list.reduce((sum, v) => sum + Math.exp(z[v] - top), 0)
      const total = top + Math.log(mass(order))
      for (let i = 0; i < k; i++) {
        ids.data[r * k + i] = order[i]
        logProbs.data[r * k + i] = z[order[i]] - total
      }
      tail.data[r] = k < vocabulary ? top + Math.log(mass(order.slice(k))) - total : LOG_ZERO
    }
    return [ids, logProbs, tail]
  },
  cases: [
    { name: 'odd sizes', inputs: [normal([3, 131], 2), floats([1])], attrs: { k: 7 } },
    { name: 'one row, one id', inputs: [normal([1, 37], 2), floats([0.7])], attrs: { k: 1 } },
    { name: 'the whole vocabulary', inputs: [normal([2, 9], 1), floats([1.5])], attrs: { k: 9 } },
    { name: 'many rows', inputs: [normal([33, 517], 3), floats([2])], attrs: { k: 16 } },
    {
      name: 'ties take the lowest ids',
      inputs: [floats([1, 3, 2, 3, 3, 0, 3, 2, 2, 1], [1, 10]), floats([1])],
      attrs: { k: 5 },
    },
    {
      name: 'a peaked row keeps the log of a tiny tail',
      inputs: [floats([30, 0, -1, 0.5, 1, -2, 0, 0, 1], [1, 9]), floats([1])],
      attrs: { k: 2 },
    },
  ],
}

/** logits [R, V], temperature [1] -> ids i32[R, k], log-probabilities at T [R, k], log of the mass outside them [R]. */
export const topLogProbs = (
  g: Graph,
  logits: Tensor,
  temperature: Tensor,
  k: number,
): [ids: Tensor, logProbs: Tensor, tail: Tensor] =>
  g.apply(topLogProbsOp, [logits, temperature], { k }) as [Tensor, Tensor, Tensor]
