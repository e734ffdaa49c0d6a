import { isQuantized } from '../dtype.ts'
import type { Graph, Tensor } from '../graph/graph.ts'
import type { OpSpec } from '../graph/spec.ts'
import { LOG_ZERO } from '../log-zero.ts'
import { array } from './array.ts'
import { floats, frozen, ints, normal } from './cases.ts'
import { zeros } from './fill.ts'
import { type Activations, refuseRounded, roundActivations, rounded, roundedFor } from './linear.ts'
import { gradientState, signature } from './signature.ts'
import { vocabCases } from './vocab-cases.ts'
import { vocabPickBack, vocabPickBackTable } from './vocab-pick-back.ts'

/** z = h·tableᵀ/T of one row. */
export function vocabularyRow(h: Float64Array, table: Float64Array, row: number, c: number, t: number): Float64Array {
  const z = new Float64Array(table.length / c)
  for (let v = 0; v < z.length; v++) {
    let dot = 0
    for (let k = 0; k < c; k++) dot += h[row * c + k] * table[v * c + k]
    z[v] = dot / t
  }
  return z
}

function logSumExp(z: Iterable<number>): number {
  let top = Number.NEGATIVE_INFINITY
  for (const v of z) top = Math.max(top, v)
  let total = 0
  for (const v of z) total += Math.exp(v - top)
  return top + Math.log(total)
}

/**
 * Log-probabilities at chosen ids, log-sum-exp, entropy, and the log of the mass outside the ids (summed directly: 1 - Σ cancels).
 * Never holds [R, V]. Ids of a row are distinct except for -1, which gives 0.
 */
export const vocabPickOp: OpSpec<{ activations?: Activations }> = {
  name: 'vocabPick',
  infer: signature('vocabPick', 'h[R,C], table[V,C]:weight, ids[R,K]:i32, temperature[1] -> [R,K] [R] [R] [R]'),
  vjp(g, { inputs: [h, table, ids, temperature], outputs: [, lse, entropy, tail], attrs }, grads, need) {
    refuseRounded('vocabPick', attrs.activations)
    const [rows, k] = ids.shape
    const [dLogProbs, dLse, dEntropy, dTail] = grads
    const vector = () => zeros(g, [rows])
    const all = [
      dLogProbs ?? zeros(g, [rows, k]),
      dLse ?? vector(),
      dEntropy ?? vector(),
      dTail ?? vector(),
      h,
      table,
      ids,
      temperature,
      lse,
      entropy,
      tail,
    ]
    if (need[1]) vocabPickBackTable(g, all, gradientState(g, 'vocabPick', 'table', table))
    return [need[0] ? vocabPickBack(g, all) : null, null, null, null]
  },
  reference([h, table, ids, { data: temperature }], { activations }) {
    const input = roundActivations(h.data, activations)
    const [rows, c] = h.shape
    const k = ids.shape[1]
    const [logProbs, lse, entropy, tail] = [array(rows, k), array(rows), array(rows), array(rows)]
    for (let r = 0; r < rows; r++) {
      const z = vocabularyRow(input, table.data, r, c, temperature[0])
      const own = ids.data.subarray(r * k, (r + 1) * k)
      const total = logSumExp(z)
      lse.data[r] = total
      entropy.data[r] = total - z.reduce((sum, v) => sum + Math.exp(v - total) * v, 0)
      own.forEach((id, j) => {
        logProbs.data[r * k + j] = id < 0 ? 0 : z[id] - total
      })
      const outside = z.filter((_, v) => !own.includes(v))
      tail.data[r] = outside.length ? logSumExp(outside) - total : LOG_ZERO
    }
    return [logProbs, lse, entropy, tail]
  },
  cases: [
    ...vocabCases((h, table, ids, temperature) => [h, table, ids, temperature]),
    {
      name: 'rounded activations',
      inputs: [normal([5, 64]), frozen('q8', [131, 64], 0.2), ints([3, 7, 0, 130, 5], [5, 1]), floats([1])],
      ...rounded('q8'),
    },
  ],
}

/** h [R, C], table [V, C] of any weight dtype, ids i32[R, K] (-1: padding), temperature [1]. `activations`: as of linear. */
export const vocabPick = (
  g: Graph,
  h: Tensor,
  table: Tensor,
  ids: Tensor,
  temperature: Tensor,
  activations: Activations = 'f32',
): [logProbs: Tensor, lse: Tensor, entropy: Tensor, tail: Tensor] =>
  g.apply(
    vocabPickOp,
    [h, table, ids, temperature],
    isQuantized(table.dtype) ? { activations: roundedFor(table.dtype, activations) } : {},
  ) as [Tensor, Tensor, Tensor, Tensor]
