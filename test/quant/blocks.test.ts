import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { byteLength, floatDTypes } from '../../sdk/dtype.ts'
import { ShapeError } from '../../sdk/errors.ts'
import {
  dequantizeQ4,
  dequantizeQ4A,
  dequantizeQ8,
  quantizeQ4,
  quantizeQ4A,
  quantizeQ8,
} from '../../sdk/quant/blocks.ts'
import { fromFloats, toFloats } from '../../sdk/quant/convert.ts'
import { integers, missing, table } from '../formats/shared.ts'

const hex = (bytes: Uint8Array): string => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex')

describe.skipIf(missing(table('gguf_quants.json')))('gguf_quants.json', () => {
  const golden = missing(table('gguf_quants.json')) ? null : JSON.parse(readFileSync(table('gguf_quants.json'), 'utf8'))
  const x = Float32Array.from(golden?.x.flat() ?? [])
  for (const [name, dtype] of [
    ['Q8_0', 'q8'],
    ['Q4_1', 'q4a'],
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

  it('q4a is off by at most half a step and the f16 errors of scale and minimum', () => {
    fc.assert(
      fc.property(block, (values) => {
        const got = dequantizeQ4A(quantizeQ4A(Float32Array.from(values)))
        const [least, largest] = [Math.min(...values), Math.max(...values)]
        const step = (largest - least) / 15
        const f16Error = (Math.abs(least) + 15 * step) * 2 ** -11 + 16 * 2 ** -25
        for (const [i, v] of values.entries())
          expect(Math.abs(got[i] - v)).toBeLessThanOrEqual(step * 0.5001 + f16Error)
      }),
      { seed: 4 },
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
    expect(dequantizeQ4A(quantizeQ4A(new Float32Array(32))).every((v) => v === 0)).toBe(true)
  })
})

describe('float types', () => {
  it('are read at any alignment, and written in their length', () => {
    const count = 96
    const random = integers(5)
    const values = Float32Array.from({ length: count }, () => random(20001) / 10000 - 1)
    for (const dtype of floatDTypes) {
      const bytes = fromFloats(values, dtype)
      expect(bytes.length).toBe(byteLength({ dtype, shape: [count] }))
      const shifted = new Uint8Array(bytes.length + 1)
      shifted.set(bytes, 1)
      expect(toFloats(shifted.subarray(1), dtype), dtype).toEqual(toFloats(bytes, dtype))
    }
    expect(() => toFloats(new Uint8Array(4), 'i32')).toThrow(ShapeError)
  })
})
