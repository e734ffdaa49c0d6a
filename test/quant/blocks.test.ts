import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { byteLength, type DType } from '../../sdk/dtype.ts'
import { ShapeError } from '../../sdk/errors.ts'
import { dequantizeQ4, dequantizeQ8, quantizeQ4, quantizeQ8 } from '../../sdk/quant/blocks.ts'
import { chunkElements, convert, fromFloats, toFloats } from '../../sdk/quant/convert.ts'
import { integers, missing, table } from '../formats/shared.ts'

const hex = (bytes: Uint8Array): string => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex')

describe.skipIf(missing(table('gguf_quants.json')))('gguf_quants.json', () => {
  const golden = missing(table('gguf_quants.json')) ? null : JSON.parse(readFileSync(table('gguf_quants.json'), 'utf8'))
  const x = Float32Array.from(golden?.x.flat() ?? [])
  for (const [name, dtype] of [
    ['Q8_0', 'q8'],
    ['Q4_0', 'q4'],
    ['F16', 'f16'],
    ['BF16', 'bf16'],
  ] as const)
    it(`${name} to the bit, both ways`, () => {
      const bytes = fromFloats(x, dtype)
      expect(hex(bytes)).toBe(golden.quantize[name].bytesHex)
      expect([...toFloats(bytes, dtype)]).toEqual(golden.quantize[name].dequant.flat())
    })
})

const block = fc.array(fc.float({ noNaN: true, min: -1000, max: 1000 }), { minLength: 32, maxLength: 32 })

describe('blocks', () => {
  it('q8 is off by at most half a step and the f16 error of the scale', () => {
    fc.assert(
      fc.property(block, (values) => {
        const got = dequantizeQ8(quantizeQ8(Float32Array.from(values)))
        const largest = Math.max(...values.map(Math.abs))
        for (const [i, v] of values.entries())
          expect(Math.abs(got[i] - v)).toBeLessThanOrEqual(
            (largest / 127) * 0.5001 + largest * 2 ** -11 + 127 * 2 ** -25,
          )
      }),
      { seed: 2 },
    )
  })

  it('q4 keeps the extreme number and is off by at most one step', () => {
    fc.assert(
      fc.property(block, (values) => {
        const got = dequantizeQ4(quantizeQ4(Float32Array.from(values)))
        const largest = Math.max(...values.map(Math.abs))
        for (const [i, v] of values.entries())
          expect(Math.abs(got[i] - v)).toBeLessThanOrEqual((largest / 8) * 1.001 + 8 * 2 ** -25)
      }),
      { seed: 3 },
    )
  })

  it('quantizing again what was read changes no number', () => {
    const random = integers(4)
    const values = Float32Array.from({ length: 3200 }, () => random(20001) / 10000 - 1)
    for (const [quantize, dequantize] of [
      [quantizeQ8, dequantizeQ8],
      [quantizeQ4, dequantizeQ4],
    ] as const) {
      const once = dequantize(quantize(values))
      const twice = dequantize(quantize(once))
      expect([...twice]).toEqual([...once])
    }
  })

  it('a block of zeros stays zero', () => {
    expect(dequantizeQ8(quantizeQ8(new Float32Array(32))).every((v) => v === 0)).toBe(true)
    expect(dequantizeQ4(quantizeQ4(new Float32Array(32))).every((v) => v === 0)).toBe(true)
  })
})

describe('convert', () => {
  const dtypes: DType[] = ['f32', 'f16', 'bf16', 'q8', 'q4']
  const count = chunkElements * 2 + 96
  const random = integers(5)
  const values = Float32Array.from({ length: count }, () => random(20001) / 10000 - 1)

  it('over several chunks is what one pass gives, for every pair, at any alignment', () => {
    for (const from of dtypes) {
      const bytes = fromFloats(values, from)
      const shifted = new Uint8Array(bytes.length + 1)
      shifted.set(bytes, 1)
      for (const to of dtypes) {
        const got = convert(shifted.subarray(1), from, to, count)
        expect(got.length).toBe(byteLength({ dtype: to, shape: [count] }))
        const want = from === to ? bytes : fromFloats(toFloats(bytes, from), to)
        expect(Buffer.compare(got, want), `${from} to ${to}`).toBe(0)
      }
    }
  })

  it('returns the same bytes for the same dtype', () => {
    const bytes = new Uint8Array(34)
    expect(convert(bytes, 'q8', 'q8', 32)).toBe(bytes)
  })

  it('refuses wrong lengths, counts that are no blocks, and i32', () => {
    expect(() => convert(new Uint8Array(8), 'f32', 'f16', 3)).toThrow(ShapeError)
    expect(() => convert(new Uint8Array(12), 'f32', 'q8', 3)).toThrow('multiple of 32')
    expect(() => convert(new Uint8Array(4), 'i32', 'f32', 1)).toThrow('cannot convert i32 to f32')
  })
})
