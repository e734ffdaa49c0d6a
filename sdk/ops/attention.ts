import { describe, type TensorType } from '../dtype.ts'
import { ShapeError } from '../errors.ts'
import type { Graph, Tensor } from '../graph/graph.ts'
import type { OpSpec } from '../graph/spec.ts'
import { array } from './array.ts'
import { attentionBack } from './attention-back.ts'
import { attentionCases } from './attention-cases.ts'
import { noGradient, signature } from './signature.ts'

/**
 * `scale` multiplies q·k: 1/sqrt(D) as a rule. Query head h reads key/value head floor(h / (heads/kvHeads)). `window`: a token sees so
 * many, itself among them; 0: all.
 */
export type AttentionAttrs = { heads: number; kvHeads: number; scale: number; window: number }

/** The first position that a window shows at position i, where everything begins at `start`. */
export const firstSeen = (start: number, i: number, window: number): number =>
  window > 0 ? Math.max(start, i + 1 - window) : start

/** Throws unless q [.., heads*D] and k [.., kvHeads*D] agree on D. */
export function checkHeads(op: string, q: TensorType, k: TensorType, { heads, kvHeads }: AttentionAttrs): void {
  const size = q.shape.at(-1)! / heads
  if (!Number.isInteger(size) || k.shape.at(-1) !== size * kvHeads || heads % kvHeads !== 0)
    throw new ShapeError(
      `${op}: q is ${describe(q)} and k ${describe(k)}, expected heads*D and kvHeads*D with heads=${heads} a multiple of kvHeads=${kvHeads}`,
    )
}

/** Causal within a packed segment: token i attends to starts[i]..i, or its window of them. Keeps the log-sum-exp of each head. */
export const attentionOp: OpSpec<AttentionAttrs> = {
  name: 'attention',
  infer: signature<AttentionAttrs>(
    'attention',
    'q[N,HD], k[N,GD], v[N,GD], starts[N]:i32 -> [N,HD] [N,heads]',
    (_, [q, k], attrs) => checkHeads('attention', q, k, attrs),
  ),
  vjp(g, { inputs: [q, k, v, starts], outputs: [out, lse], attrs }, [dout, dLse]) {
    noGradient('attention', 'lse', dLse)
    if (!dout) return [null, null, null, null]
    return [...attentionBack(g, dout, q, k, v, out, lse, starts, attrs), null]
  },
  reference([q, k, v, starts], { heads, kvHeads, scale, window }) {
    const [n, width] = q.shape
    const d = width / heads
    const kvWidth = kvHeads * d
    const out = array(n, width)
    const lse = array(n, heads)
    for (let i = 0; i < n; i++) {
      const first = firstSeen(starts.data[i], i, window)
      for (let h = 0; h < heads; h++) {
        const shared = Math.floor(h / (heads / kvHeads)) * d
        const scores: number[] = []
        for (let j = first; j <= i; j++) {
          let dot = 0
          for (let c = 0; c < d; c++) dot += q.data[i * width + h * d + c] * k.data[j * kvWidth + shared + c]
          scores.push(dot * scale)
        }
        const top = Math.max(...scores)
        const total = scores.reduce((sum, s) => sum + Math.exp(s - top), 0)
        lse.data[i * heads + h] = top + Math.log(total)
        scores.forEach((s, at) => {
          const p = Math.exp(s - top) / total
          const row = (first + at) * kvWidth + shared
          for (let c = 0; c < d; c++) out.data[i * width + h * d + c] += p * v.data[row + c]
        })
      }
    }
    return [out, lse]
  },
  cases: attentionCases((q, k, v, starts) => [q, k, v, starts]),
}

/** q [N, heads*D], k and v [N, kvHeads*D], starts i32[N] -> [out [N, heads*D], lse [N, heads]]. */
export const attention = (
  g: Graph,
  q: Tensor,
  k: Tensor,
  v: Tensor,
  starts: Tensor,
  attrs: AttentionAttrs,
): [out: Tensor, lse: Tensor] => g.apply(attentionOp, [q, k, v, starts], attrs) as [Tensor, Tensor]
