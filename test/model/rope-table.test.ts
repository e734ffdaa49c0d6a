import { describe, expect, it } from 'vitest'
import { byteLength } from '../../sdk/dtype.ts'
import { scoreExamples } from '../../sdk/generate/score.ts'
import { crossEntropy } from '../../sdk/train/objectives.ts'
import { TrainStep } from '../../sdk/train/step.ts'
import { referenceTarget } from '../../targets/reference/index.ts'
import { randomModel } from '../train/model.ts'

describe('the rotary table', () => {
  it('is no weight, is as long as programs reach, in buckets, and the forecast has it', async () => {
    const target = referenceTarget()
    const made: string[] = []
    const create = target.create.bind(target)
    target.create = (type, name) => {
      if (name.startsWith('rope/')) made.push(`${name} [${type.shape.join(', ')}]`)
      return create(type, name)
    }
    const { model } = await randomModel(target, 'f32', 700)
    expect([...model.weights.keys()].filter((name) => name.startsWith('rope/'))).toEqual([])
    const score = (length: number) =>
      scoreExamples(model, [{ row: 0, inputIds: Array(length).fill(1), labels: [...Array(length - 1).fill(-100), 1] }])
    await score(9)
    await score(40)
    expect(made).toEqual(['rope/0/256 [256, 16]'])
    await score(300)
    // From now on all programs share the longer one.
    await score(70)
    expect(made).toEqual(['rope/0/256 [256, 16]', 'rope/0/512 [512, 16]'])
    // The context has no more positions than these.
    await score(600)
    expect(made.at(-1)).toBe('rope/0/700 [700, 16]')

    const table = new Float32Array(await target.read(model.buffer('rope/0/700', { dtype: 'f32', shape: [700, 16] })))
    for (const [p, i] of [
      [0, 3],
      [1, 0],
      [699, 7],
    ]) {
      expect(table[p * 16 + i]).toBeCloseTo(Math.cos(p / 10_000 ** (i / 8)), 4)
      expect(table[p * 16 + 8 + i]).toBeCloseTo(Math.sin(p / 10_000 ** (i / 8)), 4)
    }

    const step = new TrainStep(model, {
      trains: 'model',
      gradientCheckpointing: false,
      dropout: 0,
      objective: crossEntropy,
    })
    const weights = [...model.weights.values()].reduce((sum, type) => sum + byteLength(type), 0)
    expect((await step.forecast(16, 16)).weights).toBe(weights + 4 * 700 * 16)
    expect([...step.parameters.keys()].sort()).toEqual([...model.weights.keys()].sort())
    model.free()
    await target.close()
  })
})
