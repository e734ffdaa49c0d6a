import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { FormatError, HalflingError } from '../../sdk/errors.ts'
import { openFile, readJsonFile, readTextFile, writeAtomically } from '../../sdk/formats/node-file.ts'

const folder = mkdtempSync(join(tmpdir(), 'halfling-files-'))
afterAll(() => rmSync(folder, { recursive: true }))
const write = (name: string, content: string | Uint8Array): string => {
  writeFileSync(join(folder, name), content)
  return join(folder, name)
}

describe('openFile', () => {
  it('reads ranges, and refuses those that are not there', async () => {
    const path = write(
      'ten',
      Uint8Array.from({ length: 10 }, (_, i) => i),
    )
    const file = await openFile(path)
    expect([file.name, file.size]).toEqual([path, 10])
    expect([...(await file.read(2, 3))]).toEqual([2, 3, 4])
    expect((await file.read(10, 0)).length).toBe(0)
    for (const [offset, length] of [
      [8, 3],
      [-1, 2],
      [0, 1e15],
      [0.5, 1],
      [0, Number.NaN],
    ])
      await expect(file.read(offset, length)).rejects.toThrow(FormatError)
    await file.close()
    await file.close()
  })

  it('names the file and the offset when the file shrank', async () => {
    const path = write('shrinks', new Uint8Array(100))
    const file = await openFile(path)
    truncateSync(path, 40)
    await expect(file.read(10, 50)).rejects.toThrow(`${path}: ends at 40, it had 100 bytes when it was opened`)
    await file.close()
  })

  it('names what is missing or no file', async () => {
    await expect(openFile(join(folder, 'none'))).rejects.toThrow('none: no such file or folder')
    await expect(openFile(folder)).rejects.toThrow(FormatError)
  })
})

describe('text and JSON', () => {
  it('are read, or refused by name', async () => {
    expect(await readTextFile(write('text', 'héllo'))).toBe('héllo')
    await expect(readTextFile(write('latin1', Uint8Array.of(104, 233)))).rejects.toThrow('latin1: is not UTF-8 text')
    expect(await readJsonFile(write('good.json', '{"a": 1}'))).toEqual({ a: 1 })
    await expect(readJsonFile(write('bad.json', '{"a": '))).rejects.toThrow('bad.json: is not JSON')
    await expect(readJsonFile(write('list.json', '[1]'))).rejects.toThrow('list.json: is not a JSON object')
    await expect(readJsonFile(join(folder, 'none.json'))).rejects.toThrow('none.json: no such file')
  })
})

describe('writeAtomically', () => {
  it('replaces a file, from chunks at hand or to come', async () => {
    const path = write('out', 'old')
    await writeAtomically(path, [new Uint8Array([1]), new Uint8Array([2, 3])])
    expect([...readFileSync(path)]).toEqual([1, 2, 3])
    await writeAtomically(
      path,
      (async function* () {
        yield new Uint8Array([4])
        yield new Uint8Array(0)
        yield new Uint8Array([5])
      })(),
    )
    expect([...readFileSync(path)]).toEqual([4, 5])
  })

  it('leaves the old file and nothing else when it fails', async () => {
    const path = write('kept', 'old')
    const before = readdirSync(folder)
    const failing = (function* () {
      yield new Uint8Array([1])
      throw new Error('no more')
    })()
    await expect(writeAtomically(path, failing)).rejects.toThrow('no more')
    expect(readFileSync(path, 'utf8')).toBe('old')
    expect(readdirSync(folder)).toEqual(before)
    const error = await writeAtomically(join(folder, 'none', 'x'), []).catch((e) => e)
    expect(error).toBeInstanceOf(HalflingError)
    expect(error.message).toContain(`${join(folder, 'none', 'x')}: cannot be written: no such file or folder`)
  })
})
