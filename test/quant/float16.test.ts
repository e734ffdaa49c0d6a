import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { bf16ToF32, f16ToF32, f32ToBf16, f32ToF16, halfToNumber, numberToHalf } from '../../sdk/quant/float16.ts'

const all = Uint16Array.from({ length: 65_536 }, (_, i) => i)

describe('f16', () => {
  const values = f16ToF32(all)

  it('reads every bit pattern by the definition', () => {
    for (let h = 0; h < 65_536; h++) {
      const exponent = (h >>> 10) & 31
      const fraction = h & 1023
      const special = fraction ? Number.NaN : Number.POSITIVE_INFINITY
      const magnitude =
        exponent === 31 ? special : exponent ? (1024 + fraction) * 2 ** (exponent - 25) : fraction * 2 ** -24
      if (!Object.is(values[h], h & 0x8000 ? -magnitude : magnitude))
        expect(values[h], `0x${h.toString(16)}`).toBe(magnitude)
    }
    expect(halfToNumber(0x3c00)).toBe(1)
  })

  it('writes back what it read, NaN as NaN', () => {
    const back = f32ToF16(values)
    const wrong = all.filter((h) => back[h] !== h && !Number.isNaN(values[h]))
    expect([...wrong]).toEqual([])
    expect(Number.isNaN(halfToNumber(numberToHalf(Number.NaN)))).toBe(true)
  })

  it('rounds midpoints to even and their f32 neighbours to the nearer', () => {
    for (let h = 0; h < 0x7c00; h++) {
      const low = values[h]
      const high = h === 0x7bff ? 65_536 : values[h + 1]
      const middle = (low + high) / 2
      const bits = new Uint32Array(Float32Array.of(middle).buffer)[0]
      const [below, above] = new Float32Array(Uint32Array.of(bits - 1, bits + 1).buffer)
      const got = f32ToF16(Float32Array.of(below, middle, above, -middle))
      const even = h & 1 ? h + 1 : h
      if (got[0] !== h || got[1] !== even || got[2] !== h + 1 || got[3] !== (even | 0x8000))
        expect([...got], `around ${middle}`).toEqual([h, even, h + 1, even | 0x8000])
    }
  })

  it('makes what is too large infinite and what is too small zero', () => {
    expect([...f16ToF32(f32ToF16(Float32Array.of(65_519.99, 65_520, -1e30, 2 ** -25, -(2 ** -30))))]).toEqual([
      65_504,
      Number.POSITIVE_INFINITY,
      Number.NEGATIVE_INFINITY,
      0,
      -0,
    ])
  })
})

describe('bf16', () => {
  it('is the upper half of an f32', () => {
    const values = bf16ToF32(all)
    const back = f32ToBf16(values)
    expect([...all.filter((h) => back[h] !== h && !Number.isNaN(values[h]))]).toEqual([])
    expect(values[0x3f80]).toBe(1)
    expect(values[0xff80]).toBe(Number.NEGATIVE_INFINITY)
    expect(Number.isNaN(bf16ToF32(f32ToBf16(Float32Array.of(Number.NaN)))[0])).toBe(true)
  })

  it('rounds to the nearest, ties to even', () => {
    fc.assert(
      fc.property(fc.float({ noNaN: true, noDefaultInfinity: true }), (x) => {
        const [got] = bf16ToF32(f32ToBf16(Float32Array.of(x)))
        const bits = new Uint32Array(Float32Array.of(x).buffer)[0] & 0xffff0000
        const [toward, away] = new Float32Array(Uint32Array.of(bits, bits + 0x10000).buffer)
        const even = bits & 0x10000 ? away : toward
        const distance = Math.abs(x - toward) - Math.abs((Number.isFinite(away) ? away : Math.sign(x) * 2 ** 128) - x)
        expect(got).toBe(distance === 0 ? even : distance < 0 ? toward : away)
      }),
      { seed: 1, numRuns: 2000 },
    )
  })
})
