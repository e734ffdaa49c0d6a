import {
  appendFileSync,
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { FormatError, HalflingError } from '../../sdk/errors.ts'
import { memoryStore } from '../../sdk/store/memory.ts'
import { join as ownJoin } from '../../sdk/store/path.ts'
import { fileFolder } from '../../sdk/store/sources.ts'
import { below, storeAt } from '../../sdk/store/store.ts'
import { opened, readJson, readText, textChunks } from '../../sdk/store/text.ts'
import { cases } from './cases.ts'

const root = mkdtempSync(join(tmpdir(), 'halfling-store-'))
afterAll(() => rmSync(root, { recursive: true }))
const bytes = (text: string) => new TextEncoder().encode(text)

// test/browser/store.test.ts runs the same cases on the browser's storage.
describe.each([
  ['on the disk', () => storeAt(mkdtempSync(join(root, 'case-')))],
  ['in memory', async () => memoryStore()],
])('a store %s', (_, open) => {
  it.each(Object.entries(cases))('%s', async (_, { run, gives }) => {
    expect(await run(await open())).toEqual(gives)
  })
})

describe('the disk', () => {
  it('a file that shrinks, grows or is replaced while it is open is named, with its sizes', async () => {
    const path = join(root, 'changes')
    const changes: [() => void, number][] = [
      [() => truncateSync(path, 40), 40],
      [() => appendFileSync(path, 'x'), 101],
      [() => utimesSync(path, 1, 1), 100],
    ]
    for (const [change, now] of changes) {
      writeFileSync(path, new Uint8Array(100))
      const file = await opened(await storeAt(path), '')
      expect(await file.read(10, 2)).toEqual(new Uint8Array(2))
      change()
      const error = await file.read(10, 2).catch((error) => error)
      expect(error).toBeInstanceOf(FormatError)
      expect(error.message).toContain(`${path}: changed while it was open (100 bytes then, ${now} now)`)
    }
  })

  it('a place may be a file', async () => {
    const path = join(root, 'model.gguf')
    const store = await storeAt(path)
    expect(await store.list()).toEqual([])
    await store.write('', textChunks('GGUF'))
    expect(readFileSync(path, 'utf8')).toBe('GGUF')
    expect((await store.list()).map(({ name, kind, bytes }) => [name, kind, bytes])).toEqual([['', 'file', 4]])
    expect((await store.open(''))!.name).toBe(path)
  })

  it('what cannot be written is typed and says why', async () => {
    writeFileSync(join(root, 'file'), 'x')
    const store = await storeAt(join(root, 'file'))
    for (const work of [() => store.write('below', []), () => store.append('below', []), () => store.lock('below')]) {
      const error = await work().catch((error) => error)
      expect(error).toBeInstanceOf(HalflingError)
      expect(error.message).toBe(
        `${join(root, 'file/below')}: cannot be written: there is a file where a folder is wanted`,
      )
    }
  })

  it('links are told as such, and not followed', async () => {
    const folder = join(root, 'links')
    mkdirSync(folder)
    symlinkSync(root, join(folder, 'up'))
    expect((await (await storeAt(folder)).list()).map(({ name, kind }) => [name, kind])).toEqual([['up', 'link']])
  })

  it.each(['/a/b', 'a/b', 'a', '/a', '/', 'a/b/', './a', '../a'])('paths are joined as node:path does: %s', (path) => {
    expect(join(ownJoin(path, 'x', 'y'))).toBe(join(path, 'x', 'y'))
  })

  it('a folder that is written has the rights of any other', async () => {
    const before = process.umask(0o022)
    const store = await storeAt(root)
    await store.write('rights', new Map([['a', textChunks('x')]])).finally(() => process.umask(before))
    chmodSync(join(root, 'rights'), 0o700)
    await store.write('rights', new Map([['b', textChunks('x')]]))
    expect(readdirSync(join(root, 'rights'))).toEqual(['b'])
  })
})

describe('memory', () => {
  it('is full with so many bytes: what was there stays', async () => {
    const files = new Map([['a', bytes('12345')]])
    const store = memoryStore(files, { name: 'small', mostBytes: 10 })
    const full = 'small/b: cannot be written: the store is full (10 bytes)'
    await expect(store.write('b', textChunks('123456'))).rejects.toThrow(full)
    await expect(
      store.write(
        'b',
        new Map([
          ['x', textChunks('123')],
          ['y', textChunks('456')],
        ]),
      ),
    ).rejects.toThrow(full)
    expect([...files.keys()]).toEqual(['a'])
    // What is replaced makes room.
    await store.write('a', textChunks('1234567890'))
    await store.append('a', textChunks('ab'), 8)
    await expect(store.append('a', textChunks('c'))).rejects.toThrow('the store is full')
    expect(await readText(store, 'a')).toBe('12345678ab')
  })

  it('keeps no bytes of others', async () => {
    const store = memoryStore()
    const chunk = bytes('abc')
    await store.write('a', [chunk])
    chunk.fill(0)
    ;(await (await store.open('a'))!.read(0, 3)).fill(0)
    expect(await readText(store, 'a')).toBe('abc')
  })
})

describe('text and JSON', () => {
  it('are read, or refused by name', async () => {
    const store = memoryStore(
      new Map([
        ['text', bytes('héllo')],
        ['latin1', Uint8Array.of(104, 233)],
        ['in/good.json', bytes('{"a": 1}')],
        ['bad.json', bytes('{"a": ')],
        ['list.json', bytes('[1]')],
      ]),
    )
    expect(await readText(store, 'text')).toBe('héllo')
    await expect(readText(store, 'latin1')).rejects.toThrow('memory/latin1: is not UTF-8 text')
    expect(await readJson(below(store, 'in'), 'good.json')).toEqual({ a: 1 })
    await expect(readJson(store, 'bad.json')).rejects.toThrow('bad.json: is not JSON')
    await expect(readJson(store, 'list.json')).rejects.toThrow('list.json: is not a JSON object')
    expect(await readJson(store, 'none.json')).toBeNull()
    await expect(opened(store, 'none.json')).rejects.toThrow('memory/none.json: no such file')
  })
})

it('files that a page was given are a source, told each time anew', async () => {
  const source = fileFolder([new File(['{}'], 'config.json'), new File(['abc'], 'x.gguf')])
  for (const _ of [1, 2])
    expect((await source.list()).map(({ name, bytes }) => [name, bytes])).toEqual([
      ['config.json', 2],
      ['x.gguf', 3],
    ])
  expect(await readText(source, 'x.gguf')).toBe('abc')
})
