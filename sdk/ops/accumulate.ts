import { describe, sameShape } from '../dtype.ts'
import { ShapeError } from '../errors.ts'
import type { Graph, Tensor } from '../graph/graph.ts'
import type { OpSpec } from '../graph/spec.ts'
import { normal } from './cases.ts'
import { f32, signature } from './signature.ts'

const parameters = signature('accumulate', 'state[...]', 'x[...]')

/** state += x */
export const accumulateOp: OpSpec = {
  name: 'accumulate',
  state: [[0, 0]],
  infer(inputs) {
    parameters(inputs)
    const [state, x] = inputs
    if (!sameShape(state.shape, x.shape))
      throw new ShapeError(`accumulate: x is ${describe(x)}, expected the shape of state ${describe(state)}`)
    return [f32(...state.shape)]
  },
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
