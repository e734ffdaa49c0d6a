import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type FloatDType, storedTypes } from '../../sdk/dtype.ts'
import { ShapeError } from '../../sdk/errors.ts'
import { ggufBlocks } from '../../sdk/formats/gguf-blocks.ts'
import type { Target } from '../../sdk/target.ts'
import { wasmTarget } from '../../targets/wasm/index.ts'
import { readAs } from '../formats/read-as.ts'
import { integers } from '../formats/shared.ts'
import { stored } from '../formats/tiny-source.ts'

// Blocks of files that the target converts itself: the bytes that sdk/formats makes of them.

/** The place of each f16 of a block. */
const cases = [
  { type: 'Q5_0', dtype: 'q8', halves: [0] },
  { type: 'Q4_K', dtype: 'q4a', halves: [0, 2] },
  { type: 'Q6_K', dtype: 'q8', halves: [208] },
] as const satisfies { type: keyof typeof ggufBlocks; dtype: FloatDType; halves: number[] }[]

describe.each([{ shared: true }, { shared: false }])('wasm, shared: $shared', ({ shared }) => {
  let target: Target
  beforeAll(async () => {
    target = await wasmTarget({ shared })
  })
  afterAll(() => target.close())

  it.each(cases)('$type to $dtype', async ({ type, dtype, halves }) => {
    const random = integers(7)
    const { bytes, elements } = ggufBlocks[type]
    const count = 300
    const data = Uint8Array.from({ length: count * bytes }, () => random(256))
    for (let block = 0; block < count; block++)
      for (const at of halves) {
        // Finite: of all sizes and both signs, subnormals and zeros too.
        const half = block < 3 ? block << 15 : random(0x7c00) | (random(2) << 15)
        data.set([half & 255, (half >> 8) & 255], block * bytes + at)
      }
    const blocks = { type, bytes, elements }
    const shape = [count, elements]
    const buffer = target.create({ dtype, shape }, type)
    // In two parts, as they are read.
    const [half, made] = [count / 2, (storedTypes[dtype].bytes * elements) / storedTypes[dtype].elements]
    await target.write(buffer, data.subarray(0, half * bytes), 0, blocks)
    await target.write(buffer, data.subarray(half * bytes), half * made, blocks)
    const got = new Uint8Array(await target.read(buffer))
    const want = await readAs(stored('w', type, shape, data), dtype)
    expect(Buffer.compare(got, want)).toBe(0)
    expect(() => target.write(buffer, data, made, blocks)).toThrow(ShapeError)
    target.free(buffer)
  })

  it('has all that is told of here', () => {
    expect(target.conversions).toEqual(cases.map(({ type, dtype }) => `${type}_${dtype}`))
  })
})
