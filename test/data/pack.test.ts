import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { epochOrder } from '../../sdk/data/order.ts'
import { bucketLength, packBatch, packBins, scoredTokens } from '../../sdk/data/pack.ts'
import type { Example } from '../../sdk/data/tokenize.ts'

const example = (maxLength: number): fc.Arbitrary<Example> =>
  fc.array(fc.tuple(fc.integer({ min: 1, max: 999 }), fc.boolean()), { maxLength }).map((tokens) => ({
    inputIds: tokens.map(([id]) => id),
    labels: tokens.map(([id, on]) => (on ? id : -100)),
    row: 0,
  }))
const examples = fc.array(example(40), { maxLength: 12 }).map((list) => list.map((e, row) => ({ ...e, row })))

describe('bucketLength', () => {
  it('is a small ladder of multiples of 16', () => {
    const ladder = [...new Set(Array.from({ length: 2049 }, (_, n) => bucketLength(n)))]
    expect(ladder).toEqual([16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 640, 768, 896, 1024, 1280, 1536, 1792, 2048])
    for (let n = 1; n < 5000; n++) expect(bucketLength(n)).toBeGreaterThanOrEqual(n)
    for (const n of ladder) expect(bucketLength(n)).toBe(n)
  })
})

describe('packBatch', () => {
  it('lays a batch out', () => {
    const batch = packBatch(
      [
        { inputIds: [5, 6, 7], labels: [5, -100, 7] },
        { inputIds: [8, 9], labels: [8, 9] },
      ],
      (n) => n + 2,
    )
    expect([...batch.ids]).toEqual([5, 6, 7, 8, 9, 0, 0])
    expect([...batch.positions]).toEqual([0, 1, 2, 0, 1, 0, 0])
    expect([...batch.starts]).toEqual([0, 0, 0, 3, 3, 5, 6])
    // The first token of an example has no prediction, so its label does not count.
    expect([...batch.rows]).toEqual([1, 3, -1, -1])
    expect([...batch.targets]).toEqual([7, 9, -1, -1])
    expect([batch.tokens, batch.scored]).toEqual([5, 2])
  })

  it('can be unpacked', () => {
    fc.assert(
      fc.property(examples, (given) => {
        const batch = packBatch(given)
        expect([batch.ids.length % 16, batch.rows.length % 16]).toEqual([0, 0])
        let start = 0
        let row = 0
        for (const { inputIds, labels } of given) {
          const end = start + inputIds.length
          expect([...batch.ids.subarray(start, end)]).toEqual(inputIds)
          expect([...batch.starts.subarray(start, end)]).toEqual(inputIds.map(() => start))
          expect([...batch.positions.subarray(start, end)]).toEqual(inputIds.map((_, t) => t))
          const seen = inputIds.map(() => -100)
          for (; row < batch.scored && batch.rows[row] < end; row++)
            seen[batch.rows[row] + 1 - start] = batch.targets[row]
          expect(seen.slice(1)).toEqual(labels.slice(1))
          start = end
        }
        expect([row, start]).toEqual([batch.scored, batch.tokens])
        for (let i = start; i < batch.ids.length; i++)
          expect([batch.ids[i], batch.positions[i], batch.starts[i]]).toEqual([0, 0, i])
        expect([...batch.rows.subarray(row), ...batch.targets.subarray(row)].every((x) => x === -1)).toBe(true)
        expect(given.reduce((sum, e) => sum + scoredTokens(e), 0)).toBe(batch.scored)
      }),
    )
  })
})

describe('packBins', () => {
  const of = (length: number, row: number): Example => ({
    inputIds: new Array(length).fill(1),
    labels: new Array(length).fill(1),
    row,
  })
  const rows = (bins: Example[][]) => bins.map((bin) => bin.map((e) => e.row))

  it('is best fit decreasing', () => {
    // By length: 7(b) 6(d) 5(c) 4(f) 3(a) 3(e) into bins of 10; checked with TRL 1.16's _pack_bfd.
    expect(rows(packBins([3, 7, 5, 6, 3, 4].map(of), 10))).toEqual([
      [1, 0],
      [3, 5],
      [2, 4],
    ])
    // Of two bins that fit, the tighter one, of equals the older; longer rows are cut, empty ones dropped.
    expect(rows(packBins([12, 0, 6, 7, 6, 3, 1].map(of), 8))).toEqual([[0], [3, 6], [2], [4], [5]])
  })

  it('keeps every token once, and every bin within the limit', () => {
    fc.assert(
      fc.property(examples, fc.integer({ min: 1, max: 50 }), (given, maxLength) => {
        const bins = packBins(given, maxLength)
        for (const bin of bins) {
          const length = bin.reduce((sum, e) => sum + e.inputIds.length, 0)
          expect(length).toBeGreaterThan(0)
          expect(length).toBeLessThanOrEqual(maxLength)
        }
        const back = bins.flat().sort((a, b) => a.row - b.row)
        const cut = given.filter((e) => e.inputIds.length > 0)
        expect(back.map((e) => e.inputIds)).toEqual(cut.map((e) => e.inputIds.slice(0, maxLength)))
        expect(back.map((e) => e.labels)).toEqual(cut.map((e) => e.labels.slice(0, maxLength)))
      }),
    )
  })
})

describe('epochOrder', () => {
  it('is a permutation that depends on seed and epoch', () => {
    const order = epochOrder(1000, 7, 0)
    expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length: 1000 }, (_, i) => i))
    expect(epochOrder(1000, 7, 0)).toEqual(order)
    expect(epochOrder(1000, 7, 1)).not.toEqual(order)
    expect(epochOrder(1000, 8, 0)).not.toEqual(order)
    expect([...epochOrder(0, 1, 1)]).toEqual([])
  })

  it('puts every row everywhere equally often', () => {
    const counts = new Array(16).fill(0)
    for (let epoch = 0; epoch < 4000; epoch++)
      epochOrder(4, 3, epoch).forEach((row, at) => {
        counts[row * 4 + at]++
      })
    // 1000 expected, standard deviation 27
    for (const count of counts) expect(Math.abs(count - 1000)).toBeLessThan(130)
  })
})
