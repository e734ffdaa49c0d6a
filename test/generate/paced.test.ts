import { afterEach, describe, expect, it, vi } from 'vitest'
import type { Target } from '../../sdk/target.ts'
import { referenceTarget } from '../../targets/reference/index.ts'
import { randomModel } from '../train/model.ts'

afterEach(() => void vi.restoreAllMocks())

/** A target that takes so many milliseconds a step by a clock that nothing else moves, and notes the steps of each run. */
function slow(millisecondsAStep: number): { target: Target; runs: number[] } {
  const inner = referenceTarget()
  const runs: number[] = []
  let now = 0
  vi.spyOn(performance, 'now').mockImplementation(() => now)
  const compile: Target['compile'] = async (program, bound) => {
    const executable = await inner.compile(program, bound)
    return {
      ...executable,
      async run(inputs, options) {
        const steps = options?.steps ?? 1
        const outputs = await executable.run(inputs, options)
        now += steps * millisecondsAStep
        runs.push(steps)
        return outputs
      },
    }
  }
  const { name, info } = inner
  const target: Target = {
    ...{ name, info, compile },
    supports: (...args) => inner.supports(...args),
    create: (...args) => inner.create(...args),
    write: (...args) => inner.write(...args),
    read: (...args) => inner.read(...args),
    free: (buffer) => inner.free(buffer),
    scratchBytes: (programs) => inner.scratchBytes(programs),
    close: () => inner.close(),
  }
  return { target, runs }
}

describe('somebody who reads along', () => {
  const answer = async (millisecondsAStep: number) => {
    const { target, runs } = slow(millisecondsAStep)
    const lm = await randomModel(target)
    const ids: number[] = []
    const pieces = lm.generate('Hello', { maxNewTokens: 40, temperature: 1, seed: 2, logitBias: { 257: -Infinity } })
    for await (const { tokenIds } of pieces) ids.push(...tokenIds)
    await lm.close()
    // The first is the prompt's.
    return { ids, steps: runs.slice(1) }
  }

  it('waits 50 ms at most, or a step where one takes longer; how many steps a run has changes no token', async () => {
    const [some, one] = [await answer(7), await answer(40)]
    expect(some.steps.reduce((a, b) => a + b)).toBe(40)
    expect(Math.max(...some.steps)).toBe(4)
    expect(new Set(one.steps)).toEqual(new Set([1]))
    expect(some.ids).toEqual(one.ids)
    expect(some.ids).toHaveLength(40)
  })
})
