import { describe, expect, it } from 'vitest'
import { OptionError } from '../../sdk/errors.ts'
import { gradient } from '../../sdk/graph/gradient.ts'
import { Graph } from '../../sdk/graph/graph.ts'
import { toProgram } from '../../sdk/graph/program.ts'
import { fill, gradientOps, vocabPick } from '../../sdk/ops/index.ts'
import { type DistillOptions, distillLoss, grpoLoss } from '../../sdk/train/objectives.ts'
import { runReference } from '../../targets/reference/index.ts'

const f32 = (...shape: number[]) => ({ dtype: 'f32' as const, shape })
const none = -1e30

/** Two rows of a vocabulary of 5, 3 picks each; the second row is padding. */
function distill(options: DistillOptions, teacher: number[], teacherTail: number[], targets?: number[]) {
  const g = new Graph()
  const h = g.input('h', f32(2, 5))
  const picked = vocabPick(
    g,
    h,
    g.weight('table', f32(5, 5)),
    g.input('ids', { dtype: 'i32', shape: [2, 3] }),
    fill(g, [1], 1),
  )
  const tensors = {
    logProbs: picked[0],
    tail: picked[3],
    teacherLogProbs: g.input('teacher', f32(2, 3)),
    teacherTail: g.input('teacherTail', f32(2)),
    weights: g.input('weights', f32(2)),
    ...(targets && { targets: g.input('targets', f32(2, 3)) }),
  }
  const loss = distillLoss(g, tensors, options)
  const [dh] = gradient(g, gradientOps, [[loss, fill(g, [1], 1)]], { wrt: [h] })
  g.output('loss', loss)
  g.output('dh', dh!)
  const identity = Float64Array.from({ length: 25 }, (_, i) => (i % 6 === 0 ? 1 : 0))
  return runReference(
    toProgram(g, 'distill'),
    {
      h: Float64Array.from([1, 2, 0.5, -1, 0, 0, 0, 0, 0, 0]),
      ids: Float64Array.from([1, 0, targets ? 3 : -1, -1, -1, -1]),
      teacher: Float64Array.from(teacher),
      teacherTail: Float64Array.from(teacherTail),
      weights: Float64Array.from([1, 0]),
      ...(targets && { targets: Float64Array.from(targets) }),
    },
    { table: identity },
  )
}

// What the first row's student and teacher give to ids 1 and 0, and to all others.
const z = [1, 2, 0.5, -1, 0].map(Math.exp)
const mass = z.reduce((a, b) => a + b)
const s = [z[1] / mass, z[0] / mass, (z[2] + z[3] + z[4]) / mass]
const t = [0.6, 0.3, 0.1]
const teacherRow = [Math.log(0.6), Math.log(0.3), none, none, none, none]
const tails = [Math.log(0.1), none]
const kl = (a: number[], b: number[]) => a.reduce((sum, p, i) => sum + p * Math.log(p / b[i]), 0)

describe('distillLoss', () => {
  it('forward, reverse and jsd are the divergences of ids and tail; padding rows and columns add nothing', () => {
    const mix = s.map((p, i) => 0.3 * t[i] + 0.7 * p)
    const expected = { forward: kl(t, s), reverse: kl(s, t), jsd: 0.3 * kl(t, mix) + 0.7 * kl(s, mix) }
    for (const divergence of ['forward', 'reverse', 'jsd'] as const) {
      const { loss, dh } = distill({ divergence, beta: 0.3 }, teacherRow, tails)
      expect(loss[0], divergence).toBeCloseTo(expected[divergence], 12)
      expect(dh.every(Number.isFinite)).toBe(true)
      expect([...dh.subarray(5)]).toEqual([0, 0, 0, 0, 0])
    }
  })

  it('renormalizes the teacher only', () => {
    const { loss, dh } = distill({ divergence: 'forward', renormalize: true }, teacherRow, [none, none])
    expect(loss[0]).toBeCloseTo((2 / 3) * Math.log(2 / 3 / s[0]) + (1 / 3) * Math.log(1 / 3 / s[1]), 12)
    expect(dh.every(Number.isFinite)).toBe(true)
  })

  it('a target beside the teacher’s ids belongs to the tail, and to the cross-entropy', () => {
    const options = { divergence: 'forward', crossEntropyShare: 0.25 } as const
    const { loss } = distill(options, teacherRow, tails, [0, 0, 1, 0, 0, 0])
    expect(loss[0]).toBeCloseTo(0.75 * kl(t, s) - 0.25 * Math.log(z[3] / mass), 12)
  })

  it('refuses what makes no sense', () => {
    for (const options of [
      { divergence: 'jsd', beta: 1 },
      { divergence: 'reverse', renormalize: true },
      { divergence: 'forward', crossEntropyShare: 2 },
      { divergence: 'forward', crossEntropyShare: 0.5 },
    ] as const)
      expect(() => distill(options, teacherRow, tails)).toThrow(OptionError)
  })
})

describe('grpoLoss', () => {
  const build = (beta: number, withOld: boolean) => {
    const g = new Graph()
    const logProbs = g.input('logProbs', f32(3))
    const tensors = {
      logProbs,
      ...(withOld && { oldLogProbs: g.input('old', f32(3)) }),
      advantages: g.input('advantages', f32(3)),
      weights: g.input('weights', f32(3)),
    }
    const { loss } = grpoLoss(g, tensors, { epsLow: 0.2, epsHigh: 0.2, beta })
    const [grad] = gradient(g, gradientOps, [[loss, fill(g, [1], 1)]], { wrt: [logProbs] })
    g.output('loss', loss)
    g.output('grad', grad!)
    return toProgram(g, 'grpo')
  }
  const inputs = {
    logProbs: Float64Array.of(-1, -2, 0),
    advantages: Float64Array.of(2, -1, 5),
    weights: Float64Array.of(0.5, 0.25, 0),
  }

  it('is the policy gradient where the model itself sampled', () => {
    const { loss, grad } = runReference(build(0, false), inputs, {})
    expect(loss[0]).toBeCloseTo(-0.75, 12)
    expect([...grad]).toEqual([-1, 0.25, -0])
  })

  it('stops where the ratio left the interval on the good side', () => {
    const old = Float64Array.of(-2, -1, 0)
    const { grad } = runReference(build(0, true), { ...inputs, old }, {})
    expect(grad.every((v) => v === 0)).toBe(true)
  })

  it('needs a reference for its KL term', () => {
    expect(() => build(0.04, true)).toThrow(OptionError)
  })
})
