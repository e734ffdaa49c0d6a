import type { FileEntry, FileHandle, FileStat } from './file-system.ts'

// The origin private file system of a browser behind the functions of node:fs/promises that we use, with their errors. Paths begin
// at its root: 'runs/one' and '/runs/one' are the same. Works in pages and in workers.

/**
 * In a page what is written comes into the file when it is saved, and each saving copies the file. A file that is changed in its place
 * (a download) is saved when a third of it is new: all copies together are twice the file, and a tab that is closed loses that third.
 */
const isWorthSaving = (unsaved: number, all: number): boolean => unsaved >= Math.max(2 ** 20, all / 3)

export async function open(path: string, flags: 'r' | 'r+' | 'wx' | 'a'): Promise<FileHandle> {
  const create = flags === 'wx' || flags === 'a'
  const there = await find(path, 'open').catch((error) => {
    if (error.code === 'ENOENT' && create) return null
    throw error
  })
  if (there && flags === 'wx') throw systemError('EEXIST', 'open', path)
  // As in Node a folder can be opened and looked at, but not written.
  if (there?.kind === 'directory') {
    if (flags !== 'r') throw systemError('EISDIR', 'open', path)
    return folderHandle(path)
  }
  const file = there ?? (await makeFile(path, 'open'))
  const direct = file as FileSystemFileHandle & { createSyncAccessHandle?(): Promise<SyncHandle> }
  if (flags === 'r+' && direct.createSyncAccessHandle)
    return new SyncFile(path, await told('open', path, () => direct.createSyncAccessHandle!()))
  return new OpenFile(path, file, flags, flags === 'a' ? (await file.getFile()).size : 0)
}

/** FileSystemSyncAccessHandle, which workers alone have. */
interface SyncHandle {
  getSize(): number
  read(bytes: Uint8Array, options: { at: number }): number
  write(bytes: Uint8Array, options: { at: number }): number
  truncate(size: number): void
  flush(): void
  close(): void
}

/** A file that a worker changes in its place: nothing is copied, and what was written stays when its tab is closed. */
class SyncFile implements FileHandle {
  private readonly path: string
  private readonly handle: SyncHandle
  private position = 0

  constructor(path: string, handle: SyncHandle) {
    this.path = path
    this.handle = handle
  }

  async stat(): Promise<FileStat> {
    const size = await told('stat', this.path, async () => this.handle.getSize())
    return { size, mtimeMs: Date.now(), isFile: () => true, isDirectory: () => false }
  }

  read(buffer: Uint8Array, offset: number, length: number, at: number): Promise<{ bytesRead: number }> {
    const part = buffer.subarray(offset, offset + length)
    return told('read', this.path, async () => ({ bytesRead: this.handle.read(part, { at }) }))
  }

  write(buffer: Uint8Array, offset: number, length: number, at: number): Promise<{ bytesWritten: number }> {
    const part = buffer.subarray(offset, offset + length)
    return told('write', this.path, async () => ({ bytesWritten: this.handle.write(part, { at }) }))
  }

  async writeFile(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      const { bytesWritten } = await this.write(bytes, done, bytes.length - done, this.position)
      done += bytesWritten
      this.position += bytesWritten
    }
  }

  truncate(size: number): Promise<void> {
    return told('ftruncate', this.path, async () => this.handle.truncate(size))
  }

  sync(): Promise<void> {
    return told('fsync', this.path, async () => this.handle.flush())
  }

  close(): Promise<void> {
    return told('close', this.path, async () => this.handle.close())
  }
}

class OpenFile implements FileHandle {
  private readonly path: string
  private readonly handle: FileSystemFileHandle
  private content: File | undefined
  private writable: FileSystemWritableFileStream | undefined
  private readonly flags: string
  private unsaved = 0
  /** Of the next writeFile. */
  private position: number

  constructor(path: string, handle: FileSystemFileHandle, flags: string, position: number) {
    this.path = path
    this.flags = flags
    this.handle = handle
    this.position = position
  }

  async stat(): Promise<FileStat> {
    return statOf(await this.saved())
  }

  async read(buffer: Uint8Array, offset: number, length: number, position: number): Promise<{ bytesRead: number }> {
    return told('read', this.path, async () => {
      const bytes = await (await this.saved()).slice(position, position + length).arrayBuffer()
      buffer.set(new Uint8Array(bytes), offset)
      return { bytesRead: bytes.byteLength }
    })
  }

  async write(buffer: Uint8Array, offset: number, length: number, position: number): Promise<{ bytesWritten: number }> {
    const data = buffer.subarray(offset, offset + length) as Uint8Array<ArrayBuffer>
    await this.change((writable) => writable.write({ type: 'write', position, data }))
    this.unsaved += length
    if (this.flags === 'r+' && isWorthSaving(this.unsaved, position + length)) await this.sync()
    return { bytesWritten: length }
  }

  async writeFile(bytes: Uint8Array): Promise<void> {
    await this.write(bytes, 0, bytes.length, this.position)
    this.position += bytes.length
  }

  async truncate(size: number): Promise<void> {
    if ((await this.saved()).size !== size) await this.change((writable) => writable.truncate(size))
  }

  async sync(): Promise<void> {
    const { writable } = this
    this.writable = undefined
    this.unsaved = 0
    await told('fsync', this.path, async () => writable?.close())
  }

  close(): Promise<void> {
    return this.sync()
  }

  private async change(work: (writable: FileSystemWritableFileStream) => Promise<void>): Promise<void> {
    this.content = undefined
    await told('write', this.path, async () => {
      this.writable ??= await this.handle.createWritable({ keepExistingData: true })
      await work(this.writable)
    }).catch((error) => {
      // A stream that failed cannot be closed: what was saved before stays.
      this.writable = undefined
      throw error
    })
  }

  private async saved(): Promise<File> {
    if (this.writable) await this.sync()
    this.content ??= await this.handle.getFile()
    return this.content
  }
}

function folderHandle(path: string): FileHandle {
  const no = async (): Promise<never> => {
    throw systemError('EISDIR', 'read', path)
  }
  const nothing = async () => {}
  return {
    stat: async () => folderStat,
    read: no,
    write: no,
    writeFile: no,
    truncate: no,
    sync: nothing,
    close: nothing,
  }
}

export async function stat(path: string): Promise<FileStat> {
  const found = await find(path, 'stat')
  return found.kind === 'file' ? statOf(await told('stat', path, () => found.getFile())) : folderStat
}

/** There are no links. */
export const lstat = stat

export async function access(path: string): Promise<void> {
  await find(path, 'access')
}

/** What the browser lets this site keep. */
export async function statfs(_path: string): Promise<{ bavail: number; bsize: number }> {
  const { quota = 0, usage = 0 } = await navigator.storage.estimate()
  return { bavail: quota - usage, bsize: 1 }
}

export async function readFile(path: string, _encoding: 'utf8'): Promise<string> {
  const found = await find(path, 'open')
  if (found.kind === 'directory') throw systemError('EISDIR', 'read', path)
  return told('read', path, async () => (await found.getFile()).text())
}

export async function appendFile(path: string, text: string): Promise<void> {
  const handle = await open(path, 'a')
  try {
    await handle.writeFile(new TextEncoder().encode(text))
  } finally {
    await handle.close()
  }
}

export async function mkdir(path: string, { recursive = false }: { recursive?: boolean } = {}): Promise<void> {
  const parts = partsOf(path)
  if (!recursive) {
    const there = await find(path, 'mkdir').catch((error) => {
      if (error.code === 'ENOENT') return null
      throw error
    })
    if (there) throw systemError('EEXIST', 'mkdir', path)
    await folderAt(parts.slice(0, -1), 'mkdir', path)
  }
  await folderAt(parts, 'mkdir', path, true).catch(async (error) => {
    const last = await find(path, 'mkdir').catch(() => null)
    throw last?.kind === 'file' ? systemError('EEXIST', 'mkdir', path) : error
  })
}

export async function mkdtemp(prefix: string): Promise<string> {
  const path = `${prefix}${Math.random().toString(36).slice(2, 8).padEnd(6, '0')}`
  await mkdir(path)
  return path
}

export async function chmod(_path: string, _mode: number): Promise<void> {}

export async function symlink(_target: string, path: string): Promise<void> {
  throw systemError('EPERM', 'symlink', path)
}

export async function readdir(path: string, options?: { recursive?: boolean }): Promise<string[]>
export async function readdir(path: string, options: { withFileTypes: true }): Promise<FileEntry[]>
export async function readdir(
  path: string,
  { recursive = false, withFileTypes = false }: { recursive?: boolean; withFileTypes?: boolean } = {},
): Promise<string[] | FileEntry[]> {
  const folder = await folderAt(partsOf(path), 'scandir', path)
  const entries: (FileEntry & { name: string })[] = []
  const walk = async (within: FileSystemDirectoryHandle, before: string): Promise<void> => {
    for await (const handle of childrenOf(within)) {
      const name = `${before}${handle.name}`
      entries.push({ name, isFile: () => handle.kind === 'file', isDirectory: () => handle.kind === 'directory' })
      if (recursive && handle.kind === 'directory') await walk(handle, `${name}/`)
    }
  }
  await told('scandir', path, () => walk(folder, ''))
  entries.sort((a, b) => (a.name < b.name ? -1 : 1))
  return withFileTypes ? entries : entries.map(({ name }) => name)
}

/**
 * A file is renamed at once, over an older one too. Of a folder the files are moved one by one; last of them the one that tells that
 * the others are there (trainer_state.json of a checkpoint, config.json of a model).
 */
export async function rename(from: string, to: string): Promise<void> {
  const found = await find(from, 'rename')
  if (found.kind === 'file') {
    const there = await find(to, 'rename').catch(() => null)
    if (there?.kind === 'directory') throw systemError('EISDIR', 'rename', to)
    return moveFile(found, from, to)
  }
  const there = await find(to, 'rename').catch(() => null)
  if (there?.kind === 'file') throw systemError('ENOTDIR', 'rename', to)
  if (there && (await readdir(to)).length > 0) throw systemError('ENOTEMPTY', 'rename', to)
  await folderAt(partsOf(to).slice(0, -1), 'rename', to)
  await mkdir(to, { recursive: true })
  const names = await readdir(from)
  names.sort((a, b) => Number(isLast(a)) - Number(isLast(b)))
  for (const name of names) await rename(`${from}/${name}`, `${to}/${name}`)
  await rm(from, { recursive: true })
}

const isLast = (name: string): boolean => /^(trainer_state|(adapter_)?config)\.json$/.test(name)

async function moveFile(file: FileSystemFileHandle, from: string, to: string): Promise<void> {
  const parts = partsOf(to)
  const folder = await folderAt(parts.slice(0, -1), 'rename', to)
  const name = parts.at(-1)!
  await told('rename', to, async () => {
    const movable = file as FileSystemFileHandle & {
      move?(folder: FileSystemDirectoryHandle, name: string): Promise<void>
    }
    if (movable.move) return movable.move(folder, name)
    const copy = await (await folder.getFileHandle(name, { create: true })).createWritable()
    await (await file.getFile()).stream().pipeTo(copy)
    await rm(from)
  })
}

export async function rm(
  path: string,
  { recursive = false, force = false }: { recursive?: boolean; force?: boolean } = {},
): Promise<void> {
  try {
    const found = await find(path, 'rm')
    if (found.kind === 'directory' && !recursive) throw systemError('ERR_FS_EISDIR', 'rm', path)
    const parts = partsOf(path)
    const folder = await folderAt(parts.slice(0, -1), 'rm', path)
    await told('rm', path, () => folder.removeEntry(parts.at(-1)!, { recursive }))
  } catch (error) {
    if (!(force && (error as NodeJS.ErrnoException).code === 'ENOENT')) throw error
  }
}

/** Without '.', '..' and slashes that say nothing. */
export const plain = (path: string): string => partsOf(path).join('/')

function partsOf(path: string): string[] {
  const parts: string[] = []
  for (const part of path.split('/')) {
    if (part === '..') parts.pop()
    else if (part !== '' && part !== '.') parts.push(part)
  }
  return parts
}

async function folderAt(
  parts: readonly string[],
  syscall: string,
  path: string,
  create = false,
): Promise<FileSystemDirectoryHandle> {
  return told(syscall, path, async () => {
    let folder = await navigator.storage.getDirectory()
    for (const part of parts) folder = await folder.getDirectoryHandle(part, { create })
    return folder
  })
}

async function find(path: string, syscall: string): Promise<FileSystemFileHandle | FileSystemDirectoryHandle> {
  const parts = partsOf(path)
  const name = parts.pop()
  const folder = await folderAt(parts, syscall, path)
  if (name === undefined) return folder
  return told(syscall, path, () =>
    folder.getFileHandle(name).catch((error: DOMException) => {
      if (error.name === 'TypeMismatchError') return folder.getDirectoryHandle(name)
      throw error
    }),
  )
}

async function makeFile(path: string, syscall: string): Promise<FileSystemFileHandle> {
  const parts = partsOf(path)
  const folder = await folderAt(parts.slice(0, -1), syscall, path)
  return told(syscall, path, () => folder.getFileHandle(parts.at(-1)!, { create: true }))
}

const childrenOf = (
  folder: FileSystemDirectoryHandle,
): AsyncIterable<FileSystemFileHandle | FileSystemDirectoryHandle> =>
  (folder as unknown as { values(): AsyncIterable<FileSystemFileHandle | FileSystemDirectoryHandle> }).values()

const statOf = (file: File): FileStat => ({
  size: file.size,
  mtimeMs: file.lastModified,
  isFile: () => true,
  isDirectory: () => false,
})

const folderStat: FileStat = { size: 0, mtimeMs: 0, isFile: () => false, isDirectory: () => true }

/** What the browser's errors are called in Node. */
const codes: Readonly<Record<string, string>> = {
  NotFoundError: 'ENOENT',
  TypeMismatchError: 'ENOTDIR',
  QuotaExceededError: 'ENOSPC',
  NoModificationAllowedError: 'EBUSY',
  InvalidModificationError: 'ENOTEMPTY',
  NotAllowedError: 'EACCES',
  SecurityError: 'EACCES',
  NotReadableError: 'EIO',
  TypeError: 'EINVAL',
}

/** Does work; an error of the browser's is told as Node tells it. */
async function told<T>(syscall: string, path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    const { name, syscall: known } = error as Error & { syscall?: string }
    if (known !== undefined || !(name in codes)) throw error
    throw systemError(codes[name], syscall, path, name === 'QuotaExceededError' ? await quota() : undefined, error)
  }
}

async function quota(): Promise<string> {
  const { quota = 0, usage = 0 } = await navigator.storage.estimate()
  const [most, used] = [quota, usage].map((bytes) => (bytes / 1e6).toFixed(0))
  return `the browser lets this site keep ${most} MB, and ${used} MB are taken`
}

function systemError(code: string, syscall: string, path: string, reason = code, cause?: unknown): Error {
  return Object.assign(new Error(reason === code ? `${code}, ${syscall} '${path}'` : reason, { cause }), {
    code,
    syscall,
    path,
  })
}
