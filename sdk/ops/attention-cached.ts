import type { Graph, Tensor } from '../graph/graph.ts'
import type { OpSpec } from '../graph/spec.ts'
import { array } from './array.ts'
import { type AttentionAttrs, checkHeads } from './attention.ts'
import { frozen, ints, normal } from './cases.ts'
import { f32, signature } from './signature.ts'

const parameters = signature(
  'attentionCached',
  'q[R,HD]',
  'cacheK[S,P,GD]',
  'cacheV[S,P,GD]',
  'slots[R]:i32',
  'positions[R]:i32',
)

/** Row r attends to positions 0..positions[r] of cache slot slots[r]. Position -1 is padding: zeros. */
export const attentionCachedOp: OpSpec<AttentionAttrs> = {
  name: 'attentionCached',
  infer(inputs, attrs) {
    const { R, HD } = parameters(inputs)
    checkHeads('attentionCached', inputs[0], inputs[1], attrs)
    return [f32(R, HD)]
  },
  reference([q, cacheK, cacheV, slots, positions], { heads, kvHeads, scale }) {
    const [rows, width] = q.shape
    const [, capacity, kvWidth] = cacheK.shape
    const d = width / heads
    const out = array(rows, width)
    for (let r = 0; r < rows; r++)
      for (let h = 0; h < heads; h++) {
        const first = slots.data[r] * capacity * kvWidth + Math.floor(h / (heads / kvHeads)) * d
        const scores: number[] = []
        for (let j = 0; j <= positions.data[r]; j++) {
          let dot = 0
          for (let c = 0; c < d; c++) dot += q.data[r * width + h * d + c] * cacheK.data[first + j * kvWidth + c]
          scores.push(dot * scale)
        }
        const top = Math.max(...scores)
        const total = scores.reduce((sum, s) => sum + Math.exp(s - top), 0)
        scores.forEach((s, j) => {
          const p = Math.exp(s - top) / total
          for (let c = 0; c < d; c++) out.data[r * width + h * d + c] += p * cacheV.data[first + j * kvWidth + c]
        })
      }
    return [out]
  },
  cases: [
    {
      name: 'prefill chunk',
      inputs: [
        normal([5, 48]),
        frozen('f32', [2, 9, 16]),
        frozen('f32', [2, 9, 16]),
        ints([1, 1, 1, 1, 1]),
        ints([3, 4, 5, 6, 7]),
      ],
      attrs: { heads: 6, kvHeads: 2, scale: 0.35 },
    },
    {
      name: 'decode, padding rows',
      inputs: [
        normal([4, 20]),
        frozen('f32', [4, 70, 10]),
        frozen('f32', [4, 70, 10]),
        ints([2, 0, 3, 1]),
        ints([69, -1, 0, 33]),
      ],
      attrs: { heads: 2, kvHeads: 1, scale: 0.3 },
    },
    {
      name: 'one row, peaked',
      inputs: [normal([1, 64], 12), frozen('f32', [1, 67, 64]), frozen('f32', [1, 67, 64]), ints([0]), ints([66])],
      attrs: { heads: 1, kvHeads: 1, scale: 0.125 },
    },
  ],
}

/** q [R, heads*D], caches [S, P, kvHeads*D], slots and positions i32[R] -> [R, heads*D]. No gradient. */
export const attentionCached = (
  g: Graph,
  q: Tensor,
  cacheK: Tensor,
  cacheV: Tensor,
  slots: Tensor,
  positions: Tensor,
  attrs: AttentionAttrs,
): Tensor => g.apply(attentionCachedOp, [q, cacheK, cacheV, slots, positions], attrs)[0]
