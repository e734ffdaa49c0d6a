import { describe, expect, it } from 'vitest'
import type { NdArray } from '../../sdk/graph/spec.ts'
import { ops } from '../../sdk/ops/index.ts'
import { normals } from '../suite.ts'

// References against other formulas for the same thing, where no gradient or golden speaks for them.
const nd = (shape: number[], values: ArrayLike<number>): NdArray => ({ shape, data: Float64Array.from(values) })
const random = (...shape: number[]) => {
  const draw = normals(shape.join())
  return nd(shape, Float64Array.from({ length: shape.reduce((a, b) => a * b) }, draw))
}

describe('sample', () => {
  const probabilities = [0.1, 0.4, 0.2, 0.3]
  const draw = (o: {
    t?: number
    k?: number
    p?: number
    m?: number
    u?: number
    edits?: number[][]
    penalties?: number[]
    counts?: number[]
    logits?: number[]
  }) => {
    const edits = o.edits ?? [[-1, 0, 0]]
    const logits = o.logits ?? probabilities.map(Math.log)
    const column = (i: number) =>
      nd(
        [edits.length],
        edits.map((e) => e[i]),
      )
    const one = (value: number) => nd([1], [value])
    const controls = [one(o.t ?? 1), one(o.k ?? 0), one(o.p ?? 1), one(o.m ?? 0), one(o.u ?? 0)]
    const seen = o.counts ? [nd([1, 3], o.penalties!), nd([1, o.counts.length], o.counts)] : []
    const inputs = [nd([1, logits.length], logits), ...controls, ...[0, 1, 2].map(column), ...seen]
    const [id, logProb, truncated, counts] = ops.sample.reference(inputs, {}).map((y) => y.data)
    return { id: id[0], p: Math.exp(logProb[0]), truncated: Math.exp(truncated[0]), counts: counts && [...counts] }
  }
  const ids = (o: Parameters<typeof draw>[0]) =>
    new Set(Array.from({ length: 100 }, (_, i) => draw({ ...o, u: i / 100 }).id))

  it('inverts the cumulated probabilities in id order', () => {
    expect([0, 0.099, 0.101, 0.499, 0.501, 0.699, 0.701, 0.999].map((u) => draw({ u }).id)).toEqual([
      0, 0, 1, 1, 2, 2, 3, 3,
    ])
    expect(draw({ u: 0.6 }).p).toBeCloseTo(0.2, 12)
  })

  it('truncates as transformers does', () => {
    expect(ids({ k: 2 })).toEqual(new Set([1, 3]))
    expect(ids({ p: 0.65 })).toEqual(new Set([1, 3]))
    expect(ids({ p: 0.75 })).toEqual(new Set([1, 2, 3]))
    expect(ids({ p: 0 })).toEqual(new Set([1]))
    expect(ids({ m: 0.6 })).toEqual(new Set([1, 3]))
    // top-p sees the distribution that top-k left: 4/7 and 3/7
    expect(ids({ k: 2, p: 0.55 })).toEqual(new Set([1]))
    expect(draw({ k: 2, u: 0.9 })).toMatchObject({ id: 3, p: expect.closeTo(0.3), truncated: expect.closeTo(3 / 7) })
  })

  it('applies temperature before top-p, and greedy reports at temperature 1', () => {
    // squares: 0.01, 0.16, 0.04, 0.09 of 0.3
    expect(draw({ t: 0.5, u: 0.5 })).toMatchObject({ id: 1, p: expect.closeTo(0.16 / 0.3) })
    expect(ids({ t: 0.5, p: 0.53 })).toEqual(new Set([1]))
    expect(draw({ t: 0, u: 0.99 })).toMatchObject({ id: 1, p: expect.closeTo(0.4) })
  })

  it('penalties by sign and by count, then bias; a ban leaves nothing; a draw is counted', () => {
    const logits = [2, -1, 1.5]
    const p = (z: number[], i: number) => Math.exp(z[i]) / z.reduce((a, v) => a + Math.exp(v), 0)
    // Both are in the prompt: 2/2 and -1*2, then the bias.
    const [penalties, counts] = [
      [2, 0.25, 0.5],
      [1, 1, 0],
    ]
    expect(draw({ logits, penalties, counts, edits: [[0, 1, 0.5]], t: 0 })).toMatchObject({
      id: 2,
      p: expect.closeTo(p([1, -1.5, 1.5], 2)),
      counts: [1, 1, 2],
    })
    // Drawn three times: 2/2 - 3*0.25 - 0.5; once, and in the prompt: 1.5/2 - 0.25 - 0.5.
    expect(draw({ logits, penalties, counts: [6, 0, 3], t: 0 })).toMatchObject({
      id: 2,
      p: expect.closeTo(p([-0.25, -1, 0], 2)),
      counts: [6, 0, 5],
    })
    expect(draw({ logits, edits: [[0, 0, -1e30]], t: 0 })).toMatchObject({
      id: 2,
      p: expect.closeTo(p([-1e3, -1, 1.5], 2)),
    })
  })
})

describe('vocabPick', () => {
  it('sums the tail directly: it keeps its digits where 1 - Σ has none', () => {
    // logits 40, 0, 0, 0: the three others have e^-40 each
    const table = nd([4, 1], [40, 0, 0, 0])
    const [logProbs, lse, entropy, tail] = ops.vocabPick.reference(
      [nd([1, 1], [1]), table, nd([1, 2], [0, -1]), nd([1], [1])],
      {},
    )
    expect(tail.data[0]).toBeCloseTo(Math.log(3) - 40, 10)
    expect([...logProbs.data]).toEqual([expect.closeTo(0, 12), 0])
    expect(lse.data[0]).toBeCloseTo(40, 12)
    expect(entropy.data[0]).toBeCloseTo(3 * 41 * Math.exp(-40), 12)
  })
})

describe('attention', () => {
  it('one segment after another equals the segments on their own; the cache gives the same', () => {
    const attrs = { heads: 4, kvHeads: 2, scale: 0.4, window: 0 }
    const [n, first] = [7, 3]
    const [q, k, v] = [random(n, 12), random(n, 6), random(n, 6)]
    const [packed] = ops.attention.reference([q, k, v, nd([n], [0, 0, 0, 3, 3, 3, 3])], attrs)
    const rest = (t: NdArray) => nd([n - first, t.shape[1]], t.data.subarray(first * t.shape[1]))
    const [alone] = ops.attention.reference([rest(q), rest(k), rest(v), nd([n - first], [0, 0, 0, 0])], attrs)
    expect(packed.data.subarray(first * 12)).toEqual(alone.data)
    // Row 0 of a segment sees itself only: its value, each head of it for two query heads.
    const [a, b] = [v.data.subarray(18, 21), v.data.subarray(21, 24)]
    expect([...packed.data.subarray(36, 48)]).toEqual([...a, ...a, ...b, ...b])
    // Slot 1 of [2, 2, 4, 3]: a head after the other.
    const cached = (t: NdArray) => {
      const head = (g: number) =>
        [3, 4, 5, 6].flatMap((row) => [...t.data.subarray(row * 6 + 3 * g, row * 6 + 3 * g + 3)])
      return nd([2, 2, 4, 3], [...new Array(24).fill(9), ...head(0), ...head(1)])
    }
    const [fromCache] = ops.attentionCached.reference(
      [rest(q), cached(k), cached(v), nd([4], [0, 1, 2, 3]), nd([1], [1])],
      { scale: attrs.scale, window: 0 },
    )
    fromCache.data.forEach((value, i) => {
      expect(value).toBeCloseTo(alone.data[i], 12)
    })
  })
})

describe('rope', () => {
  it('multiplies (x[i] + i·x[i + D/2]) by a unit complex number, and back', () => {
    const angles = [0.3, 1.2]
    const table = nd([2, 4], [1, 1, 0, 0, ...angles.map(Math.cos), ...angles.map(Math.sin)])
    const x = nd([1, 4], [1, 2, 3, 4])
    const [y] = ops.rope.reference([x, nd([1], [1]), table], { heads: 1, inverse: 0 })
    angles.forEach((angle, i) => {
      const turned = Math.atan2(x.data[i + 2], x.data[i]) + angle
      const size = Math.hypot(x.data[i], x.data[i + 2])
      expect(y.data[i]).toBeCloseTo(size * Math.cos(turned), 12)
      expect(y.data[i + 2]).toBeCloseTo(size * Math.sin(turned), 12)
    })
    const [back] = ops.rope.reference([y, nd([1], [1]), table], { heads: 1, inverse: 1 })
    back.data.forEach((value, i) => {
      expect(value).toBeCloseTo(x.data[i], 12)
    })
  })
})

describe('dropout', () => {
  it('keeps the share it should, differently for each seed and stream, and scales what it keeps', () => {
    const x = nd([20_000], new Array(20_000).fill(1))
    const mask = (seed: number[], stream: number) =>
      ops.dropout.reference([x, nd([2], seed)], { p: 0.3, stream })[0].data
    const base = mask([1, 2], 3)
    expect(new Set(base)).toEqual(new Set([0, 1 / 0.7]))
    for (const other of [mask([1, 3], 3), mask([2, 2], 3), mask([1, 2], 4), mask([2, 1], 3)]) {
      const kept = other.reduce((n, v) => n + (v > 0 ? 1 : 0), 0) / other.length
      expect(Math.abs(kept - 0.7)).toBeLessThan(0.015)
      // Independent of the first: both kept in 0.49 of the places.
      const both = other.reduce((n, v, i) => n + (v > 0 && base[i] > 0 ? 1 : 0), 0) / other.length
      expect(Math.abs(both - 0.49)).toBeLessThan(0.015)
    }
  })
})
