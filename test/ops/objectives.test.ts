import { describe, expect, it } from 'vitest'
import { Graph } from '../../sdk/graph/graph.ts'
import { toProgram } from '../../sdk/graph/program.ts'
import { fill, gradient, view } from '../../sdk/ops/index.ts'
import { distillation, pickFrom, policy } from '../../sdk/train/objectives.ts'
import { runReference } from '../../targets/reference/index.ts'

const f32 = (...shape: number[]) => ({ dtype: 'f32' as const, shape })
const none = -1e30

/** Two rows of a vocabulary of 5, 3 picks each; the second row is padding. */
function distill(beta: number, teacher: number[], teacherTail: number[], alpha = 0, targetColumn?: number[]) {
  const g = new Graph()
  const h = g.input('h', f32(2, 5))
  const objective = distillation({ width: alpha ? 2 : 3, temperature: 1, alpha, beta })
  const { loss } = objective(g, 2, pickFrom(g, h, g.weight('table', f32(5, 5))))
  const [dh] = gradient(g, [[loss, fill(g, [1], 1)]], { wrt: [h] })
  g.output('loss', loss)
  g.output('dh', dh!)
  const identity = Float64Array.from({ length: 25 }, (_, i) => (i % 6 === 0 ? 1 : 0))
  return runReference(
    toProgram(g, 'distill'),
    {
      h: Float64Array.from([1, 2, 0.5, -1, 0, 0, 0, 0, 0, 0]),
      picks: Float64Array.from([1, 0, targetColumn ? 3 : -1, -1, -1, -1]),
      temperature: Float64Array.of(1),
      teacherLogProbs: Float64Array.from(teacher),
      teacherTail: Float64Array.from(teacherTail),
      weights: Float64Array.from([1, 0]),
      ...(targetColumn && { targetColumn: Float64Array.from(targetColumn) }),
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

describe('distillation', () => {
  it('forward, reverse and jsd are the divergences of ids and tail; padding rows and columns add nothing', () => {
    const mix = s.map((p, i) => 0.3 * t[i] + 0.7 * p)
    const expected = [
      [0, kl(t, s)],
      [1, kl(s, t)],
      [0.3, 0.3 * kl(t, mix) + 0.7 * kl(s, mix)],
    ]
    for (const [beta, divergence] of expected) {
      const { loss, dh } = distill(beta, teacherRow, tails)
      expect(loss[0], `beta ${beta}`).toBeCloseTo(divergence, 12)
      expect(dh.every(Number.isFinite)).toBe(true)
      expect([...dh.subarray(5)]).toEqual([0, 0, 0, 0, 0])
    }
  })

  it('a target beside the teacher’s ids belongs to the tail, and to the cross-entropy', () => {
    const { loss } = distill(0, teacherRow, tails, 0.25, [0, 0, 1, 0, 0, 0])
    expect(loss[0]).toBeCloseTo(0.75 * kl(t, s) - 0.25 * Math.log(z[3] / mass), 12)
  })
})

describe('policy', () => {
  const build = (old: boolean) => {
    const g = new Graph()
    const logProbs = g.input('logProbs', f32(3))
    const picked = { logProbs: view(g, logProbs, [3, 1]), entropy: logProbs, tail: logProbs }
    const objective = policy({ old, ref: false, sequences: null, epsLow: 0.2, epsHigh: 0.2, beta: 0 })
    const { loss } = objective(g, 3, () => picked)
    const [grad] = gradient(g, [[loss, fill(g, [1], 1)]], { wrt: [logProbs] })
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
    const { loss, grad } = runReference(build(false), inputs, {})
    expect(loss[0]).toBeCloseTo(-0.75, 12)
    expect([...grad]).toEqual([-1, 0.25, -0])
  })

  it('stops where the ratio left the interval on the good side', () => {
    const old = Float64Array.of(-2, -1, 0)
    const { grad } = runReference(build(true), { ...inputs, oldLogProbs: old }, {})
    expect(grad.every((v) => v === 0)).toBe(true)
  })
})
