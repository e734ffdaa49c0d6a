import { describe, expect, it } from 'vitest'
import { accumulateOp } from '../../sdk/ops/accumulate.ts'
import { distinct, floats, ints, normal, spread } from '../../sdk/ops/cases.ts'
import {
  addOp,
  clampOp,
  divOp,
  expOp,
  log1pOp,
  logAddExpOp,
  logOp,
  maxOp,
  minOp,
  mulOp,
  scaleOp,
  subOp,
  whereOp,
} from '../../sdk/ops/elementwise.ts'
import { fillOp } from '../../sdk/ops/fill.ts'
import { adamwOp, sumSquaresOp } from '../../sdk/ops/optimizer.ts'
import { gatherRowsOp, scatterRowsOp, segmentSumOp } from '../../sdk/ops/rows.ts'
import { expandOp, sumOp } from '../../sdk/ops/sum.ts'
import { agreement, one } from './agreement.ts'

const check = agreement()
const n = 4099

describe('elementwise', () => {
  it.each([addOp, subOp, mulOp, divOp, minOp, maxOp, logAddExpOp])('$name', async (spec) => {
    const away = spec === divOp ? 3 : 0
    await check(spec, one('vectors', [normal([n]), normal([n], 0.5, away)]))
    await check(spec, one('scalar a', [normal([1]), normal([n], 0.5, away)]))
    await check(spec, one('scalar b', [normal([n]), normal([1], 0.5, away)]))
  })

  it.each([expOp, logOp, log1pOp])('$name', async (spec) => {
    await check(spec, one('vector', [spec === expOp ? normal([n], 5) : normal([n], 0.2, 2)]))
  })

  it('exp is good to 2e-7 of each value', async () => {
    const xs = Array.from({ length: 2001 }, (_, i) => Math.fround((i - 1000) * 0.087))
    const { output0 } = await check(expOp, one('range', [floats(xs)]))
    xs.forEach((x, i) => {
      expect(Math.abs(output0[i] / Math.exp(x) - 1)).toBeLessThan(2e-7)
    })
  })

  it('log1p is good to 1e-7 of each value near 0', async () => {
    const xs = [1e-30, -1e-12, 1e-7, 1e-3, -1e-3, 0.5].map(Math.fround)
    const { output0 } = await check(log1pOp, one('near 0', [floats(xs)]))
    xs.forEach((x, i) => {
      expect(Math.abs(output0[i] / Math.log1p(x) - 1)).toBeLessThan(1e-7)
    })
  })

  it('scale, clamp, where, accumulate, fill', async () => {
    await check(scaleOp, one('vector', [normal([n])], { factor: 1 / 3 }))
    await check(clampOp, one('vector', [distinct([n])], { lo: -0.5, hi: 1.5 }))
    await check(whereOp, one('vectors', [distinct([n]), normal([n]), normal([n])]))
    await check(accumulateOp, one('vectors', [normal([n]), normal([n])]))
    for (const value of [-2.5, 0]) await check(fillOp, one('vector', [], { shape: `${n}`, value }))
  })
})

describe('sums and rows', () => {
  it('sums of several blocks of 4096', async () => {
    await check(sumOp, one('all', [normal([3, 5003], 1, 0.5)], { axis: 'all' }))
    await check(sumOp, one('last', [normal([203, 77], 1, 0.5)], { axis: 'last' }))
    await check(sumSquaresOp, one('all', [normal([3, 5003])]))
  })

  it('a sum does not lose small addends beside large ones', async () => {
    const values = [...new Array<number>(20_000).fill(1e-3), 1e6, -1e6]
    const { output0 } = await check(sumOp, one('cancels', [floats(values)], { axis: 'all' }))
    expect(output0[0]).toBeCloseTo(20, 4)
  })

  it('expand', async () => {
    await check(expandOp, one('one', [normal([1])], { shape: '37x111' }))
    await check(expandOp, one('rows', [normal([203])], { shape: '203x7' }))
  })

  it('gatherRows, scatterRows, segmentSum', async () => {
    const rows = ints(spread(203, 38).map((r) => r - 1))
    await check(gatherRowsOp, one('rows', [normal([37, 77]), rows]))
    await check(scatterRowsOp, one('rows', [normal([203, 77]), rows], { count: 41 }))
    await check(segmentSumOp, one('rows', [normal([203]), rows], { count: 41 }))
  })
})

describe('adamw', () => {
  const hyper = floats([1e-3, 0.9, 0.999, 1e-8, 0.01, 1, 0.1, 0.001, 0.1, 0.001])
  const inputs = (norm: number) => [
    normal([n]),
    normal([n]),
    normal([n]),
    normal([n], 0.05, 0.5),
    floats([norm]),
    hyper,
  ]

  it.each([0, 1])('decay %i', async (decay) => {
    const { state1 } = await check(adamwOp, one('vector', inputs(n), { decay }))
    expect(state1.every((g) => g === 0)).toBe(true)
  })

  it.each([Number.NaN, Number.POSITIVE_INFINITY])('norm %f: only the gradient changes', async (norm) => {
    const { state1 } = await check(adamwOp, one('vector', inputs(norm), { decay: 1 }))
    expect(state1.every((g) => g === 0)).toBe(true)
  })
})
