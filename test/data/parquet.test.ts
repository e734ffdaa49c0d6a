import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parquetWriteBuffer } from 'hyparquet-writer'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readRows } from '../../sdk/data/rows.ts'
import { DataError } from '../../sdk/errors.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'halfling-parquet-'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

type Columns = Parameters<typeof parquetWriteBuffer>[0]['columnData']

async function write(name: string, columnData: Columns, options: object = {}): Promise<string> {
  const path = join(folder, name)
  await writeFile(path, Buffer.from(parquetWriteBuffer({ columnData, ...options })))
  return path
}

async function read(path: string) {
  const rows = []
  for await (const row of readRows(path)) rows.push(row)
  return rows
}

const questions = (count: number): Columns => [
  { name: 'question', data: Array.from({ length: count }, (_, i) => `What is ${i} + 1? ×`), type: 'STRING' },
  { name: 'answer', data: Array.from({ length: count }, (_, i) => i + 1), type: 'INT32' },
]

describe('parquet rows', () => {
  it.each([{ codec: 'UNCOMPRESSED' }, { codec: 'SNAPPY' }])('columns become rows, $codec', async ({ codec }) => {
    const path = await write(`plain-${codec}.parquet`, questions(50), { codec })
    const rows = await read(path)
    expect(rows).toHaveLength(50)
    expect(rows[7].values).toEqual({ question: 'What is 7 + 1? ×', answer: 8 })
    expect(rows[7].place).toBe(`${path} row 7`)
    expect(rows.map((row) => row.index)).toEqual(Array.from({ length: 50 }, (_, i) => i))
  })

  it('row groups and slices of them come in order', async () => {
    const path = await write('groups.parquet', questions(10_000), { rowGroupSize: [6000, 1000] })
    const rows = await read(path)
    expect(rows.map((row) => row.values.answer)).toEqual(Array.from({ length: 10_000 }, (_, i) => i + 1))
  })

  it('big integers, bytes, dates, nulls and lists become what JSON could have said', async () => {
    const path = await write('kinds.parquet', [
      { name: 'small', data: [12n, 7n], type: 'INT64' },
      { name: 'large', data: [2n ** 60n, -(2n ** 60n)], type: 'INT64' },
      { name: 'bytes', data: [new TextEncoder().encode('naïve'), new TextEncoder().encode('b')], type: 'BYTE_ARRAY' },
      { name: 'image', data: [Uint8Array.of(255, 254), Uint8Array.of(65)], type: 'BYTE_ARRAY' },
      { name: 'when', data: [new Date(0), new Date(1e12)], type: 'TIMESTAMP' },
      { name: 'maybe', data: ['x', null], type: 'STRING', nullable: true },
      {
        name: 'messages',
        data: [[{ role: 'user', content: 'hi' }], [{ role: 'assistant', content: 'ho' }]],
        type: 'JSON',
      },
    ])
    const [first, second] = await read(path)
    expect(first.values).toMatchObject({ small: 12, large: 2n ** 60n, bytes: 'naïve', maybe: 'x' })
    expect([first.values.image, second.values.image]).toEqual([Uint8Array.of(255, 254), 'A'])
    expect(first.values.when).toBe('1970-01-01T00:00:00.000Z')
    expect(first.values.messages).toEqual([{ role: 'user', content: 'hi' }])
    expect(second.values.maybe ?? null).toBe(null)
  })

  it('lists of structs, as datasets writes messages', async () => {
    const path = join(folder, 'messages.parquet')
    const message = (name: string) => ({
      name,
      type: 'BYTE_ARRAY' as const,
      converted_type: 'UTF8' as const,
      repetition_type: 'OPTIONAL' as const,
    })
    const schema = [
      { name: 'root', num_children: 1 },
      { name: 'messages', repetition_type: 'OPTIONAL' as const, num_children: 1, converted_type: 'LIST' as const },
      { name: 'list', repetition_type: 'REPEATED' as const, num_children: 1 },
      { name: 'element', repetition_type: 'OPTIONAL' as const, num_children: 2 },
      message('role'),
      message('content'),
    ]
    const data = [
      [
        { role: 'user', content: 'a' },
        { role: 'assistant', content: 'b' },
      ],
      [{ role: 'user', content: 'c' }],
    ]
    await writeFile(path, Buffer.from(parquetWriteBuffer({ schema, columnData: [{ name: 'messages', data }] })))
    expect((await read(path)).map((row) => row.values.messages)).toEqual(data)
  })
})

describe('what is broken is named', () => {
  it('a truncated file, one that is none, one that is missing', async () => {
    const path = await write('broken.parquet', questions(2000))
    const { length } = await readFile(path)
    await truncate(path, length - 30)
    await expect(read(path)).rejects.toThrow(DataError)
    await writeFile(path, 'PAR1 no PAR1')
    await expect(read(path)).rejects.toThrow(/broken\.parquet: is not a readable parquet file/)
    await writeFile(path, '')
    await expect(read(path)).rejects.toThrow(DataError)
    await expect(read(join(folder, 'none.parquet'))).rejects.toThrow(/none\.parquet: no such file/)
  })

  it('a page that claims two thousand million values ends in an error, not in the memory of the program', async () => {
    const path = await write('liar.parquet', [{ name: 'n', data: new Array(100).fill(5), type: 'INT32' }])
    const bytes = await readFile(path)
    // Every varint 200 (zigzag of 100 values) in the file becomes 2^31 - 2 where the length allows it.
    let changed = 0
    for (let i = 0; i < bytes.length - 1; i++)
      if (bytes[i] === 0xc8 && bytes[i + 1] === 0x01) {
        bytes[i] = 0xff
        bytes[i + 1] = 0x7f
        changed++
      }
    expect(changed).toBeGreaterThan(0)
    await writeFile(path, bytes)
    await expect(read(path)).rejects.toThrow(DataError)
  })
})
