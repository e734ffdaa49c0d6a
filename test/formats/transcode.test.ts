import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { type GgufBlock, ggufBlocks } from '../../sdk/formats/gguf-blocks.ts'
import { decodeFloats, opensAs, type StoredDType } from '../../sdk/formats/stored.ts'
import { roundedAgain, weightDType } from '../../sdk/model/weight-dtype.ts'
import { fromFloats, toFloats } from '../../sdk/quant/convert.ts'
import { readAs } from './read-as.ts'
import { integers, missing, table } from './shared.ts'
import { stored } from './tiny-source.ts'

const absent = missing(table('gguf_quants.json'))
const golden = absent ? {} : JSON.parse(readFileSync(table('gguf_quants.json'), 'utf8'))
const entries = Object.entries<{ bytesHex: string; dequant: number[][] }>({
  ...golden.quantize,
  ...golden.dequantize_random_blocks,
})

/** Whole blocks as the tensor that they open as. */
async function opened(type: StoredDType, bytes: Uint8Array, elements: number) {
  const { dtype } = opensAs(type)!
  const numbers = toFloats(await readAs(stored('w', type, [1, elements], bytes), dtype), dtype)
  return { dtype, numbers: [...numbers] }
}

it('opens each type as it says', () => {
  const said = [...Object.keys(ggufBlocks), 'F32', 'F16', 'BF16', 'F64', 'F8_E4M3', 'I8'].map((type) => {
    const opens = opensAs(type as StoredDType)
    return `${type} ${opens?.dtype ?? 'no'}${opens?.isExact ? '' : ', rounded'}`
  })
  expect(said).toEqual([
    'Q4_0 q4',
    'Q4_1 q4a',
    'Q5_0 q8',
    'Q5_1 q8, rounded',
    'Q8_0 q8',
    'Q2_K q8, rounded',
    'Q3_K q8, rounded',
    'Q4_K q4a, rounded',
    'Q5_K q8, rounded',
    'Q6_K q8, rounded',
    'IQ4_NL q8',
    'IQ4_XS q8, rounded',
    'TQ1_0 q8, rounded',
    'TQ2_0 q8, rounded',
    'MXFP4 q8, rounded',
    'F32 f32',
    'F16 f16',
    'BF16 bf16',
    'F64 f32, rounded',
    'F8_E4M3 f16',
    'I8 no, rounded',
  ])
})

describe.skipIf(absent)('gguf_quants.json', () => {
  for (const [name, { bytesHex, dequant }] of entries) {
    const type = name as GgufBlock
    const bytes = new Uint8Array(Buffer.from(bytesHex, 'hex'))
    const wanted = dequant.flat()
    if (opensAs(type)?.isExact)
      it(`${name} to the bit`, async () => {
        expect((await opened(type, bytes, wanted.length)).numbers).toEqual(wanted)
      })
    else if (name === 'Q4_K')
      it('Q4_K but for scales and minima, which are the nearest f16', async () => {
        const { dtype, numbers } = await opened(type, bytes, wanted.length)
        expect(dtype).toBe('q4a')
        for (let start = 0; start < wanted.length; start += 32) {
          const group = wanted.slice(start, start + 32)
          // Each at most 2^-11 off; the minimum is the number of the integer 0, at the latest.
          const size = Math.max(...group.map(Math.abs)) + (Math.max(...group) - Math.min(...group))
          for (const [i, x] of group.entries())
            expect(Math.abs(numbers[start + i] - x)).toBeLessThanOrEqual(2 ** -11 * 3 * size)
        }
        expect(numbers).not.toEqual(wanted)
      })
    else if (name === 'IQ4_XS')
      it('IQ4_XS but for scales, which are the nearest f16', async () => {
        const { numbers } = await opened(type, bytes, wanted.length)
        for (const [i, x] of wanted.entries())
          expect(Math.abs(numbers[i] - x)).toBeLessThanOrEqual(2 ** -11 * Math.abs(x))
      })
    else if (name !== 'MXFP4')
      it(`${name} as q8's own rounding`, async () => {
        const { dtype, numbers } = await opened(type, bytes, wanted.length)
        expect(dtype).toBe('q8')
        expect(numbers).toEqual([...toFloats(fromFloats(Float32Array.from(wanted), 'q8'), 'q8')])
      })
  }
})

describe('random blocks', () => {
  const random = integers(11)
  const blocks = (type: GgufBlock, count: number): Uint8Array =>
    Uint8Array.from({ length: count * ggufBlocks[type].bytes }, () => random(256))
  /** f16 of about 0.01 at the start of each block, or where else it lies. */
  const withScales = (type: GgufBlock, bytes: Uint8Array, places: number[]): Uint8Array => {
    for (let at = 0; at < bytes.length; at += ggufBlocks[type].bytes)
      for (const place of places) bytes[at + place] = 0x21
    return bytes
  }

  for (const type of ['Q5_0', 'IQ4_NL'] as const)
    it(`${type} to the bit, at any alignment`, async () => {
      const bytes = withScales(type, blocks(type, 500), [1])
      const shifted = new Uint8Array(bytes.length + 1)
      shifted.set(bytes, 1)
      const { numbers } = await opened(type, shifted.subarray(1), 500 * 32)
      expect(numbers).toEqual([...decodeFloats(type, bytes)])
    })

  it('Q4_K keeps every integer', async () => {
    // Scales that are powers of two: no product is rounded.
    const bytes = blocks('Q4_K', 50)
    for (let at = 0; at < bytes.length; at += ggufBlocks.Q4_K.bytes) bytes.set([0, 0x20, 0, 0xa4], at)
    const { numbers } = await opened('Q4_K', bytes, 50 * 256)
    expect(numbers).toEqual([...decodeFloats('Q4_K', bytes)])
  })

  it('MXFP4 to the bit where its scale is an f16', async () => {
    const bytes = blocks('MXFP4', 100)
    for (let at = 0; at < bytes.length; at += ggufBlocks.MXFP4.bytes) bytes[at] = 104 + random(40)
    const { numbers } = await opened('MXFP4', bytes, 100 * 32)
    expect(numbers).toEqual([...decodeFloats('MXFP4', bytes)])
  })
})

describe('a dtype that is asked for', () => {
  const tensor = (type: StoredDType, columns = 256) => stored('w', type, [1, columns], new Uint8Array())
  const weights = [
    ['a', tensor('Q5_0')],
    ['b', tensor('Q5_0')],
    ['model.embed_tokens.weight', tensor('Q8_0')],
    ['c', tensor('Q4_K')],
    ['norm', stored('n', 'F32', [8], new Uint8Array())],
  ] as const

  it('is told of where it rounds quantized weights once more', () => {
    expect(roundedAgain(weights, 'q4')).toBe(
      'its quantized weights are rounded once more, 2 tensors of Q5_0 to q4, 1 tensor of Q4_K to q4',
    )
    expect(roundedAgain(weights, 'q4a')).toBe('its quantized weights are rounded once more, 2 tensors of Q5_0 to q4a')
    expect(roundedAgain(weights, 'q8')).toBe('its quantized weights are rounded once more, 1 tensor of Q4_K to q8')
    for (const dtype of ['auto', 'f16', 'f32'] as const) expect(roundedAgain(weights, dtype)).toBe(null)
    expect(roundedAgain([['a', tensor('F16')]], 'q4')).toBe(null)
  })

  it('of four bits leaves the vocabulary table at q8, and rows that are no blocks at f16', () => {
    for (const dtype of ['q4', 'q4a'] as const) {
      expect(weightDType('lm_head.weight', tensor('F32'), dtype)).toBe('q8')
      expect(weightDType('w', tensor('F32'), dtype)).toBe(dtype)
      expect(weightDType('w', tensor('F32', 48), dtype)).toBe('f16')
    }
  })
})
