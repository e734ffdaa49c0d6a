import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { floatDTypes } from '../../sdk/dtype.ts'
import { FormatError } from '../../sdk/errors.ts'
import { openSafetensors, safetensorsChunks, type TensorData } from '../../sdk/formats/safetensors.ts'
import { decodeFloats, plainBytes, readFloats, type StoredTensor, storedDType } from '../../sdk/formats/stored.ts'
import { fromFloats } from '../../sdk/quant/convert.ts'
import { type ByteSource, bytesSource } from '../../sdk/store/byte-source.ts'
import { readAs } from './read-as.ts'
import { goldenFile, missing, table } from './shared.ts'

const join = (chunks: Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(chunks))
const open = (bytes: Uint8Array) => openSafetensors(bytesSource('x.safetensors', bytes))

/** A file with this header text and so many bytes of data. */
function file(header: string, dataBytes: number): Uint8Array {
  const text = new TextEncoder().encode(header)
  const bytes = new Uint8Array(8 + text.length + dataBytes)
  new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true)
  bytes.set(text, 8)
  return bytes
}

async function contents(source: ByteSource): Promise<{ tensors: TensorData[]; metadata: Record<string, string> }> {
  const { tensors, metadata } = await openSafetensors(source)
  const all: TensorData[] = []
  for (const { name, dtype, shape, read } of tensors.values())
    all.push({ name, dtype: dtype as TensorData['dtype'], shape, data: await read() })
  return { tensors: all, metadata: { ...metadata } }
}

const fixture = table('safetensors_fixture.safetensors')

describe.skipIf(missing(fixture))('safetensors_fixture', () => {
  it('holds the numbers that PyTorch wrote', async () => {
    const want = JSON.parse(readFileSync(table('safetensors_fixture.json'), 'utf8'))
    const { tensors, metadata } = await open(readFileSync(fixture))
    expect(metadata).toEqual({ note: 'héllo', format: 'pt' })
    expect([...tensors.keys()].sort()).toEqual(Object.keys(want).sort())
    for (const [name, { shape, values }] of Object.entries<{ shape: number[]; values: unknown }>(want)) {
      const tensor = tensors.get(name)!
      expect(tensor.shape).toEqual(shape)
      const flat = [values].flat(9).map(Number)
      const bytes = await tensor.read()
      const { buffer } = bytes.slice()
      const got =
        tensor.dtype === 'I64'
          ? [...new BigInt64Array(buffer)].map(Number)
          : tensor.dtype === 'I8'
            ? [...new Int8Array(buffer)]
            : tensor.dtype === 'U8' || tensor.dtype === 'BOOL'
              ? [...bytes]
              : [...(await readFloats(tensor))]
      expect(got, name).toEqual(flat)
    }
  })

  for (const path of [
    fixture,
    goldenFile('tiny-qwen2', 'model.safetensors'),
    goldenFile('tiny-qwen2', 'expected.safetensors'),
  ])
    it.skipIf(missing(path))(`${path} is written again byte for byte`, async () => {
      const bytes = readFileSync(path)
      const { tensors, metadata } = await contents(bytesSource(path, bytes))
      expect(Buffer.compare(join(safetensorsChunks(tensors.reverse(), metadata)), bytes)).toBe(0)
    })
})

describe('round trip', () => {
  const tensor = fc
    .record({
      name: fc.string({ unit: 'grapheme', minLength: 1, maxLength: 12 }),
      dtype: fc.constantFrom(...(Object.keys(plainBytes) as (keyof typeof plainBytes)[])),
      shape: fc.array(fc.nat(4), { maxLength: 4 }),
    })
    .chain(({ name, dtype, shape }) => {
      const bytes = shape.reduce((n, d) => n * d, plainBytes[dtype])
      return fc
        .uint8Array({ minLength: bytes, maxLength: bytes })
        .map((data): TensorData => ({ name, dtype, shape, data }))
    })

  it('any tensors, names and metadata come back, and the bytes do not depend on the order', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(tensor, { selector: (t) => t.name, maxLength: 8 }),
        fc.dictionary(fc.string({ unit: 'grapheme' }), fc.string({ unit: 'grapheme' })),
        async (tensors, metadata) => {
          const bytes = join(safetensorsChunks(tensors, metadata))
          const got = await contents(bytesSource('x', bytes))
          const byName = (list: TensorData[]) => [...list].sort((a, b) => (a.name < b.name ? -1 : 1))
          expect(byName(got.tensors)).toEqual(byName(tensors))
          expect(got.metadata).toEqual({ ...metadata })
          expect(Buffer.compare(join(safetensorsChunks([...tensors].reverse(), metadata)), bytes)).toBe(0)
          expect(new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true) % 8).toBe(0)
        },
      ),
      { seed: 6, numRuns: 200 },
    )
  })

  it('reads ranges of one tensor and nothing beyond it', async () => {
    const data = Uint8Array.from({ length: 40 }, (_, i) => i)
    const bytes = join(
      safetensorsChunks([
        { name: 'a', dtype: 'U8', shape: [40], data },
        { name: 'b', dtype: 'U8', shape: [8], data: new Uint8Array(8).fill(99) },
      ]),
    )
    const a = (await open(bytes)).tensors.get('a')!
    expect([...(await a.read(3, 4))]).toEqual([3, 4, 5, 6])
    expect([...(await a.read(38))]).toEqual([38, 39])
    await expect(a.read(38, 3)).rejects.toThrow('x.safetensors: a: no bytes 38 to 41, it has 40')
    await expect(a.read(-1, 3)).rejects.toThrow(FormatError)
  })
})

describe('lying headers', () => {
  const entry = (fields: object) => JSON.stringify({ dtype: 'F32', shape: [2], data_offsets: [0, 8], ...fields })
  const cases: [what: string, bytes: Uint8Array, message: string | RegExp][] = [
    ['no header', new Uint8Array(3), '3 bytes are no safetensors file'],
    ['a length past the end', file('{}', 0).fill(200, 0, 1), 'past the end'],
    ['a length of petabytes', file('{}', 0).fill(200, 0, 8), 'is no safetensors file'],
    ['no JSON', file('{"a":', 0), 'not JSON'],
    ['no UTF-8', file('{"a":1}', 0).fill(255, 10, 11), 'not JSON'],
    ['a list', file('[]', 0), 'not a JSON object'],
    ['an entry that is a number', file('{"a":1}', 0), 'a: its entry'],
    ['an unknown dtype', file(`{"a":${entry({ dtype: 'Q9' })}}`, 8), 'a: dtype "Q9" is not known'],
    ['a dtype of Object.prototype', file(`{"a":${entry({ dtype: 'toString' })}}`, 8), 'is not known'],
    ['a negative size', file(`{"a":${entry({ shape: [-2] })}}`, 8), 'a: shape [-2]'],
    ['half a size', file(`{"a":${entry({ shape: [0.5, 4] })}}`, 8), 'a: shape'],
    ['a huge size', file('{"a":{"dtype":"F32","shape":[1e300],"data_offsets":[0,8]}}', 8), 'a: shape'],
    ['a product that overflows', file(`{"a":${entry({ shape: [2 ** 52, 2 ** 52] })}}`, 8), 'its offsets span 8'],
    ['a shape that does not fit', file(`{"a":${entry({ shape: [3] })}}`, 8), 'takes 12 bytes, its offsets span 8'],
    ['offsets backwards', file(`{"a":${entry({ data_offsets: [8, 0] })}}`, 8), 'a: F32 [2] takes 8 bytes'],
    ['three offsets', file(`{"a":${entry({ data_offsets: [0, 8, 8] })}}`, 8), 'not two offsets'],
    ['an end past the file', file(`{"a":${entry({})}}`, 7), 'a: ends at'],
    ['bytes left over', file(`{"a":${entry({})}}`, 9), 'its tensors end at'],
    ['a hole', file(`{"a":${entry({ data_offsets: [4, 12] })}}`, 12), 'a: begins at 4'],
    ['an overlap', file(`{"a":${entry({})},"b":${entry({ data_offsets: [4, 12] })}}`, 12), 'b: begins at 4'],
    [
      'a name twice',
      file(`{"a":${entry({})},"\\u0061":${entry({ data_offsets: [8, 16] })}}`, 16),
      'a: is in the header twice',
    ],
    ['metadata of numbers', file('{"__metadata__":{"a":1}}', 0), '__metadata__ a is not a string'],
  ]
  for (const [what, bytes, message] of cases)
    it(what, async () => {
      const error = await open(bytes).catch((e) => e)
      expect(error).toBeInstanceOf(FormatError)
      expect(error.message).toContain('x.safetensors: ')
      expect(error.message).toMatch(message)
    })

  it('a tensor in two shards', async () => {
    const shard = join(safetensorsChunks([{ name: 'a', dtype: 'U8', shape: [1], data: new Uint8Array(1) }]))
    await expect(openSafetensors([bytesSource('1', shard), bytesSource('2', shard)])).rejects.toThrow(
      '2: a: is in 1 already',
    )
  })

  it('metadata that is null is none', async () => {
    const { tensors, metadata } = await open(
      file('{"__metadata__":null,"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}', 2),
    )
    expect([...tensors.keys()]).toEqual(['a'])
    expect({ ...metadata }).toEqual({})
  })

  it('the writer refuses what it could not read', () => {
    const a = { name: 'a', dtype: 'F32', shape: [2], data: new Uint8Array(8) } as const
    expect(() => safetensorsChunks([a, a])).toThrow('a: this name is taken')
    expect(() => safetensorsChunks([{ ...a, shape: [3] }])).toThrow('a: F32 [3] takes 12 bytes, got 8')
  })
})

describe('dtypes', () => {
  const stored = (dtype: StoredTensor['dtype'], shape: number[], data: Uint8Array): StoredTensor => ({
    name: 't',
    dtype,
    shape,
    bytes: data.length,
    file: 'f',
    read: async (at = 0, n = data.length - at) => data.slice(at, at + n),
  })

  it('F8_E4M3 and F8_E5M2 by their definitions', () => {
    expect([...decodeFloats('F8_E4M3', Uint8Array.of(0, 1, 8, 0x38, 0x7e, 0xb8, 0x7f))]).toEqual([
      0,
      2 ** -9,
      2 ** -6,
      1,
      448,
      -1,
      Number.NaN,
    ])
    expect([...decodeFloats('F8_E5M2', Uint8Array.of(0, 1, 0x3c, 0x7b, 0x7c, 0xbc))]).toEqual([
      0,
      2 ** -16,
      1,
      57_344,
      Number.POSITIVE_INFINITY,
      -1,
    ])
  })

  it('F64 rounds to f32, at any alignment', () => {
    const bytes = new Uint8Array(17)
    bytes.set(new Uint8Array(Float64Array.of(0.1, -1e300).buffer), 1)
    expect([...decodeFloats('F64', bytes.subarray(1))]).toEqual([Math.fround(0.1), Number.NEGATIVE_INFINITY])
  })

  it('converts in chunks to every canonical dtype', async () => {
    const values = Float32Array.from({ length: 1_200_000 }, (_, i) => Math.sin(i))
    const reads: number[] = []
    const f32 = stored('F32', [37_500, 32], new Uint8Array(values.buffer))
    const tensor = {
      ...f32,
      read: (at?: number, n?: number) => {
        reads.push(n ?? -1)
        return f32.read(at, n)
      },
    }
    for (const dtype of floatDTypes.slice(1))
      expect(Buffer.compare(await readAs(tensor, dtype), fromFloats(values, dtype)), dtype).toBe(0)
    expect(Math.max(...reads)).toBe(4 * 2 ** 20)
    expect(Buffer.compare(await readAs(tensor, 'f32'), new Uint8Array(values.buffer))).toBe(0)
  })

  it('what is kept by default', () => {
    const kept = (dtype: StoredTensor['dtype']) => storedDType(stored(dtype, [0], new Uint8Array()))
    expect(
      (['F64', 'F32', 'F16', 'BF16', 'F8_E4M3', 'Q8_0', 'Q4_0', 'Q4_1', 'Q4_K', 'Q5_1'] as const).map(kept),
    ).toEqual(['f32', 'f32', 'f16', 'bf16', 'f16', 'q8', 'q4', 'q4a', 'q4a', 'q8'])
    expect(() => kept('I64')).toThrow('f: t: I64 cannot be read as floating point')
  })

  it('refuses q4 of rows that are no whole blocks', async () => {
    await expect(readAs(stored('I64', [1], new Uint8Array(8)), 'f32')).rejects.toThrow(FormatError)
  })
})
