import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { brotliCompressSync, gzipSync } from 'node:zlib'
import { parquetWriteBuffer } from 'hyparquet-writer'
import { afterAll, describe, expect, it } from 'vitest'
import { readRows } from '../../sdk/data/rows.ts'
import { DataError } from '../../sdk/errors.ts'
import { randomBits } from '../../sdk/random.ts'

const folder = mkdtempSync(join(tmpdir(), 'halfling-parquet-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const path = join(folder, 'rows.parquet')

/** Frames of zstd and lz4 that hold the bytes as they are. */
const zstd = (bytes: Uint8Array) => {
  const size = Buffer.alloc(7)
  size.writeUInt32LE(bytes.length)
  size.writeUIntLE(8 * bytes.length + 1, 4, 3)
  return Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0xa0, ...size, ...bytes)
}
const lz4 = (bytes: Uint8Array) => {
  const more = bytes.length < 15 ? [] : [...new Array(Math.floor((bytes.length - 15) / 255)).fill(255)]
  if (bytes.length >= 15) more.push((bytes.length - 15) % 255)
  return Uint8Array.of(Math.min(15, bytes.length) << 4, ...more, ...bytes)
}
const compressors = {
  GZIP: (bytes: Uint8Array) => new Uint8Array(gzipSync(bytes)),
  BROTLI: (bytes: Uint8Array) => new Uint8Array(brotliCompressSync(bytes)),
  ZSTD: zstd,
  LZ4_RAW: lz4,
}
type Codec = keyof typeof compressors | 'SNAPPY' | 'UNCOMPRESSED'
type Encoding = 'DELTA_BYTE_ARRAY' | 'DELTA_LENGTH_BYTE_ARRAY'

const question = (i: number) => `What is ${i} plus ${7 * i}?`
const count = 120
const make = (codec: Codec, encoding?: Encoding) =>
  Buffer.from(
    parquetWriteBuffer({
      codec,
      compressors,
      rowGroupSize: 50,
      columnData: [
        { name: 'question', data: Array.from({ length: count }, (_, i) => question(i)), type: 'STRING', encoding },
        { name: 'answer', data: Array.from({ length: count }, (_, i) => BigInt(8 * i)), type: 'INT64' },
        { name: 'level', data: Array.from({ length: count }, (_, i) => (i % 9 ? `l${i % 2}` : null)), type: 'STRING' },
      ],
    }),
  )

async function read(bytes: Uint8Array) {
  writeFileSync(path, bytes)
  const rows = []
  for await (const row of readRows(path)) rows.push(row.values)
  return rows
}

const kinds: [Codec, Encoding?][] = [
  ['GZIP'],
  ['BROTLI'],
  ['ZSTD'],
  ['LZ4_RAW'],
  ['SNAPPY'],
  ['UNCOMPRESSED', 'DELTA_BYTE_ARRAY'],
  ['UNCOMPRESSED', 'DELTA_LENGTH_BYTE_ARRAY'],
]

describe.each(kinds)('parquet of %s %s', (codec, encoding) => {
  const bytes = make(codec, encoding)

  it('is read', async () => {
    const rows = await read(bytes)
    expect(rows).toHaveLength(count)
    for (const i of [0, 49, 50, 119])
      expect(rows[i]).toEqual({ question: question(i), answer: 8 * i, level: i % 9 ? `l${i % 2}` : null })
  })

  it('broken in places ends in rows or in a DataError that names the file', async () => {
    let refused = 0
    for (let run = 0; run < 12; run++) {
      const random = (n: number, i: number) => randomBits(7, run, i) % n
      const broken = Buffer.from(bytes)
      for (let i = 0; i < 3; i++) broken[random(broken.length, 2 * i)] = [0, 255, 127, 128][random(4, 2 * i + 1)]
      const error = await read(broken.subarray(0, run < 2 ? random(broken.length, 9) : undefined)).then(
        () => null,
        (e) => e,
      )
      if (error === null) continue
      expect(error).toBeInstanceOf(DataError)
      expect(error.message).toContain(`${path}: is not a readable parquet file: `)
      refused++
    }
    expect(refused).toBeGreaterThan(2)
  })
})

describe('lies', () => {
  it('about places name row group and column', async () => {
    const bytes = make('UNCOMPRESSED')
    // The middle of the file is gone, so that its end speaks of places that are not there.
    const metadata = bytes.readUInt32LE(bytes.length - 8) + 8
    const short = Buffer.concat([bytes.subarray(0, 100), bytes.subarray(bytes.length - metadata)])
    await expect(read(short)).rejects.toThrow(/row group \d: column \w+: \d+ bytes at \d+, the file has \d+/)
  })

  it('about the size of metadata', async () => {
    const bytes = make('UNCOMPRESSED')
    bytes.writeUInt32LE(0x7fffffff, bytes.length - 8)
    await expect(read(bytes)).rejects.toThrow(`metadata of 2147483647 bytes in a file of ${bytes.length}`)
    // A list of 2^28 items where there are a few bytes.
    const list = [0x19, 0xfc, 0xff, 0xff, 0xff, 0x7f, 0x00]
    const liar = Buffer.from([...Buffer.from('PAR1'), ...list, list.length, 0, 0, 0, ...Buffer.from('PAR1')])
    await expect(read(liar)).rejects.toThrow('a list of 268435455 items in metadata that has 1 more bytes')
  })
})
