import type { Graph, Tensor } from '../graph/graph.ts'
import type { OpSpec } from '../graph/spec.ts'
import { normal } from './cases.ts'
import { signature } from './signature.ts'

/** state += x */
export const accumulateOp: OpSpec = {
  name: 'accumulate',
  state: [[0, 0]],
  infer: signature('accumulate', 'state[...], x[...] -> [...]'),
  reference([state, x]) {
    return [{ shape: state.shape, data: state.data.map((v, i) => v + x.data[i]) }]
  },
  cases: [
    { name: 'vector', inputs: [normal([33]), normal([33])], attrs: {} },
    { name: 'matrix', inputs: [normal([3, 7]), normal([3, 7])], attrs: {} },
  ],
}

/** state += x of the same shape. Returns the next version of `state`. */
export const accumulate = (g: Graph, state: Tensor, x: Tensor): Tensor => g.apply(accumulateOp, [state, x], {})[0]
