import type { Graph, Tensor } from '../graph/graph.ts'
import type { OpSpec } from '../graph/spec.ts'
import { array } from './array.ts'
import { floats, normal } from './cases.ts'
import { signature } from './signature.ts'

/**
 * N independent draws a row from the full softmax, by inverse CDF in id order: the first id whose cumulated mass exceeds the
 * uniform. The uniforms of a row ascend, so that one pass serves all.
 */
export const drawTokensOp: OpSpec = {
  name: 'drawTokens',
  infer: signature('drawTokens', 'logits[R,V], temperature[1], uniforms[R,N] -> [R,N]:i32'),
  reference([logits, { data: temperature }, uniforms]) {
    const [rows, vocabulary] = logits.shape
    const draws = uniforms.shape[1]
    const ids = array(rows, draws)
    for (let r = 0; r < rows; r++) {
      const z = logits.data.slice(r * vocabulary, (r + 1) * vocabulary).map((v) => v / temperature[0])
      const top = z.reduce((a, b) => Math.max(a, b))
      const masses = z.map((v) => Math.exp(v - top))
      const total = masses.reduce((a, b) => a + b)
      for (let n = 0; n < draws; n++) {
        let [cumulated, id] = [0, 0]
        for (let v = 0; v < vocabulary; v++) {
          if (masses[v] === 0) continue
          cumulated += masses[v]
          id = v
          if (cumulated > uniforms.data[r * draws + n] * total) break
        }
        ids.data[r * draws + n] = id
      }
    }
    return [ids]
  },
  cases: [
    {
      name: 'odd sizes',
      inputs: [normal([2, 67], 2), floats([1]), floats([0.02, 0.31, 0.9, 0.1, 0.1, 0.53], [2, 3])],
      attrs: {},
    },
    {
      name: 'at a temperature, from end to end',
      inputs: [normal([1, 131], 1), floats([1.5]), floats([0, 0.25, 0.5, 0.75, 0.99999], [1, 5])],
      attrs: {},
    },
    {
      name: 'what has no mass is not drawn',
      inputs: [floats([-1e30, 0, -1e30, 0, -1e30], [1, 5]), floats([1]), floats([0, 0.49, 0.51, 0.9999999], [1, 4])],
      attrs: {},
    },
  ],
}

/** logits [R, V], temperature [1], uniforms [R, N] in [0, 1), ascending in each row -> ids i32[R, N], ascending. */
export const drawTokens = (g: Graph, logits: Tensor, temperature: Tensor, uniforms: Tensor): Tensor =>
  g.apply(drawTokensOp, [logits, temperature, uniforms], {})[0]
