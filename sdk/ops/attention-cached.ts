import { type DType, describe } from '../dtype.ts'
import { ShapeError } from '../errors.ts'
import type { Graph, Tensor } from '../graph/graph.ts'
import type { OpCase, OpSpec } from '../graph/spec.ts'
import { array } from './array.ts'
import { firstSeen } from './attention.ts'
import { frozen, ints, normal } from './cases.ts'
import { checkCache } from './kv-cache.ts'
import { signature } from './signature.ts'

/** As in AttentionAttrs. */
type AttentionCachedAttrs = { scale: number; window: number }

/**
 * Row r attends to positions 0..positions[r], or its window of them, of slot r, or of slot `slot` where the rows are a chunk of one
 * slot. Query head h reads key/value head floor(h / (H/G)). Position -1 is padding: zeros.
 */
export const attentionCachedOp: OpSpec<AttentionCachedAttrs> = {
  name: 'attentionCached',
  infer: signature(
    'attentionCached',
    'q[R,HD], cacheK[S,G,P,D]:cache, cacheV[S,G,P,D]:cache, positions[R]:i32, slot[1]?:i32 -> [R,HD]',
    ({ HD, G, D }, [q, cache, values, positions, slot]) => {
      if (values.dtype !== cache.dtype)
        throw new ShapeError(
          `attentionCached: cacheV is ${describe(values)}, expected the dtype of cacheK ${describe(cache)}`,
        )
      if (HD % (G * D) !== 0)
        throw new ShapeError(
          `attentionCached: q is ${describe(q)} and cacheK ${describe(cache)}, expected [R, H*D] with H a multiple of G=${G}`,
        )
      checkCache('attentionCached', cache, positions, slot)
    },
  ),
  reference([q, cacheK, cacheV, positions, slot], { scale, window }) {
    const [rows, width] = q.shape
    const [, kvHeads, capacity, d] = cacheK.shape
    const heads = width / d
    const out = array(rows, width)
    for (let r = 0; r < rows; r++)
      for (let h = 0; h < heads; h++) {
        const g = (slot?.data[0] ?? r) * kvHeads + Math.floor(h / (heads / kvHeads))
        const begin = g * capacity * d
        const first = firstSeen(0, positions.data[r], window)
        const scores: number[] = []
        for (let j = first; j <= positions.data[r]; j++) {
          let dot = 0
          for (let c = 0; c < d; c++) dot += q.data[r * width + h * d + c] * cacheK.data[begin + j * d + c]
          scores.push(dot * scale)
        }
        const top = Math.max(...scores)
        const total = scores.reduce((sum, s) => sum + Math.exp(s - top), 0)
        scores.forEach((s, at) => {
          const p = Math.exp(s - top) / total
          for (let c = 0; c < d; c++) out.data[r * width + h * d + c] += p * cacheV.data[begin + (first + at) * d + c]
        })
      }
    return [out]
  },
  cases: [
    one('prefill chunk', [2, 2, 9, 8], 48, [3, 4, 5, 6, 7], { slot: 1 }),
    one('prefill chunk, many rows, padding rows', [3, 3, 70, 6], 36, [...chunk(19, 44), -1, -1], { slot: 2 }),
    one('prefill chunk, a window across tiles', [2, 2, 150, 6], 24, [0, 3, ...chunk(4, 99), 149, -1, -1], {
      slot: 1,
      window: 70,
    }),
    one('decode, padding rows', [4, 1, 70, 10], 20, [69, -1, 0, 33]),
    one('decode, a window', [4, 1, 70, 10], 20, [69, -1, 0, 33], { window: 5 }),
    one('decode, fewer rows than slots, several heads', [5, 2, 17, 10], 60, [16, 4, 9]),
    one('one row, peaked', [1, 1, 67, 64], 64, [66], { peak: 12 }),
    one('f16, prefill chunk, many rows', [3, 3, 70, 6], 36, [...chunk(19, 44), -1], { slot: 2, dtype: 'f16' }),
    one('f16, decode, a window', [4, 2, 700, 12], 24, [699, -1, 0, 533], { window: 90, dtype: 'f16' }),
  ],
}

function chunk(rows: number, from: number): number[] {
  return Array.from({ length: rows }, (_, r) => from + r)
}

/** `cache`: [S, G, P, D], `width`: H*D. */
function one(
  name: string,
  cache: readonly number[],
  width: number,
  positions: readonly number[],
  { slot, window = 0, peak = 1, dtype = 'f32' }: { slot?: number; window?: number; peak?: number; dtype?: DType } = {},
): OpCase<AttentionCachedAttrs> {
  const inputs = [normal([positions.length, width], peak), frozen(dtype, cache), frozen(dtype, cache), ints(positions)]
  const attrs = { scale: 1 / Math.sqrt(cache[3]), window }
  return { name, inputs: [...inputs, ...(slot === undefined ? [] : [ints([slot])])], attrs }
}

/** q [R, H*D], caches [S, G, P, D], positions i32[R], slot i32[1] or left out -> [R, H*D]. No gradient. */
export const attentionCached = (
  g: Graph,
  q: Tensor,
  cacheK: Tensor,
  cacheV: Tensor,
  positions: Tensor,
  slot: Tensor | undefined,
  attrs: AttentionCachedAttrs,
): Tensor => g.apply(attentionCachedOp, [q, cacheK, cacheV, positions, ...(slot ? [slot] : [])], attrs)[0]
