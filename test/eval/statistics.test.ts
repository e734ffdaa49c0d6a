import { describe, expect, it } from 'vitest'
import { estimate, mcNemar, passAtK } from '../../sdk/eval/statistics.ts'

describe('estimate', () => {
  it('of yes and no is p and sqrt(p (1 - p) / n)', () => {
    expect(estimate([1, 0, 0, 1])).toEqual({ mean: 0.5, standardError: 0.25 })
    expect(estimate([0, 0])).toEqual({ mean: 0, standardError: 0 })
  })

  it('of shares counts the spread between items', () => {
    const { mean, standardError } = estimate([0.25, 0.75, 0.5])
    expect(mean).toBe(0.5)
    expect(standardError).toBeCloseTo(Math.sqrt(0.125 / 3 / 3), 12)
  })
})

describe('passAtK', () => {
  it('is the mean over all subsets of k', () => {
    // Of 5 answers 2 are right; of the 10 pairs 3 have none of them.
    expect(passAtK(5, 2, 2)).toBeCloseTo(0.7, 12)
    expect(passAtK(5, 2, 1)).toBeCloseTo(0.4, 12)
    expect(passAtK(5, 2, 4)).toBe(1)
    expect(passAtK(5, 0, 5)).toBe(0)
    expect(passAtK(5, 1, 5)).toBe(1)
  })
})

describe('mcNemar', () => {
  it('gives the p-values of scipy.stats.binomtest', () => {
    expect(mcNemar(0, 0)).toBe(1)
    expect(mcNemar(3, 3)).toBe(1)
    expect(mcNemar(0, 6)).toBeCloseTo(0.03125, 12)
    expect(mcNemar(9, 2)).toBeCloseTo(0.0654296875, 10)
    expect(mcNemar(18, 4)).toBeCloseTo(0.004344, 5)
    expect(mcNemar(700, 500)).toBeCloseTo(8.5e-9, 8)
  })
})
