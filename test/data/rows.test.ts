import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { readContent } from '../../sdk/data/columns.ts'
import { type Row, readRows } from '../../sdk/data/rows.ts'
import { DataError } from '../../sdk/errors.ts'

const folder = mkdtempSync(join(tmpdir(), 'halfling-rows-'))
let files = 0
function file(text: string | Uint8Array, extension = 'jsonl'): string {
  const path = join(folder, `${files++}.${extension}`)
  writeFileSync(path, text)
  return path
}

async function all(source: Parameters<typeof readRows>[0]): Promise<Row[]> {
  const rows: Row[] = []
  for await (const row of readRows(source)) rows.push(row)
  return rows
}

const values = async (source: Parameters<typeof readRows>[0]) => (await all(source)).map((row) => row.values)

describe('readRows', () => {
  it('reads lines, with their numbers', async () => {
    const path = file('\ufeff{"a": 1}\r\n\n  {"a": "ü\\n"}\n{"a": 3}')
    expect(await all(path)).toEqual([
      { values: { a: 1 }, index: 0, place: `${path}:1` },
      { values: { a: 'ü\n' }, index: 1, place: `${path}:3` },
      { values: { a: 3 }, index: 2, place: `${path}:4` },
    ])
    expect(await all(file(''))).toEqual([])
    expect(await all(file('\n \n'))).toEqual([])
  })

  it('reads arrays', async () => {
    const path = file('\ufeff [\n {"a": "],[\\"}"},\n\n {"a": [{"b": []}]} ]\n', 'json')
    expect(await all(path)).toEqual([
      { values: { a: '],["}' }, index: 0, place: `${path}:2` },
      { values: { a: [{ b: [] }] }, index: 1, place: `${path}:4` },
    ])
    expect(await all(file('\ufeff[ ]', 'json'))).toEqual([])
    expect(await all([{ a: 1 }])).toEqual([{ values: { a: 1 }, index: 0, place: 'row 0' }])
  })

  it('reads back what was written, over chunk boundaries', async () => {
    const rows = Array.from({ length: 300 }, (_, i) => ({ i, text: '"🦙\\'.repeat(i) }))
    expect(await values(file(rows.map((r) => JSON.stringify(r)).join('\n')))).toEqual(rows)
    expect(await values(file(JSON.stringify(rows, null, 1), 'json'))).toEqual(rows)
    await fc.assert(
      fc.asyncProperty(fc.array(fc.dictionary(fc.string(), fc.jsonValue())), async (given) => {
        const plain = JSON.parse(JSON.stringify(given))
        expect(await values(file(JSON.stringify(given), 'json'))).toEqual(plain)
        expect(await values(file(given.map((r) => JSON.stringify(r)).join('\n')))).toEqual(plain)
      }),
      { numRuns: 50 },
    )
  })

  it.each([
    ['a malformed line', '{"a": 1}\n{"a": \n', 'jsonl', ':2: not valid JSON'],
    ['a line that is no object', '{"a": 1}\n\n7\n', 'jsonl', ':3: a row is an object'],
    ['an element that is no object', '[{}, 7]', 'json', ':1: a row is an object'],
    ['a malformed element', '[{},\n{"a" 1}]', 'json', ':2: not valid JSON'],
    ['a missing element', '[{},\n,{}]', 'json', ':2: a value is missing'],
    ['a comma at the end', '[{},\n]', 'json', ':2: a value is missing'],
    ['an array that does not end', '[{},\n{"a":1}', 'json', ':2: the array does not end'],
    ['text after the array', '[{}]\n{}', 'json', ':2: text after the end'],
    ['another format', 'a,b', 'csv', 'from .jsonl, .json and .parquet'],
  ])('%s', async (_, text, extension, message) => {
    const path = file(text, extension)
    const error = await all(path).catch((e) => e)
    expect(error).toBeInstanceOf(DataError)
    expect(error.message).toContain(path)
    expect(error.message).toContain(message)
  })

  it('names bytes that are no UTF-8, files that are not there, rows that are too long', async () => {
    await expect(all(file(Uint8Array.of(123, 34, 0xff, 34, 58, 49, 125)))).rejects.toThrow(/:1: not valid JSON/)
    await expect(all(join(folder, 'none.jsonl'))).rejects.toThrow(/none.jsonl: no such file, and no dataset on the hub/)
    const long = file(`{}\n"${'x'.repeat(65 * 2 ** 20)}"`)
    await expect(all(long)).rejects.toThrow(/:2: a row of more than/)
  })
})

describe('readContent', () => {
  const read = (values: Record<string, unknown>, columns?: Record<string, string>) =>
    readContent({ values, index: 3, place: 'rows.jsonl:4' }, columns)
  const chat = [{ role: 'user', content: 'hi' }]

  it('knows the kinds of rows', () => {
    expect(read({ messages: chat, tools: '[{"x": 1}]' })).toEqual({
      kind: 'messages',
      messages: chat,
      tools: [{ x: 1 }],
    })
    expect(read({ prompt: 'a', completion: 'b', text: 'c' })).toEqual({
      kind: 'completion',
      prompt: 'a',
      completion: 'b',
    })
    expect(read({ prompt: chat, completion: chat })).toEqual({ kind: 'chatCompletion', prompt: chat, completion: chat })
    expect(read({ text: 'c', messages: null })).toEqual({ kind: 'text', text: 'c' })
    expect(read({ question: 'q', answer: 7 })).toEqual({ kind: 'question', question: 'q', answer: '7' })
    expect(read({ question: 'q', answer: 2n ** 64n })).toMatchObject({ answer: '18446744073709551616' })
    expect(read({ messages: JSON.stringify(chat) })).toEqual({ kind: 'messages', messages: chat })
  })

  it('maps columns', () => {
    const row = { text: 't', q: 'why', solution: 'so', answer: '1' }
    expect(read(row, { question: 'q', answer: 'solution' })).toEqual({
      kind: 'question',
      question: 'why',
      answer: 'so',
    })
    expect(read(row, { text: 'q' })).toEqual({ kind: 'text', text: 'why' })
  })

  it.each([
    [{ input: 'a', output: 'b' }, undefined, 'its columns are input, output; wanted: messages'],
    [{ question: 'a', reply: 'b' }, { question: 'q' }, 'wanted: q + answer'],
    [{ text: 1 }, undefined, "column 'text' is 1, not a string"],
    [{ prompt: 'a', completion: chat }, undefined, "column 'prompt'"],
    [{ messages: [] }, undefined, 'the list is empty'],
    [{ messages: [{ content: 'x' }] }, undefined, 'message 0'],
    [{ messages: chat, tools: '{' }, undefined, "column 'tools'"],
    [{ question: 'a', answer: null }, undefined, "column 'answer' is null"],
    [{ question: 'a', answer: Number.NaN }, undefined, "column 'answer' is NaN, not a string"],
    [{ messages: 'hello' }, undefined, "column 'messages' is text, and not valid JSON"],
    [{ messages: [{ role: 'user', content: 3 }] }, undefined, 'its content is 3, not a string'],
    [{ text: 'a' }, { tekst: 'x' }, "'tekst' is none of"],
  ])('names what is wrong: %j', (values, columns, message) => {
    expect(() => read(values, columns as Record<string, string> | undefined)).toThrow(DataError)
    expect(() => read(values, columns as Record<string, string> | undefined)).toThrow(message)
    if (!message.includes('none of')) expect(() => read(values, columns as never)).toThrow('rows.jsonl:4')
  })
})
