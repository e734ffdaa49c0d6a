import { describe, expect, it } from 'vitest'
import { fromFloats, toFloats } from '../../sdk/quant/convert.ts'
import { fittedFloats } from '../../sdk/quant/fit.ts'
import { f16ToF32, numberToHalf } from '../../sdk/quant/float16.ts'
import { integers } from '../formats/shared.ts'

const types = ['q4a', 'q4'] as const
const blocks = 300

/** Sums of four uniform numbers, of various sizes a block; every tenth block has an outlier. */
function weights(seed: number): Float32Array {
  const next = integers(seed)
  const uniform = () => next(2 ** 20) / 2 ** 19 - 1
  return Float32Array.from({ length: blocks * 32 }, (_, i) => {
    const size = 10 ** (((i >> 5) % 5) - 3)
    const outlier = i % 320 === 7 ? 20 : 1
    return size * outlier * (uniform() + uniform() + uniform() + uniform())
  })
}

/** Of each block, weighted by |x| plus the root mean square. */
function errors(x: Float32Array, y: Float32Array): number[] {
  return Array.from({ length: x.length / 32 }, (_, block) => {
    const own = [...x.subarray(block * 32, block * 32 + 32)]
    const rms = Math.sqrt(own.reduce((sum, v) => sum + v * v, 0) / 32)
    return own.reduce((sum, v, i) => sum + (rms + Math.abs(v)) * (v - y[block * 32 + i]) ** 2, 0)
  })
}
const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0)

describe('fitted blocks', () => {
  it.each(types)('%s: no block is worse than rounded plainly, by the weighted error', (dtype) => {
    for (const seed of [1, 2, 3]) {
      const x = weights(seed)
      const plain = errors(x, toFloats(fromFloats(x, dtype), dtype))
      const fitted = errors(x, toFloats(fittedFloats(x, dtype), dtype))
      for (const [i, error] of fitted.entries()) expect(error).toBeLessThanOrEqual(plain[i] * (1 + 1e-9))
      // What the search is for.
      expect(sum(fitted) / sum(plain)).toBeLessThan(0.9)
    }
  })

  it.each(types)('%s: numbers on a grid of the type come back as they are, whatever part of it they use', (dtype) => {
    const next = integers(4)
    const half = (x: number) => f16ToF32(Uint16Array.of(numberToHalf(x)))[0]
    const x = new Float32Array(blocks * 32)
    for (let block = 0; block < blocks; block++) {
      const scale = half((0.5 + next(1000) / 1000) * 10 ** (next(6) - 4))
      const low = dtype === 'q4' ? -8 : 0
      const minimum = dtype === 'q4a' ? half(-scale * 15 * (next(1000) / 1000)) : 0
      // All integers of the type, or those between two of them.
      const from = block % 2 ? next(14) : 0
      const count = block % 2 ? 2 + next(14 - from) : 16
      for (let i = 0; i < 32; i++) {
        const q = low + from + (i < 2 ? i * (count - 1) : next(count))
        x[block * 32 + i] = scale * q + minimum
      }
    }
    const back = toFloats(fittedFloats(x, dtype), dtype)
    // Not toEqual: -0 is 0.
    expect([...x].findIndex((v, i) => v !== back[i])).toBe(-1)
  })

  it('q4a is closer than q4', () => {
    const x = weights(5)
    const [q4a, q4] = types.map((dtype) => sum(errors(x, toFloats(fittedFloats(x, dtype), dtype))))
    expect(q4a).toBeLessThan(q4)
  })

  it('zeros stay zero, equal numbers stay, and other types are as they ever are', () => {
    for (const value of [0, -0.25])
      for (const dtype of types) {
        const x = new Float32Array(64).fill(value)
        const same = toFloats(fittedFloats(x, dtype), dtype).every((v) => v === value)
        expect(same, `${dtype} ${value}`).toBe(true)
      }
    const x = weights(6)
    for (const dtype of ['bf16', 'q8'] as const) expect(fittedFloats(x, dtype)).toEqual(fromFloats(x, dtype))
  })
})
