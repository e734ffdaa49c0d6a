import type { Graph, Tensor } from '../graph/graph.ts'
import type { OpSpec } from '../graph/spec.ts'
import { array } from './array.ts'
import { frozen, normal, trained, vectorDTypes } from './cases.ts'
import { linearBackBias } from './linear-back.ts'
import { gradientState, signature } from './signature.ts'

/** out = y·gain + b by column */
export const scaleColumnsOp: OpSpec = {
  name: 'scaleColumns',
  inplace: [[0, 0]],
  infer: signature('scaleColumns', 'y[N,O], gain[O], b[O]?:vector -> [N,O]'),
  vjp(g, { inputs: [y, gain, b] }, [dy], need) {
    if (need[2]) linearBackBias(g, dy!, gradientState(g, 'scaleColumns', 'b', b))
    return [need[0] ? scaleColumns(g, dy!, gain) : null, need[1] ? scaleColumnsBack(g, dy!, y) : null, null]
  },
  reference([y, gain, b]) {
    const [n, o] = y.shape
    const out = array(n, o)
    for (let r = 0; r < n; r++)
      for (let c = 0; c < o; c++) out.data[r * o + c] = y.data[r * o + c] * gain.data[c] + (b ? b.data[c] : 0)
    return [out]
  },
  cases: [
    ...vectorDTypes.map((dtype) => ({
      name: `bias ${dtype}`,
      inputs: [normal([7, 33]), normal([33]), frozen(dtype, [33])],
      attrs: {},
    })),
    { name: 'no bias, one row', inputs: [normal([1, 65]), normal([65])], attrs: {} },
    { name: 'trained', inputs: [normal([35, 5]), trained([5]), trained([5])], attrs: {} },
  ],
}

/** y [N, O], gain [O], b [O] -> y·gain + b by column. */
export const scaleColumns = (g: Graph, y: Tensor, gain: Tensor, b?: Tensor): Tensor =>
  g.apply(scaleColumnsOp, b ? [y, gain, b] : [y, gain], {})[0]

/** Gradient of the gain: column sums of dy·y */
export const scaleColumnsBackOp: OpSpec = {
  name: 'scaleColumnsBack',
  infer: signature('scaleColumnsBack', 'dy[N,O], y[N,O] -> [O]'),
  reference([dy, y]) {
    const [n, o] = y.shape
    const sums = array(o)
    for (let r = 0; r < n; r++) for (let c = 0; c < o; c++) sums.data[c] += dy.data[r * o + c] * y.data[r * o + c]
    return [sums]
  },
  cases: [
    { name: 'rows', inputs: [normal([130, 33]), normal([130, 33])], attrs: {} },
    { name: 'one row', inputs: [normal([1, 5]), normal([1, 5])], attrs: {} },
  ],
}

export const scaleColumnsBack = (g: Graph, dy: Tensor, y: Tensor): Tensor => g.apply(scaleColumnsBackOp, [dy, y], {})[0]
