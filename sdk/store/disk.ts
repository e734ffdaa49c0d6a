import { FormatError, HalflingError } from '../errors.ts'
import { type ByteSource, checkRange } from './byte-source.ts'
import { diskLock } from './disk-lock.ts'
import { isFolder, join } from './path.ts'
import type { Chunks, Entry, Files, Store } from './store.ts'

/** Node reads at most 2 GiB at once. */
const readLimit = 2 ** 30

/** A folder of Node's disk, or where a file is meant that file. */
export async function diskStore(root: string): Promise<Store> {
  const [fs, { dirname, resolve }, { closeSync, fstatSync, openSync, read }, { promisify }] = await Promise.all([
    import('node:fs/promises'),
    import('node:path'),
    import('node:fs'),
    import('node:util'),
  ])
  const readAsync = promisify(read)
  const home = resolve(root)
  const at = (path: string): string => resolve(home, path)

  /** Does what writes; an error of the system's is told as ours. */
  async function writing<T>(path: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (cause) {
      if (typeof (cause as NodeJS.ErrnoException)?.syscall !== 'string') throw cause
      throw new HalflingError('io', `${join(root, path)}: cannot be written: ${reason(cause)}`, { cause })
    }
  }

  async function makeFolder(path: string): Promise<void> {
    await fs.mkdir(path, { recursive: true }).catch(async (error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error
      // What Node says of a read-only file system: the plain call has the true reason.
      await makeFolder(dirname(path))
      await fs.mkdir(path)
    })
  }

  async function fill(path: string, chunks: Chunks): Promise<void> {
    const handle = await fs.open(path, 'wx')
    try {
      for await (const chunk of chunks) await handle.writeFile(chunk)
      await handle.sync()
    } finally {
      await handle.close()
    }
  }

  async function replaceFile(path: string, chunks: Chunks): Promise<void> {
    const beside = `${path}.${random()}.tmp`
    try {
      await fill(beside, chunks)
      await fs.rename(beside, path)
    } catch (error) {
      await fs.rm(beside, { force: true }).catch(() => {})
      throw error
    }
  }

  async function replaceFolder(path: string, files: Files): Promise<void> {
    const beside = `${path}.tmp-${random()}`
    const old = `${beside}.old`
    try {
      await fs.mkdir(beside)
      for (const [name, chunks] of files) {
        await fs.mkdir(dirname(resolve(beside, name)), { recursive: true })
        await fill(resolve(beside, name), chunks)
      }
      const isReplaced = await fs.rename(path, old).then(
        () => true,
        () => false,
      )
      try {
        await fs.rename(beside, path)
      } catch (error) {
        if (isReplaced) await fs.rename(old, path)
        throw error
      }
      if (isReplaced) await fs.rm(old, { recursive: true, force: true })
    } catch (error) {
      await fs.rm(beside, { recursive: true, force: true }).catch(() => {})
      throw error
    }
  }

  return {
    name: root,
    async list(folder = '') {
      const path = at(folder)
      const entries = await fs.readdir(path, { withFileTypes: true }).catch((cause: NodeJS.ErrnoException) => {
        if (isMissing(cause)) return null
        throw new FormatError(`${join(root, folder)}: ${reason(cause)}`, { cause })
      })
      if (entries === null) {
        const own = await fs.stat(path).catch(() => null)
        return own ? [{ name: '', kind: 'file', bytes: own.size, modified: own.mtimeMs }] : []
      }
      const found: Entry[] = []
      for (const entry of entries) {
        const stat = await fs.lstat(resolve(path, entry.name)).catch(() => null)
        const kind = entry.isFile() ? 'file' : entry.isDirectory() ? 'folder' : 'link'
        if (stat) found.push({ name: entry.name, kind, bytes: stat.size, modified: stat.mtimeMs })
      }
      return found.sort((a, b) => (a.name < b.name ? -1 : 1))
    },
    async open(file) {
      const [path, name] = [at(file), join(root, file)]
      const stat = await fs.stat(path).catch((cause: NodeJS.ErrnoException) => {
        if (isMissing(cause)) return null
        throw new FormatError(`${name}: ${reason(cause)}`, { cause })
      })
      if (!stat?.isFile()) return null
      const source: ByteSource = {
        name,
        size: stat.size,
        async read(offset, length) {
          checkRange(source, offset, length)
          const bytes = new Uint8Array(length)
          let file: number | undefined
          try {
            // Opened anew for each range, so that nobody need close it; each of these three takes microseconds.
            file = openSync(path, 'r')
            const { size, mtimeMs } = fstatSync(file)
            if (size !== stat.size || mtimeMs !== stat.mtimeMs)
              throw new FormatError(
                `${name}: changed while it was open (${stat.size} bytes then, ${size} now): read it again once nobody writes to it`,
              )
            for (let done = 0; done < length; ) {
              const most = Math.min(length - done, readLimit)
              const { bytesRead } = await readAsync(file, bytes, done, most, offset + done)
              if (bytesRead === 0)
                throw new FormatError(`${name}: ends at ${offset + done}, it had ${stat.size} bytes when it was opened`)
              done += bytesRead
            }
          } catch (cause) {
            if (cause instanceof FormatError) throw cause
            throw new FormatError(`${name}: cannot be read: ${reason(cause)}`, { cause })
          } finally {
            if (file !== undefined) closeSync(file)
          }
          return bytes
        },
      }
      return source
    },
    write: (path, content) =>
      writing(path, async () => {
        await makeFolder(dirname(at(path)))
        await (isFolder(content) ? replaceFolder(at(path), content) : replaceFile(at(path), content))
      }),
    append: (path, chunks, cut) =>
      writing(path, async () => {
        await makeFolder(dirname(at(path)))
        const handle = await fs.open(at(path), 'a')
        try {
          const { size } = await handle.stat()
          if (cut !== undefined && cut < size) await handle.truncate(cut)
          for await (const chunk of chunks) await handle.writeFile(chunk)
          return (await handle.stat()).size
        } finally {
          await handle.close()
        }
      }),
    move: (from, to) =>
      writing(to, async () => {
        // Its content is to be on the disk before its name is.
        const handle = await fs.open(at(from), 'r+')
        await handle.sync().finally(() => handle.close())
        await makeFolder(dirname(at(to)))
        await fs.rename(at(from), at(to))
      }),
    remove: (path) => writing(path, () => fs.rm(at(path), { recursive: true, force: true })),
    lock: (path) =>
      writing(path, async () => {
        await makeFolder(dirname(at(path)))
        return diskLock(at(path))
      }),
  }
}

const random = (): string => Math.random().toString(36).slice(2, 10)

const isMissing = ({ code }: NodeJS.ErrnoException): boolean => code === 'ENOENT' || code === 'ENOTDIR'

function reason(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException
  if (code === 'ENOENT') return 'no such file or folder'
  if (code === 'EACCES') return 'permission denied'
  if (code === 'ENOSPC') return 'the disk is full'
  if (code === 'EROFS') return 'the file system is read-only'
  if (code === 'EEXIST' || code === 'ENOTDIR') return 'there is a file where a folder is wanted'
  return message
}
