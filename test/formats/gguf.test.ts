import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { FormatError } from '../../sdk/errors.ts'
import { openGguf } from '../../sdk/formats/gguf.ts'
import { dequantizeBlocks, type GgufBlock, ggufBlocks } from '../../sdk/formats/gguf-blocks.ts'
import { readFloats } from '../../sdk/formats/stored.ts'
import { bytesSource } from '../../sdk/store/byte-source.ts'
import { ggufBytes } from './gguf-bytes.ts'
import { readAs } from './read-as.ts'
import { missing, table } from './shared.ts'

const open = (bytes: Uint8Array) => openGguf(bytesSource('x.gguf', bytes))
const absent = missing(table('gguf_quants.json'))

describe.skipIf(absent)('gguf_quants.json', () => {
  const golden = absent ? {} : JSON.parse(readFileSync(table('gguf_quants.json'), 'utf8'))
  const entries = Object.entries<{ bytesHex: string; dequant: number[][] }>({
    ...golden.quantize,
    ...golden.dequantize_random_blocks,
  }).filter(([name]) => name !== 'F16' && name !== 'BF16')

  it('every type that we know is in the table', () => {
    expect(entries.map(([name]) => name).sort()).toEqual(Object.keys(ggufBlocks).sort())
  })
  for (const [name, { bytesHex, dequant }] of entries)
    it(`${name} to the bit`, () => {
      expect([...dequantizeBlocks(name as GgufBlock, new Uint8Array(Buffer.from(bytesHex, 'hex')))]).toEqual(
        dequant.flat(),
      )
    })

  it('a K-quant tensor is read as f32 and f16', async () => {
    const { bytesHex, dequant } = golden.dequantize_random_blocks.Q6_K
    const data = new Uint8Array(Buffer.from(bytesHex, 'hex'))
    const { tensors } = await open(ggufBytes([], [{ name: 'w', shape: [2, 256], type: 14, data }]))
    const w = tensors.get('w')!
    expect([w.dtype, w.shape, w.bytes]).toEqual(['Q6_K', [2, 256], 420])
    expect([...(await readFloats(w))]).toEqual(dequant.flat())
    expect((await readAs(w, 'f16')).length).toBe(1024)
  })
})

describe('metadata', () => {
  it('has values of every type', async () => {
    const raw = (type: number, ...bytes: number[]) => ({ type, raw: Uint8Array.from(bytes) })
    const { metadata, version } = await open(
      ggufBytes(
        [
          ['u8', raw(0, 200)],
          ['i8', raw(1, 200)],
          ['u16', raw(2, 1, 2)],
          ['i16', raw(3, 255, 255)],
          ['u32', { u32: 4_000_000_000 }],
          ['i32', raw(5, 255, 255, 255, 255)],
          ['f32', { f32: 0.5 }],
          ['bool', { bool: true }],
          ['string', { string: 'héllo' }],
          ['u64', raw(10, 0, 0, 0, 0, 1, 0, 0, 0)],
          ['u64 wide', raw(10, 255, 255, 255, 255, 255, 255, 255, 255)],
          ['i64', raw(11, 255, 255, 255, 255, 255, 255, 255, 255)],
          ['f64', raw(12, 0, 0, 0, 0, 0, 0, 240, 63)],
          ['strings', { strings: ['a', '', 'ß'] }],
          ['i32s', { i32s: [1, -2] }],
          ['f32s', { f32s: [1.5] }],
          // A list of one list of two bytes.
          ['lists', raw(9, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 7, 8)],
        ],
        [],
        { version: 2 },
      ),
    )
    expect(version).toBe(2)
    expect(Object.fromEntries(metadata)).toEqual({
      u8: 200,
      i8: -56,
      u16: 513,
      i16: -1,
      u32: 4_000_000_000,
      i32: -1,
      f32: 0.5,
      bool: true,
      string: 'héllo',
      u64: 2 ** 32,
      'u64 wide': 2n ** 64n - 1n,
      i64: -1,
      f64: 1,
      strings: ['a', '', 'ß'],
      i32s: Int32Array.of(1, -2),
      f32s: Float32Array.of(1.5),
      lists: [Uint8Array.of(7, 8)],
    })
  })

  it('a header longer than the first window is read whole', async () => {
    const strings = Array.from({ length: 1_000_000 }, () => 'x')
    const { metadata } = await open(largeHeader(strings.length))
    expect((metadata.get('s') as string[]).length).toBe(strings.length)
  })
})

/** One list of n strings 'x'. */
function largeHeader(n: number): Uint8Array {
  const head = ggufBytes([['s', { type: 9, raw: Uint8Array.of(8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0) }]])
  const at = 24 + 8 + 1 + 4 + 4
  const bytes = new Uint8Array(at + 8 + 9 * n)
  bytes.set(head.subarray(0, at))
  new DataView(bytes.buffer).setUint32(at, n, true)
  for (let i = 0; i < n; i++) {
    bytes[at + 8 + 9 * i] = 1
    bytes[at + 16 + 9 * i] = 120
  }
  return bytes
}

describe('lying headers', () => {
  const f32 = (name: string, shape: number[], more: object = {}) => ({
    name,
    shape,
    type: 0,
    data: new Uint8Array(128),
    ...more,
  })
  const good = ggufBytes([['k', { string: 'v' }]], [f32('t', [32])])
  const poke = (at: number, ...bytes: number[]) => {
    const copy = good.slice()
    copy.set(bytes, at)
    return copy
  }
  const huge = [255, 255, 255, 255, 255, 255, 255, 127]
  const key = { string: 'v' }
  const cases: [what: string, bytes: Uint8Array, message: string][] = [
    ['an empty file', new Uint8Array(0), 'is not a GGUF file'],
    ['another magic', poke(0, 1), 'is not a GGUF file'],
    ['version 1', poke(4, 1), 'GGUF version 1 is not supported'],
    ['big-endian', poke(4, 0, 0, 0, 3), 'is not supported'],
    ['too many tensors', poke(8, ...huge), 'tensors: a count of'],
    ['too many keys', poke(16, ...huge), 'keys: a count of'],
    ['a key longer than the file', poke(24, ...huge), 'a key: a count of'],
    ['a string longer than the file', poke(37, ...huge), 'k: a count of'],
    ['an unknown value type', poke(33, 99), 'k: value type 99 is not known'],
    ['half a header', good.slice(0, 60), 'past the end'],
    ['half the data', good.slice(0, good.length - 1), 't: ends at'],
    [
      'a key twice',
      ggufBytes([
        ['k', key],
        ['k', key],
      ]),
      'k: is there twice',
    ],
    ['a tensor twice', ggufBytes([], [f32('t', [32]), f32('t', [32])]), 't: is there twice'],
    ['an overlap', ggufBytes([], [f32('a', [32]), f32('b', [32], { offset: 64 })]), 'b: overlaps a'],
    ['a crooked offset', ggufBytes([], [f32('a', [8], { offset: 4 })]), 'no multiple of 32'],
    ['an offset past the end', ggufBytes([], [f32('a', [8], { offset: 2 ** 40 })]), 'past the end'],
    ['huge dimensions', ggufBytes([], [f32('a', [2 ** 50, 2 ** 50])]), 'a: dimensions'],
    ['large dimensions', ggufBytes([], [f32('a', [2 ** 20, 2 ** 20])]), 'a: 4398046511104 bytes'],
    ['five dimensions', ggufBytes([], [f32('a', [1, 1, 1, 1, 1])]), 'a: 5 dimensions'],
    ['an unknown type', ggufBytes([], [f32('a', [32], { type: 16 })]), 'a: tensor type 16 is not supported'],
    ['half a block', ggufBytes([], [f32('a', [2, 48], { type: 8 })]), 'a: rows of 48 are no whole blocks of Q8_0'],
    ['a crooked alignment', ggufBytes([['general.alignment', { u32: 33 }]]), 'general.alignment: 33'],
    ['an alignment of 0', ggufBytes([['general.alignment', { u32: 0 }]]), 'general.alignment: 0'],
    [
      'lists within lists',
      ggufBytes([
        [
          'l',
          { type: 9, raw: Uint8Array.from({ length: 240 }, (_, i) => [9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0][i % 12]) },
        ],
      ]),
      'l: lists within lists',
    ],
  ]
  it('the file that the cases start from is good', async () => {
    expect([...(await open(good)).tensors.keys()]).toEqual(['t'])
  })
  for (const [what, bytes, message] of cases)
    it(what, async () => {
      const error = await open(bytes).catch((e) => e)
      expect(error).toBeInstanceOf(FormatError)
      expect(error.message).toContain('x.gguf: ')
      expect(error.message).toContain(message)
    })
})
