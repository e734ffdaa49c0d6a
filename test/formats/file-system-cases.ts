import type { FileSystem } from '../../sdk/formats/file-system.ts'

// What node:fs/promises does, as far as we use it: each case gets an empty folder and tells what it saw. Runs in Node and in the browser.

const text = (s: string) => new TextEncoder().encode(s)
const codeOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => 'none',
    (error) => `${error.code}${typeof error.syscall === 'string' ? '' : ' without a syscall'}`,
  )

const write = async (fs: FileSystem, path: string, content: string) => {
  const handle = await fs.open(path, 'wx')
  await handle.writeFile(text(content))
  await handle.close()
}

export const cases: Record<string, { run(fs: FileSystem, at: string): Promise<unknown>; gives: unknown }> = {
  'a file is written in pieces and read in parts': {
    async run(fs, at) {
      const handle = await fs.open(`${at}/a`, 'wx')
      for (const part of ['one ', 'two ', 'three']) await handle.writeFile(text(part))
      await handle.sync()
      await handle.close()
      const reader = await fs.open(`${at}/a`, 'r')
      const buffer = new Uint8Array(10)
      const { bytesRead } = await reader.read(buffer, 2, 8, 4)
      const { bytesRead: atEnd } = await reader.read(buffer, 0, 4, 100)
      const { size } = await reader.stat()
      await reader.close()
      return [bytesRead, new TextDecoder().decode(buffer), atEnd, size, await fs.readFile(`${at}/a`, 'utf8')]
    },
    gives: [8, '\0\0two thre', 0, 13, 'one two three'],
  },
  'a file is changed in its place and cut': {
    async run(fs, at) {
      await write(fs, `${at}/a`, '0123456789')
      const handle = await fs.open(`${at}/a`, 'r+')
      await handle.write(text('xxABC'), 2, 3, 4)
      const buffer = new Uint8Array(10)
      await handle.read(buffer, 0, 10, 0)
      await handle.truncate(8)
      const { size } = await handle.stat()
      await handle.write(text('end'), 0, 3, 8)
      await handle.close()
      return [new TextDecoder().decode(buffer), size, await fs.readFile(`${at}/a`, 'utf8')]
    },
    gives: ['0123ABC789', 8, '0123ABC7end'],
  },
  'lines are appended to a file that is made when it is missing, and cut off again': {
    async run(fs, at) {
      await fs.appendFile(`${at}/log`, 'one\n')
      await fs.appendFile(`${at}/log`, 'two\n')
      const handle = await fs.open(`${at}/log`, 'a')
      const { size } = await handle.stat()
      await handle.truncate(4)
      await handle.close()
      await fs.appendFile(`${at}/log`, 'three\n')
      return [size, await fs.readFile(`${at}/log`, 'utf8')]
    },
    gives: [8, 'one\nthree\n'],
  },
  'what is missing': {
    run: (fs, at) =>
      Promise.all([
        codeOf(fs.open(`${at}/none`, 'r')),
        codeOf(fs.open(`${at}/none`, 'r+')),
        codeOf(fs.stat(`${at}/none`)),
        codeOf(fs.access(`${at}/none/below`)),
        codeOf(fs.readFile(`${at}/none`, 'utf8')),
        codeOf(fs.readdir(`${at}/none`)),
        codeOf(fs.mkdir(`${at}/none/below`)),
        codeOf(fs.rename(`${at}/none`, `${at}/b`)),
        codeOf(fs.rm(`${at}/none`)),
        codeOf(fs.rm(`${at}/none`, { force: true })),
        codeOf(fs.open(`${at}/none/a`, 'wx')),
      ]),
    gives: [...Array(9).fill('ENOENT'), 'none', 'ENOENT'],
  },
  'what is there already, and files in the place of folders': {
    async run(fs, at) {
      await write(fs, `${at}/file`, 'x')
      await fs.mkdir(`${at}/folder`)
      return Promise.all([
        codeOf(fs.open(`${at}/file`, 'wx')),
        codeOf(fs.mkdir(`${at}/folder`)),
        codeOf(fs.mkdir(`${at}/folder`, { recursive: true })),
        codeOf(fs.mkdir(`${at}/file`)),
        codeOf(fs.mkdir(`${at}/file`, { recursive: true })),
        codeOf(fs.mkdir(`${at}/file/below`, { recursive: true })),
        codeOf(fs.readdir(`${at}/file`)),
        codeOf(fs.access(`${at}/file/below`)),
        codeOf(fs.open(`${at}/file/below`, 'wx')),
        codeOf(fs.open(`${at}/folder`, 'a')),
        codeOf(fs.readFile(`${at}/folder`, 'utf8')),
      ])
    },
    gives: ['EEXIST', 'EEXIST', 'none', 'EEXIST', 'EEXIST', ...Array(4).fill('ENOTDIR'), 'EISDIR', 'EISDIR'],
  },
  'folders are made with those they lie in, told and deleted': {
    async run(fs, at) {
      await fs.mkdir(`${at}/a/b/c`, { recursive: true })
      await write(fs, `${at}/a/b/file`, 'x')
      const made = await fs.mkdtemp(`${at}/a/temp-`)
      await fs.chmod(made, 0o755)
      await fs.rm(made, { recursive: true })
      const names = (await fs.readdir(`${at}/a`, { recursive: true })).sort()
      const entries = (await fs.readdir(`${at}/a/b`, { withFileTypes: true })).map((e) => [
        e.name,
        e.isFile(),
        e.isDirectory(),
      ])
      const stat = await fs.stat(`${at}/a/b`)
      const file = await fs.lstat(`${at}/a//b/./file`)
      const now = Math.abs(Date.now() - file.mtimeMs) < 60_000
      await fs.rm(`${at}/a`, { recursive: true })
      return [names, entries.sort(), stat.isDirectory(), file.isFile(), file.size, now, await fs.readdir(at)]
    },
    gives: [
      ['b', 'b/c', 'b/file'],
      [
        ['c', false, true],
        ['file', true, false],
      ],
      ...[true, true, 1, true, []],
    ],
  },
  'a file is renamed, over another one too': {
    async run(fs, at) {
      await fs.mkdir(`${at}/folder`)
      await write(fs, `${at}/a`, 'new')
      await write(fs, `${at}/folder/b`, 'old and longer')
      await fs.rename(`${at}/a`, `${at}/folder/b`)
      return [await fs.readFile(`${at}/folder/b`, 'utf8'), await fs.readdir(at)]
    },
    gives: ['new', ['folder']],
  },
  'a folder is renamed with all that is in it, but not over one with files': {
    async run(fs, at) {
      await fs.mkdir(`${at}/a/below`, { recursive: true })
      await write(fs, `${at}/a/config.json`, '1')
      await write(fs, `${at}/a/below/x`, '2')
      await fs.rename(`${at}/a`, `${at}/b`)
      await fs.mkdir(`${at}/c`)
      await fs.rename(`${at}/b`, `${at}/c`)
      await fs.mkdir(`${at}/d`)
      await write(fs, `${at}/d/y`, '3')
      const over = await codeOf(fs.rename(`${at}/d`, `${at}/c`))
      return [over, (await fs.readdir(at, { recursive: true })).sort(), await fs.readFile(`${at}/c/below/x`, 'utf8')]
    },
    gives: ['ENOTEMPTY', ['c', 'c/below', 'c/below/x', 'c/config.json', 'd', 'd/y'], '2'],
  },
  'there is room': {
    run: async (fs, at) => {
      const { bavail, bsize } = await fs.statfs(at)
      return bavail * bsize > 1e6
    },
    gives: true,
  },
}
