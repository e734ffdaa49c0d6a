import type { Graph, Tensor } from '../graph/graph.ts'
import type { NdArray, OpSpec } from '../graph/spec.ts'
import { LOG_ZERO } from '../log-zero.ts'
import { array, copyOf } from './array.ts'
import { floats, normal } from './cases.ts'
import { signature } from './signature.ts'
import { vocabCases } from './vocab-cases.ts'
import { vocabularyRow } from './vocab-pick.ts'

const gradients = 'dLogProbs[R,K], dLse[R], dEntropy[R], dTail[R]'
const forward = 'ids[R,K]:i32, temperature[1], lse[R], entropy[R], tail[R]'

/**
 * dz of one row: Σ_k dLogProb_k·(δ_k - p) + dLse·p - dEntropy·p·(log p + H) + dTail·(outside·exp(z - lse - tail) - p).
 * Where nothing is outside the ids, the tail is a constant and has no gradient.
 */
function rowGradient(inputs: readonly NdArray[], row: number): Float64Array {
  const [dLogProbs, dLse, dEntropy, dTail, h, table, ids, { data: temperature }, lse, entropy, tail] = inputs
  const k = ids.shape[1]
  const own = ids.data.subarray(row * k, (row + 1) * k)
  const z = vocabularyRow(h.data, table.data, row, h.shape[1], temperature[0])
  const tailGradient = tail.data[row] > LOG_ZERO / 10 ? dTail.data[row] : 0
  let picked = 0
  own.forEach((id, j) => {
    if (id >= 0) picked += dLogProbs.data[row * k + j]
  })
  const dz = z.map((value, v) => {
    const logP = value - lse.data[row]
    const p = Math.exp(logP)
    let grad = p * (dLse.data[row] - picked - dEntropy.data[row] * (logP + entropy.data[row]) - tailGradient)
    if (tailGradient !== 0 && !own.includes(v)) grad += tailGradient * Math.exp(logP - tail.data[row])
    return grad
  })
  own.forEach((id, j) => {
    if (id >= 0) dz[id] += dLogProbs.data[row * k + j]
  })
  return dz
}

/** dh = dz·table/T, with dz by rowGradient */
export const vocabPickBackOp: OpSpec = {
  name: 'vocabPickBack',
  infer: signature('vocabPickBack', `${gradients}, h[R,C], table[V,C]:weight, ${forward} -> [R,C]`),
  reference(inputs) {
    const [h, table, , { data: temperature }] = inputs.slice(4)
    const [rows, c] = h.shape
    const dh = array(rows, c)
    for (let r = 0; r < rows; r++)
      rowGradient(inputs, r).forEach((dz, v) => {
        for (let i = 0; i < c; i++) dh.data[r * c + i] += (dz * table.data[v * c + i]) / temperature[0]
      })
    return [dh]
  },
  cases: backCases([]),
}

/** `all`: the four gradients, then h, table, ids, temperature, lse, entropy, tail. Returns dh [R, C]. */
export const vocabPickBack = (g: Graph, all: readonly Tensor[]): Tensor => g.apply(vocabPickBackOp, all, {})[0]

/** grad += dzᵀ·h/T */
export const vocabPickBackTableOp: OpSpec = {
  name: 'vocabPickBackTable',
  state: [[11, 0]],
  infer: signature('vocabPickBackTable', `${gradients}, h[R,C], table[V,C], ${forward}, grad[V,C] -> [V,C]`),
  reference(inputs) {
    const [h, , , { data: temperature }] = inputs.slice(4)
    const [rows, c] = h.shape
    const out = copyOf(inputs[11])
    for (let r = 0; r < rows; r++)
      rowGradient(inputs, r).forEach((dz, v) => {
        for (let i = 0; i < c; i++) out.data[v * c + i] += (dz * h.data[r * c + i]) / temperature[0]
      })
    return [out]
  },
  cases: backCases(['grad']).filter((c) => c.inputs[5].type.dtype === 'f32'),
}

/** `all` as for vocabPickBack. Returns the next version of `grad` [V, C]. */
export const vocabPickBackTable = (g: Graph, all: readonly Tensor[], grad: Tensor): Tensor =>
  g.apply(vocabPickBackTableOp, [...all, grad], {})[0]

// lse, entropy and tail need not belong to h: the formula holds for any, as long as the exponents stay small.
function backCases(state: readonly 'grad'[]) {
  return vocabCases((h, table, ids, temperature, { rows, k }) => [
    normal([rows, k]),
    normal([rows]),
    normal([rows]),
    normal([rows]),
    h,
    table,
    ids,
    temperature,
    normal([rows], 0.1, Math.max(6, (h.fill.kind === 'normal' ? (h.fill.scale ?? 1) : 1) * 14)),
    normal([rows], 0.1, 2),
    k === table.type.shape[0] ? floats(new Array<number>(rows).fill(LOG_ZERO)) : normal([rows], 0.1, -0.5),
    ...state.map(() => normal(table.type.shape)),
  ])
}
