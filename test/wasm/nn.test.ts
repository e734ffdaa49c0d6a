import { describe, expect, it } from 'vitest'
import { floatDTypes } from '../../sdk/dtype.ts'
import { frozen, ints, normal, spread, vectorDTypes } from '../../sdk/ops/cases.ts'
import { dropoutHash, dropoutKey, dropoutOp, dropoutThreshold } from '../../sdk/ops/dropout.ts'
import { embedBackOp, embedOp } from '../../sdk/ops/embed.ts'
import { rmsnormOp } from '../../sdk/ops/rmsnorm.ts'
import { rmsnormBackOp, rmsnormBackWeightOp } from '../../sdk/ops/rmsnorm-back.ts'
import { ropeOp } from '../../sdk/ops/rope.ts'
import { swigluBackOp, swigluOp } from '../../sdk/ops/swiglu.ts'
import { agreement, one } from './agreement.ts'

const check = agreement()

describe('layers at odd sizes', () => {
  it.each(floatDTypes)('embed, %s rows', async (dtype) => {
    await check(embedOp, one('rows', [ints(spread(37, 19)), frozen(dtype, [19, 224])]))
  })

  it('embedBack, each id many times', async () => {
    await check(embedBackOp, one('rows', [normal([203, 77]), ints(spread(203, 5)), normal([5, 77])]))
  })

  it.each(vectorDTypes)('rmsnorm and its reverse, %s weight', async (dtype) => {
    const w = frozen(dtype, [899], 0.2, 1)
    for (const offset of [0, 1]) {
      await check(rmsnormOp, one('rows', [normal([37, 899]), w], { eps: 1e-6, offset }))
      const inputs = [normal([37, 899]), normal([37, 899]), w, normal([37], 0.1, 1)]
      await check(rmsnormBackOp, one('rows', inputs, { offset }))
    }
  })

  it('rmsnorm of values whose squares leave f32', async () => {
    await check(rmsnormOp, one('huge', [normal([3, 65], 1e25), frozen('f32', [65])], { eps: 1e-6, offset: 0 }))
  })

  it('rmsnormBackWeight', async () => {
    const inputs = [normal([1003, 77]), normal([1003, 77]), normal([1003], 0.1, 1), normal([77])]
    await check(rmsnormBackWeightOp, one('many rows', inputs))
  })

  it.each([0, 1])('rope, inverse %i', async (inverse) => {
    const inputs = [normal([37, 3 * 70]), ints(spread(37, 53)), frozen('f32', [53, 70])]
    await check(ropeOp, one('rows', inputs, { heads: 3, inverse }))
  })

  it('swiglu and its reverse', async () => {
    const x = () => normal([37, 203], 3)
    for (const activation of ['silu', 'gelu_tanh']) {
      await check(swigluOp, one('rows', [x(), x()], { activation }))
      await check(swigluBackOp, one('rows', [x(), x(), x()], { activation }))
    }
  })
})

describe('dropout', () => {
  it('keeps what the hash keeps, about 1 - p of all', async () => {
    const n = 40_003
    const attrs = { p: 0.3, stream: 12 }
    const { output0 } = await check(dropoutOp, one('many', [normal([n], 0.1, 2), ints([7, -9])], attrs))
    const key = dropoutKey(7, -9, 12)
    const kept = Array.from({ length: n }, (_, i) => dropoutHash(key, i) >= dropoutThreshold(0.3))
    expect([...output0].map((v) => v !== 0)).toEqual(kept)
    // four standard deviations
    expect(Math.abs(kept.filter(Boolean).length / n - 0.7)).toBeLessThan(4 * Math.sqrt(0.21 / n))
  })
})
