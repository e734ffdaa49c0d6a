import { existsSync, readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { learningRateAt } from '../../sdk/train/schedule.ts'

const path = `${process.env.HALFLING_GOLDEN ?? '../shared/golden'}/tables/optim_torch.json`
const there = existsSync(path)

describe.skipIf(!there)(`golden schedules${there ? '' : ` (${path} is not there)`}`, () => {
  const table = there ? JSON.parse(readFileSync(path, 'utf8')).schedules_warmup5_total50_lr1 : {}
  for (const kind of ['cosine', 'linear'] as const)
    it(`${kind} equals transformers'`, () => {
      expect(table[kind].length).toBe(50)
      for (const [step, want] of table[kind].entries())
        expect(learningRateAt(kind, 1, step, 5, 50), `step ${step}`).toBeCloseTo(want, 7)
    })
})

describe('schedules', () => {
  it('constant ignores the warm-up, constant_with_warmup does not', () => {
    expect(learningRateAt('constant', 2, 0, 5, 50)).toBe(2)
    expect([0, 1, 5, 49].map((s) => learningRateAt('constant_with_warmup', 2, s, 5, 50))).toEqual([0, 0.4, 2, 2])
  })

  it('never falls below zero past the end', () => {
    for (const kind of ['linear', 'cosine'] as const)
      expect(learningRateAt(kind, 1, 60, 5, 50)).toBeGreaterThanOrEqual(0)
    expect(learningRateAt('linear', 1, 60, 5, 50)).toBe(0)
  })
})
