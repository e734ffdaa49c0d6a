import { describe } from '../dtype.ts'
import { ShapeError } from '../errors.ts'
import type { Graph, Tensor } from '../graph/graph.ts'
import type { OpSpec } from '../graph/spec.ts'
import { array, copyOf } from './array.ts'
import { floats, ints, normal } from './cases.ts'
import { signature } from './signature.ts'

const parameters = signature(
  'sample',
  'logits[S,V], temperature[S], topK[S]:i32, topP[S], minP[S], uniform[S], editRow[E]:i32, editId[E]:i32, editBias[E], penalties[S,3]?, counts[C,V]?:i32 -> [S]:i32 [S] [S]',
  ({ S, C }, [logits, , , , , , , , , penalties, counts]) => {
    if (penalties && !counts) throw new ShapeError('sample: penalties come with counts, the last argument')
    if (C < S)
      throw new ShapeError(`sample: counts is ${describe(counts)}, expected a row for each of ${describe(logits)}`)
  },
)

export interface SampleControls {
  /** [S], 0: greedy */
  readonly temperature: Tensor
  /** i32[S], 0: off */
  readonly topK: Tensor
  /** [S], 1: off */
  readonly topP: Tensor
  /** [S], 0: off */
  readonly minP: Tensor
  /** [S], in [0, 1) */
  readonly uniform: Tensor
  /** i32[E], -1: no edit */
  readonly editRow: Tensor
  /** i32[E] */
  readonly editId: Tensor
  /** [E]: added to the logit; LOG_ZERO bans */
  readonly editBias: Tensor
}

/** What the penalties for tokens that were seen already go by. */
export interface SamplePenalties {
  /** [S, 3]: repetition (1: off), frequency and presence (0: off) */
  readonly penalties: Tensor
  /** State i32[C, V], C >= S: twice the times that a token was drawn, and one more where it occurs in the prompt. A draw adds 2. */
  readonly counts: Tensor
}

/** Which ids stay, given z = logits/T: top-k, top-p, min-p one after the other as transformers' logits warpers. */
function truncate(z: Float64Array, topK: number, topP: number, minP: number): number[] {
  // most probable first, lower ids first among equals
  let kept = [...z.keys()].sort((a, b) => z[b] - z[a] || a - b)
  const top = z[kept[0]]
  if (topK > 0 && topK < z.length) {
    const least = z[kept[topK - 1]]
    kept = kept.filter((v) => z[v] >= least)
  }
  if (topP < 1) {
    const total = kept.reduce((sum, v) => sum + Math.exp(z[v] - top), 0)
    // mass of this id and of all less probable ones
    let mass = 1
    const stays = kept.map((v, i) => {
      const stay = i === 0 || mass > 1 - topP
      mass -= Math.exp(z[v] - top) / total
      return stay
    })
    kept = kept.filter((_, i) => stays[i])
  }
  if (minP > 0) kept = kept.filter((v, i) => i === 0 || Math.exp(z[v] - top) >= minP)
  return kept.sort((a, b) => a - b)
}

/**
 * Penalties (repetition: l > 0 ? l/r : l*r for a token of the prompt or the answer; then frequency and presence, for one of the
 * answer), edits, then temperature, top-k, top-p, min-p, then inverse CDF in id order: the first id whose cumulated mass exceeds
 * `uniform`. Temperature 0 takes the lowest id among equal maxima and reports log-probabilities at temperature 1.
 */
export const sampleOp: OpSpec = {
  name: 'sample',
  state: [[10, 3]],
  infer: (inputs, attrs) => [...parameters(inputs, attrs), ...inputs.slice(10)],
  reference([logits, temperature, topK, topP, minP, uniform, editRow, editId, editBias, penalties, counts]) {
    const [slots, vocabulary] = logits.shape
    const [ids, logProb, truncatedLogProb] = [array(slots), array(slots), array(slots)]
    const seen = counts && copyOf(counts)
    for (let s = 0; s < slots; s++) {
      const z = logits.data.slice(s * vocabulary, (s + 1) * vocabulary)
      if (counts) {
        const [repetition, frequency, presence] = penalties.data.subarray(3 * s)
        counts.data.subarray(s * vocabulary, (s + 1) * vocabulary).forEach((count, v) => {
          const drawn = count >> 1
          if (count > 0) z[v] = z[v] > 0 ? z[v] / repetition : z[v] * repetition
          if (drawn > 0) z[v] -= frequency * drawn + presence
        })
      }
      editRow.data.forEach((row, e) => {
        if (row !== s) return
        z[editId.data[e]] += editBias.data[e]
      })
      const greedy = temperature.data[s] === 0
      if (!greedy) for (let v = 0; v < vocabulary; v++) z[v] /= temperature.data[s]
      const top = z.reduce((a, b) => Math.max(a, b))
      const mass = (list: Iterable<number>) => {
        let sum = 0
        for (const v of list) sum += Math.exp(z[v] - top)
        return sum
      }
      const kept = truncate(z, topK.data[s], topP.data[s], minP.data[s])
      const keptMass = mass(kept)
      let id = z.indexOf(top)
      if (!greedy) {
        let cumulated = 0
        const target = uniform.data[s] * keptMass
        for (const v of kept) {
          const p = Math.exp(z[v] - top)
          cumulated += p
          if (p > 0) id = v
          if (cumulated > target) break
        }
      }
      ids.data[s] = id
      if (seen) seen.data[s * vocabulary + id] += 2
      logProb.data[s] = z[id] - top - Math.log(mass(z.keys()))
      truncatedLogProb.data[s] = z[id] - top - Math.log(keptMass)
    }
    return [ids, logProb, truncatedLogProb, ...(seen ? [seen] : [])]
  },
  cases: [
    {
      name: 'all off',
      inputs: controls([4, 131], [1, 0.7, 1.5, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], [0.137, 0.5, 0.93, 0.4]),
      attrs: {},
    },
    {
      name: 'each truncation',
      inputs: controls([4, 67], [1, 0.8, 1, 1.3], [5, 0, 0, 0], [1, 0.6, 1, 1], [0, 0, 0.2, 0], [0.3, 0.71, 0.55, 0]),
      attrs: {},
    },
    {
      name: 'all truncations together',
      inputs: controls([3, 1031], [0.9, 1.1, 0], [20, 50, 3], [0.8, 0.95, 0.5], [0.05, 0.1, 0.3], [0.21, 0.77, 0.5]),
      attrs: {},
    },
    {
      name: 'greedy ties take the lowest id',
      inputs: [floats([1, 3, 2, 3, 3], [1, 5]), ...controls([1, 5], [0], [0], [1], [0], [0.9]).slice(1)],
      attrs: {},
    },
    {
      name: 'ties at the border of top-k stay',
      inputs: [floats([1, 2, 2, 2, 0], [1, 5]), ...controls([1, 5], [1], [2], [1], [0], [0.9]).slice(1)],
      attrs: {},
    },
    {
      name: 'edits: bias, ban, padding',
      inputs: [
        floats([2, -1, 0.5, 1, 3, -2, 0, 1, 2, 3], [2, 5]),
        floats([0, 1]),
        ints([0, 0]),
        floats([1, 1]),
        floats([0, 0]),
        floats([0.5, 0.8]),
        ints([0, 0, 1, -1, 0, 1]),
        ints([4, 1, 4, 0, 0, 0]),
        floats([-4, 4, -1e30, 9, 0.25, 0.5]),
      ],
      attrs: {},
    },
    {
      name: 'penalties for what was seen',
      inputs: [
        floats([2, -1, 0.5, 1, 3, -2, 0, 1, 2, 3, 1, 1, 1, 1, 1], [3, 5]),
        floats([0, 1, 0.7]),
        ints([0, 0, 3]),
        floats([1, 1, 0.9]),
        floats([0, 0, 0]),
        floats([0.5, 0.8, 0.31]),
        ints([0, 1]),
        ints([2, 0]),
        floats([0.25, 1]),
        floats([1.5, 0.25, 0.5, 1, 0, 0, 0.8, -0.5, 1.25], [3, 3]),
        ints([1, 2, 0, 5, 4, 2, 3, 1, 0, 8, 0, 1, 2, 3, 6, 9, 9, 9, 9, 9], [4, 5]),
      ],
      attrs: {},
    },
    {
      name: 'penalties over a larger vocabulary',
      inputs: [
        ...controls([2, 517], [1.1, 0], [40, 0], [0.95, 1], [0.01, 0], [0.63, 0.5]),
        floats([1.2, 0.1, 0.3, 1.3, 0, 0], [2, 3]),
        ints(
          Array.from({ length: 2 * 517 }, (_, i) => (i * 7) % 5),
          [2, 517],
        ),
      ],
      attrs: {},
    },
    {
      name: 'top-p keeps at least one',
      inputs: controls([2, 33], [1, 1], [0, 0], [0, 1e-6], [0, 0], [0.999, 0.5]),
      attrs: {},
    },
  ],
}

function controls(shape: number[], t: number[], k: number[], p: number[], m: number[], u: number[]) {
  return [normal(shape, 2), floats(t), ints(k), floats(p), floats(m), floats(u), ints([-1]), ints([0]), floats([0])]
}

/**
 * One id a row of logits [S, V]: the id i32[S], its log-probability under the full softmax at T (after penalties and edits) and under
 * the truncated one. With penalties the counts of row s are of the sequence in slot s.
 */
export const sample = (
  g: Graph,
  logits: Tensor,
  c: SampleControls,
  seen?: SamplePenalties,
): [id: Tensor, logProb: Tensor, truncatedLogProb: Tensor] => {
  const controls = [c.temperature, c.topK, c.topP, c.minP, c.uniform, c.editRow, c.editId, c.editBias]
  const inputs = [logits, ...controls, ...(seen ? [seen.penalties, seen.counts] : [])]
  const [id, logProb, truncatedLogProb] = g.apply(sampleOp, inputs, {})
  return [id, logProb, truncatedLogProb]
}
