// node:fs/promises over the origin private file system of a browser: the same names, and the same codes in errors.
// https://fs.spec.whatwg.org
import type { FileHandle, FileStats, OpenFlags } from './file-system.ts'

/** An error as Node would throw it. */
function systemError(code: string, syscall: string, path: string, cause?: unknown): Error {
  return Object.assign(new Error(`${code}: ${syscall} '${path}'`, { cause }), { code, syscall, path })
}

/** The codes of a browser's exceptions. */
const codes: Readonly<Record<string, string>> = {
  NotFoundError: 'ENOENT',
  TypeMismatchError: 'ENOTDIR',
  QuotaExceededError: 'ENOSPC',
  NoModificationAllowedError: 'EBUSY',
  NotAllowedError: 'EACCES',
  InvalidModificationError: 'ENOTEMPTY',
}

async function asNode<T>(syscall: string, path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    const code = error instanceof DOMException ? codes[error.name] : undefined
    throw code === undefined ? error : systemError(code, syscall, path, error)
  }
}

const partsOf = (path: string): string[] => path.split('/').filter((part) => part !== '' && part !== '.')

async function folderAt(parts: readonly string[], create = false): Promise<FileSystemDirectoryHandle> {
  let folder = await navigator.storage.getDirectory()
  for (const part of parts) folder = await folder.getDirectoryHandle(part, { create })
  return folder
}

async function fileAt(path: string, create = false): Promise<FileSystemFileHandle> {
  const parts = partsOf(path)
  return (await folderAt(parts.slice(0, -1))).getFileHandle(parts.at(-1) ?? '', { create })
}

const exists = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  )

export async function stat(path: string): Promise<FileStats> {
  return asNode('stat', path, async () => {
    const parts = partsOf(path)
    if (parts.length === 0) return folderStats
    const parent = await folderAt(parts.slice(0, -1))
    try {
      return statsOf(await (await parent.getFileHandle(parts.at(-1)!)).getFile())
    } catch (error) {
      if ((error as DOMException).name !== 'TypeMismatchError') throw error
      return folderStats
    }
  })
}

const folderStats: FileStats = { size: 0, mtimeMs: 0, isFile: () => false, isDirectory: () => true }
const statsOf = ({ size, lastModified }: Pick<File, 'size' | 'lastModified'>): FileStats => ({
  size,
  mtimeMs: lastModified,
  isFile: () => true,
  isDirectory: () => false,
})

/** There are no links. */
export const lstat = stat

export const access = async (path: string): Promise<void> => void (await stat(path))

export const readFile = (path: string, _encoding: 'utf8'): Promise<string> =>
  asNode('open', path, async () => (await (await fileAt(path)).getFile()).text())

export async function open(path: string, flags: OpenFlags): Promise<FileHandle> {
  const isNew = flags === 'wx' || flags === 'wx+'
  if (isNew && (await exists(path))) throw systemError('EEXIST', 'open', path)
  return asNode('open', path, async () => {
    const handle = await fileAt(path, isNew || flags === 'a')
    if (flags === 'r') return reader(path, await handle.getFile())
    const own = await accessOf(handle)
    return writer(path, own, flags === 'r+' ? 0 : own.size())
  })
}

/** The file as it was when it was opened. */
function reader(path: string, file: File): FileHandle {
  const never = async () => {
    throw systemError('EBADF', 'write', path)
  }
  return {
    async read(bytes, offset, length, position) {
      const part = await asNode('read', path, () => file.slice(position, position + length).arrayBuffer())
      bytes.set(new Uint8Array(part), offset)
      return { bytesRead: part.byteLength }
    },
    stat: async () => statsOf(file),
    write: never,
    writeFile: never,
    truncate: never,
    async sync() {},
    async close() {},
  }
}

/** In a worker bytes are there as they are written, in a page at `close`. */
function writer(path: string, own: Access, start: number): FileHandle {
  let at = start
  return {
    read: (bytes, offset, length, position) =>
      asNode('read', path, async () => ({
        bytesRead: await own.read(bytes.subarray(offset, offset + length), position),
      })),
    write: (bytes, offset, length, position) =>
      asNode('write', path, async () => {
        await own.write(bytes.subarray(offset, offset + length), position)
        return { bytesWritten: length }
      }),
    async writeFile(chunk) {
      await asNode('write', path, () => own.write(chunk, at))
      at += chunk.length
    },
    stat: async () => statsOf({ size: own.size(), lastModified: Date.now() }),
    truncate: (bytes) => asNode('ftruncate', path, () => own.truncate(bytes)),
    sync: () => own.flush(),
    close: () => asNode('close', path, () => own.close()),
  }
}

interface Access {
  size(): number
  read(bytes: Uint8Array, at: number): Promise<number>
  write(bytes: Uint8Array, at: number): Promise<void>
  truncate(bytes: number): Promise<void>
  flush(): Promise<void>
  close(): Promise<void>
}

/** FileSystemSyncAccessHandle, which only workers have. */
interface SyncAccessHandle {
  getSize(): number
  read(bytes: Uint8Array, options: { at: number }): number
  write(bytes: Uint8Array, options: { at: number }): number
  truncate(bytes: number): void
  flush(): void
  close(): void
}

async function accessOf(handle: FileSystemFileHandle): Promise<Access> {
  if ('createSyncAccessHandle' in handle) {
    const own = await (handle.createSyncAccessHandle as () => Promise<SyncAccessHandle>)()
    return {
      size: () => own.getSize(),
      read: async (bytes, at) => own.read(bytes, { at }),
      write: async (bytes, at) => {
        const written = own.write(bytes, { at })
        if (written < bytes.length) throw new DOMException('no room', 'QuotaExceededError')
      },
      truncate: async (bytes) => own.truncate(bytes),
      flush: async () => own.flush(),
      close: async () => own.close(),
    }
  }
  const before = await handle.getFile()
  const stream = await handle.createWritable({ keepExistingData: true })
  let { size } = before
  return {
    size: () => size,
    async read(bytes, at) {
      const part = new Uint8Array(await before.slice(at, at + bytes.length).arrayBuffer())
      bytes.set(part)
      return part.length
    },
    async write(bytes, at) {
      await stream.write({ type: 'write', position: at, data: bytes as Uint8Array<ArrayBuffer> })
      size = Math.max(size, at + bytes.length)
    },
    async truncate(bytes) {
      await stream.truncate(bytes)
      size = bytes
    },
    async flush() {},
    close: () => stream.close(),
  }
}

export async function appendFile(path: string, text: string): Promise<void> {
  const handle = await open(path, 'a')
  try {
    await handle.writeFile(new TextEncoder().encode(text))
  } finally {
    await handle.close()
  }
}

export const readdir = (path: string, { recursive = false } = {}): Promise<string[]> =>
  asNode('scandir', path, async () => {
    const found: string[] = []
    const walk = async (folder: FileSystemDirectoryHandle, below: string): Promise<void> => {
      for await (const [name, handle] of (folder as unknown as Entries).entries()) {
        found.push(below + name)
        if (recursive && handle.kind === 'directory')
          await walk(handle as FileSystemDirectoryHandle, `${below}${name}/`)
      }
    }
    await walk(await folderAt(partsOf(path)), '')
    return found.sort()
  })

interface Entries {
  entries(): AsyncIterable<[name: string, handle: FileSystemHandle]>
}

export const mkdir = (path: string, _options?: { recursive: true }): Promise<undefined> =>
  asNode('mkdir', path, async () => void (await folderAt(partsOf(path), true)))

export const rename = (from: string, to: string): Promise<void> =>
  asNode('rename', from, async () => {
    const [handle, parts] = [await fileAt(from), partsOf(to)]
    const parent = await folderAt(parts.slice(0, -1))
    await (handle as unknown as Movable).move(parent, parts.at(-1)!)
  })

/** In every browser for files of the origin private file system, though not in the types yet. */
interface Movable {
  move(parent: FileSystemDirectoryHandle, name: string): Promise<void>
}

export async function rm(path: string, { recursive = false, force = false } = {}): Promise<void> {
  try {
    const parts = partsOf(path)
    await asNode('rm', path, async () =>
      (await folderAt(parts.slice(0, -1))).removeEntry(parts.at(-1) ?? '', { recursive }),
    )
  } catch (error) {
    if (!(force && (error as { code?: string }).code === 'ENOENT')) throw error
  }
}
