import { megabytes } from '../bytes.ts'
import { FormatError, HalflingError } from '../errors.ts'
import { blobSource } from './byte-source.ts'
import { isFolder, join, partsOf } from './path.ts'
import type { Chunks, Entry, Files, Release, Store } from './store.ts'

/**
 * In a page what is added to a file comes into it when it is saved, and each saving copies the file. A file that grows for long (a
 * download) is saved when a third of it is new: all copies together are twice the file, and a tab that is closed loses that third.
 */
const isWorthSaving = (unsaved: number, all: number): boolean => unsaved >= Math.max(2 ** 20, all / 3)

type Handle = FileSystemFileHandle | FileSystemDirectoryHandle

/** A file that a worker changes in its place: nothing is copied, and what was written stays when its tab is closed. */
interface SyncHandle {
  getSize(): number
  write(bytes: Uint8Array, options: { at: number }): number
  truncate(size: number): void
  flush(): void
  close(): void
}

/** What is not in TypeScript's types of a page. */
interface FileHandle extends FileSystemFileHandle {
  createSyncAccessHandle?(): Promise<SyncHandle>
  move?(folder: FileSystemDirectoryHandle, name: string): Promise<void>
}

const childrenOf = (folder: FileSystemDirectoryHandle): AsyncIterable<Handle> =>
  (folder as unknown as { values(): AsyncIterable<Handle> }).values()

/** A folder of the origin private file system of a browser, in pages and in workers. 'runs/one' and '/runs/one' are the same. */
export function opfsStore(root: string): Store {
  const at = (path: string): string[] => partsOf(join(root, path))

  async function folderAt(parts: readonly string[], create = false): Promise<FileSystemDirectoryHandle> {
    let folder = await navigator.storage.getDirectory()
    for (const part of parts) folder = await folder.getDirectoryHandle(part, { create })
    return folder
  }

  /** null where there is nothing. */
  async function find(parts: readonly string[]): Promise<Handle | null> {
    const name = parts.at(-1)
    try {
      const folder = await folderAt(parts.slice(0, -1))
      if (name === undefined) return folder
      return await folder.getFileHandle(name).catch((error: DOMException) => {
        if (error.name === 'TypeMismatchError') return folder.getDirectoryHandle(name)
        throw error
      })
    } catch (error) {
      if (/^(NotFound|TypeMismatch|Type)Error$/.test((error as Error).name)) return null
      throw error
    }
  }

  const makeFile = async (parts: readonly string[]): Promise<FileHandle> =>
    (await folderAt(parts.slice(0, -1), true)).getFileHandle(parts.at(-1)!, { create: true })

  async function fill(parts: readonly string[], chunks: Chunks): Promise<FileHandle> {
    const file = await makeFile(parts)
    const writable = await file.createWritable()
    try {
      for await (const chunk of chunks) await writable.write(chunk as Uint8Array<ArrayBuffer>)
      await writable.close()
    } catch (error) {
      // A file that is being written cannot be removed.
      await writable.abort().catch(() => {})
      throw error
    }
    return file
  }

  async function moveFile(file: FileHandle, to: readonly string[]): Promise<void> {
    const folder = await folderAt(to.slice(0, -1), true)
    if (file.move) return file.move(folder, to.at(-1)!)
    const copy = await (await folder.getFileHandle(to.at(-1)!, { create: true })).createWritable()
    await (await file.getFile()).stream().pipeTo(copy)
  }

  async function remove(parts: readonly string[]): Promise<void> {
    const name = parts.at(-1)
    if (name === undefined || !(await find(parts))) return
    await (await folderAt(parts.slice(0, -1))).removeEntry(name, { recursive: true })
  }

  async function replace(parts: readonly string[], content: Chunks | Files): Promise<void> {
    const files: Files = isFolder(content) ? content : new Map([['', content]])
    const name = `${parts.at(-1)}.${isFolder(content) ? `tmp-${random()}` : `${random()}.tmp`}`
    const beside = [...parts.slice(0, -1), name]
    try {
      const made: [file: FileHandle, place: string[]][] = []
      for (const [inner, chunks] of files)
        made.push([await fill([...beside, ...partsOf(inner)], chunks), [...parts, ...partsOf(inner)]])
      if (isFolder(content)) await remove(parts)
      for (const [file, place] of made) await moveFile(file, place)
      await remove(beside)
    } catch (error) {
      await remove(beside).catch(() => {})
      throw error
    }
  }

  /** In a worker. */
  async function appendInPlace(handle: SyncHandle, chunks: Chunks, cut?: number): Promise<number> {
    try {
      let size = Math.min(cut ?? Number.POSITIVE_INFINITY, handle.getSize())
      handle.truncate(size)
      for await (const chunk of chunks)
        for (let done = 0; done < chunk.length; ) {
          const written = handle.write(chunk.subarray(done), { at: size })
          if (written === 0) throw new DOMException('nothing more can be written', 'QuotaExceededError')
          done += written
          size += written
        }
      return size
    } finally {
      handle.flush()
      handle.close()
    }
  }

  /** In a page. */
  async function appendBySaving(file: FileHandle, chunks: Chunks, cut?: number): Promise<number> {
    const begin = () => file.createWritable({ keepExistingData: true })
    const there = (await file.getFile()).size
    let size = Math.min(cut ?? there, there)
    let writable = await begin()
    try {
      if (size < there) await writable.truncate(size)
      let unsaved = 0
      for await (const chunk of chunks) {
        await writable.write({ type: 'write', position: size, data: chunk as Uint8Array<ArrayBuffer> })
        size += chunk.length
        unsaved += chunk.length
        if (!isWorthSaving(unsaved, size)) continue
        await writable.close()
        writable = await begin()
        unsaved = 0
      }
    } catch (error) {
      // Of a stream that failed what was saved before stays.
      await writable.close().catch(() => {})
      throw error
    }
    await writable.close()
    return size
  }

  /** Does what writes; an error of the browser's is told as ours. */
  async function writing<T>(path: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (cause) {
      if (!(cause instanceof DOMException) || !(cause.name in reasons)) throw cause
      const why = cause.name === 'QuotaExceededError' ? await quota() : reasons[cause.name] || cause.message
      throw new HalflingError('io', `${join(root, path)}: cannot be written: ${why}`, { cause })
    }
  }

  /** Does what reads. */
  async function reading<T>(path: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (cause) {
      throw new FormatError(`${join(root, path)}: cannot be read: ${(cause as Error).message}`, { cause })
    }
  }

  return {
    name: root,
    list: (folder = '') =>
      reading(folder, async () => {
        const place = await find(at(folder))
        if (!place) return []
        if (place.kind === 'file') return [await entryOf(place, '')]
        const found: Entry[] = []
        for await (const handle of childrenOf(place)) {
          // It may be gone by now.
          const entry = await entryOf(handle, handle.name).catch(() => null)
          if (entry) found.push(entry)
        }
        return found.sort((a, b) => (a.name < b.name ? -1 : 1))
      }),
    open: (file) =>
      reading(file, async () => {
        const found = await find(at(file))
        return found?.kind === 'file' ? blobSource(join(root, file), await found.getFile()) : null
      }),
    write: (path, content) => writing(path, () => replace(at(path), content)),
    append: (path, chunks, cut) =>
      writing(path, async () => {
        const file = await makeFile(at(path))
        const direct = await file.createSyncAccessHandle?.()
        return direct ? appendInPlace(direct, chunks, cut) : appendBySaving(file, chunks, cut)
      }),
    move: (from, to) =>
      writing(to, async () => {
        await moveFile(await (await folderAt(at(from).slice(0, -1))).getFileHandle(at(from).at(-1)!), at(to))
        await remove(at(from))
      }),
    remove: (path) => writing(path, () => remove(at(path))),
    lock: (path) => webLock(`halfling:${at(path).join('/')}`),
  }
}

const random = (): string => Math.random().toString(36).slice(2, 10)

async function entryOf(handle: Handle, name: string): Promise<Entry> {
  if (handle.kind === 'directory') return { name, kind: 'folder', bytes: 0, modified: 0 }
  const { size, lastModified } = await handle.getFile()
  return { name, kind: 'file', bytes: size, modified: lastModified }
}

/** The errors of the browser's storage; '' where its own message says why. */
const reasons: Readonly<Record<string, string>> = {
  NotFoundError: 'no such file or folder',
  TypeMismatchError: 'there is a file where a folder is wanted, or a folder where a file is',
  NotAllowedError: 'permission denied',
  SecurityError: 'permission denied',
  QuotaExceededError: '',
  NoModificationAllowedError: '',
  InvalidModificationError: '',
  InvalidStateError: '',
  NotReadableError: '',
}

async function quota(): Promise<string> {
  const { quota = 0, usage = 0 } = await navigator.storage.estimate()
  return `the browser lets this site keep ${megabytes(quota)}, and ${megabytes(usage)} are taken`
}

/** A lock that ends with its tab. */
function webLock(name: string): Promise<Release | string> {
  return new Promise((resolve, reject) => {
    const ended = navigator.locks.request(name, { ifAvailable: true }, (lock) => {
      if (!lock) return resolve('another tab, or another run in this one,')
      return new Promise<void>((release) => {
        resolve(async () => {
          release()
          await ended
        })
      })
    })
    ended.catch(reject)
  })
}
