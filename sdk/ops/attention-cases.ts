import type { CaseInput, OpCase } from '../graph/spec.ts'
import type { AttentionAttrs } from './attention.ts'
import { ints, normal, startsOf } from './cases.ts'

/** Shapes that attention and its reverse are held to: segments, grouped heads, one row, sizes across tiles, peaked scores. */
export function attentionCases(
  inputs: (
    q: CaseInput,
    k: CaseInput,
    v: CaseInput,
    starts: CaseInput,
    size: { n: number; heads: number; width: number; peak: number },
  ) => CaseInput[],
): OpCase<AttentionAttrs>[] {
  const one = (
    name: string,
    {
      lengths,
      heads,
      kvHeads,
      d,
      peak = 1,
      window = 0,
    }: { lengths: number[]; heads: number; kvHeads: number; d: number; peak?: number; window?: number },
  ): OpCase<AttentionAttrs> => {
    const n = lengths.reduce((a, b) => a + b)
    const width = heads * d
    const [q, k, v] = [normal([n, width], peak), normal([n, kvHeads * d]), normal([n, kvHeads * d])]
    return {
      name,
      inputs: inputs(q, k, v, ints(startsOf(lengths)), { n, heads, width, peak }),
      attrs: { heads, kvHeads, scale: 1 / Math.sqrt(d), window },
    }
  }
  return [
    one('one row', { lengths: [1], heads: 1, kvHeads: 1, d: 4 }),
    one('one segment', { lengths: [7], heads: 2, kvHeads: 2, d: 8 }),
    one('segments, grouped heads', { lengths: [3, 1, 5, 2], heads: 6, kvHeads: 2, d: 16 }),
    one('odd head size', { lengths: [5, 4], heads: 3, kvHeads: 1, d: 10 }),
    one('across tiles', { lengths: [67, 33, 30], heads: 2, kvHeads: 1, d: 8 }),
    one('window', { lengths: [3, 1, 9, 5], heads: 4, kvHeads: 2, d: 8, window: 3 }),
    one('window across tiles', { lengths: [67, 150], heads: 2, kvHeads: 1, d: 6, window: 70 }),
    one('peaked', { lengths: [9, 24], heads: 2, kvHeads: 1, d: 64, peak: 10 }),
  ]
}
