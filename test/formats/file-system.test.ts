import fs from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, dirname as nodeDirname, join as nodeJoin } from 'node:path'
import { describe, expect, it } from 'vitest'
import { dirname, type FileSystem, fileSystem, join } from '../../sdk/formats/file-system.ts'
import { cases } from './file-system-cases.ts'

// test/browser/file-system.test.ts runs the same cases on the browser's storage.
describe('the files that Node has', () => {
  it.each(Object.entries(cases))('%s', async (_, { run, gives }) => {
    const at = await fs.mkdtemp(nodeJoin(tmpdir(), 'halfling-files-'))
    expect(await run((await fileSystem()) as FileSystem, at)).toEqual(gives)
    await fs.rm(at, { recursive: true })
  })

  it.each(['/a/b', 'a/b', 'a', '/a', '/', 'a/b/', './a', '../a', '/a/b/c.json'])(
    'paths as node:path has them: %s',
    (path) => {
      expect(dirname(path)).toBe(nodeDirname(path))
      expect(nodeJoin(join(path, 'x', 'y'))).toBe(nodeJoin(path, 'x', 'y'))
      expect(basename(join(path, 'x'))).toBe('x')
    },
  )
})
