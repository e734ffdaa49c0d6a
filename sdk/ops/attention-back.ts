import type { Graph, Tensor } from '../graph/graph.ts'
import type { OpSpec } from '../graph/spec.ts'
import { array } from './array.ts'
import { type AttentionAttrs, checkHeads, firstSeen } from './attention.ts'
import { attentionCases } from './attention-cases.ts'
import { normal } from './cases.ts'
import { signature } from './signature.ts'

/** p = exp(scale·q·k - lse); ds = p·(dout·v - dout·out); dq = scale·ds·k; dk = scale·dsᵀ·q; dv = pᵀ·dout */
export const attentionBackOp: OpSpec<AttentionAttrs> = {
  name: 'attentionBack',
  infer: signature<AttentionAttrs>(
    'attentionBack',
    'dout[N,HD], q[N,HD], k[N,GD], v[N,GD], out[N,HD], lse[N,heads], starts[N]:i32 -> [N,HD] [N,GD] [N,GD]',
    (_, [, q, k], attrs) => checkHeads('attentionBack', q, k, attrs),
  ),
  reference([dout, q, k, v, out, lse, starts], { heads, kvHeads, scale, window }) {
    const [n, width] = q.shape
    const d = width / heads
    const kvWidth = kvHeads * d
    const [dq, dk, dv] = [array(n, width), array(n, kvWidth), array(n, kvWidth)]
    for (let i = 0; i < n; i++)
      for (let h = 0; h < heads; h++) {
        const at = i * width + h * d
        let own = 0
        for (let c = 0; c < d; c++) own += dout.data[at + c] * out.data[at + c]
        for (let j = firstSeen(starts.data[i], i, window); j <= i; j++) {
          const row = j * kvWidth + Math.floor(h / (heads / kvHeads)) * d
          let dot = 0
          let dp = 0
          for (let c = 0; c < d; c++) {
            dot += q.data[at + c] * k.data[row + c]
            dp += dout.data[at + c] * v.data[row + c]
          }
          const p = Math.exp(dot * scale - lse.data[i * heads + h])
          const ds = p * (dp - own) * scale
          for (let c = 0; c < d; c++) {
            dq.data[at + c] += ds * k.data[row + c]
            dk.data[row + c] += ds * q.data[at + c]
            dv.data[row + c] += p * dout.data[at + c]
          }
        }
      }
    return [dq, dk, dv]
  },
  // out and lse need not belong to q, k, v: the formula holds for any, as long as exp(scale·q·k - lse) stays small.
  cases: attentionCases((q, k, v, starts, { n, heads, width, peak }) => [
    normal([n, width]),
    q,
    k,
    v,
    normal([n, width]),
    normal([n, heads], 0.1, peak > 1 ? 40 : 3),
    starts,
  ]),
}

export const attentionBack = (
  g: Graph,
  dout: Tensor,
  q: Tensor,
  k: Tensor,
  v: Tensor,
  out: Tensor,
  lse: Tensor,
  starts: Tensor,
  attrs: AttentionAttrs,
): [dq: Tensor, dk: Tensor, dv: Tensor] =>
  g.apply(attentionBackOp, [dout, q, k, v, out, lse, starts], attrs) as [Tensor, Tensor, Tensor]
