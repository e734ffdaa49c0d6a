import * as kernels from '../../../kernels-wgsl/attention.ts'
import { byteLength } from '../../../sdk/dtype.ts'
import { columnsOf, direct, each, type Lowering, rowsOf, threads, windowOf } from './types.ts'

export const attention = {
  attention: direct(({ inputs, outputs }, { heads, kvHeads, scale, window }) => {
    const n = rowsOf(inputs[0])
    const kernel = kernels.attention(columnsOf(inputs[0]) / heads)
    return [threads(kernel, n * heads, [...inputs, ...outputs], [n, heads, kvHeads, scale, windowOf(window)])]
  }),
  attentionCached: direct(({ inputs, outputs }, { scale, window }) => {
    const [q, cache, , , slot] = inputs
    const [, kvHeads, capacity, d] = cache.shape
    const heads = columnsOf(q) / d
    const params = [capacity, heads, kvHeads, scale, windowOf(window)]
    const kernel = kernels.attentionCached(d, slot !== undefined)
    return [{ kernel, args: [...inputs, ...outputs], params, groups: rowsOf(q) * heads }]
  }),
  attentionBack: ({ inputs, attrs: { heads, kvHeads, scale, window } }) => ({
    // dout·out of each token and head, as the log-sum-exp
    scratchBytes: byteLength(inputs[5]),
    calls({ inputs: [dout, q, k, v, out, lse, starts], outputs: [dq, dk, dv], scratch: delta }) {
      const [n, d] = [rowsOf(q), columnsOf(q) / heads]
      const read = [dout, q, k, v, lse, delta, starts]
      const params = [n, heads, kvHeads, scale, windowOf(window)]
      return [
        each(kernels.attentionDelta(d), n * heads, [dout, out, delta]),
        threads(kernels.attentionBackQuery(d), n * heads, [...read, dq], params),
        threads(kernels.attentionBackKeys(d), n * kvHeads, [...read, dk, dv], params),
      ]
    },
  }),
} satisfies Partial<Lowering>
