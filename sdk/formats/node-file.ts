import { FormatError, HalflingError, OptionError } from '../errors.ts'
import { type ByteSource, checkRange } from './byte-source.ts'
import { dirname, fileSystem, isNode, join, resolve } from './file-system.ts'
import { type Folder, objectOf, textOf } from './folder.ts'

// Files by their paths: of the disk in Node, of the browser's storage in a page.

/** Node reads at most 2 GiB at once. */
const readLimit = 2 ** 30

/** Throws FormatError when there is no such file. */
export async function openFile(path: string): Promise<ByteSource> {
  const { open } = await fileSystem()
  const handle = await open(path, 'r').catch((cause) => {
    throw new FormatError(`${path}: ${reason(cause)}`, { cause })
  })
  const stat = await handle.stat()
  if (!stat.isFile()) {
    await handle.close()
    throw new FormatError(`${path}: is not a file`)
  }
  let closing: Promise<void> | undefined
  const source: ByteSource = {
    name: path,
    size: stat.size,
    async read(offset, length) {
      checkRange(source, offset, length)
      const bytes = new Uint8Array(length)
      let done = 0
      while (done < length) {
        const { bytesRead } = await handle
          .read(bytes, done, Math.min(length - done, readLimit), offset + done)
          .catch((cause) => {
            throw new FormatError(`${path}: cannot read at ${offset + done}: ${reason(cause)}`, { cause })
          })
        if (bytesRead === 0)
          throw new FormatError(`${path}: ends at ${offset + done}, it had ${stat.size} bytes when it was opened`)
        done += bytesRead
      }
      return bytes
    },
    close() {
      closing ??= handle.close()
      return closing
    },
  }
  return source
}

export async function exists(path: string): Promise<boolean> {
  const { access } = await fileSystem()
  return access(path).then(
    () => true,
    () => false,
  )
}

/** UTF-8 text. Throws FormatError when it is missing, no UTF-8, or larger than 256 MiB. */
export const readTextFile = async (path: string): Promise<string> => textOf(await openFile(path))

/** A JSON file that holds an object. Throws FormatError. */
export const readJsonFile = async (path: string): Promise<Record<string, unknown>> =>
  objectOf(path, await readTextFile(path))

/** A folder on disk. */
export async function nodeFolder(path: string): Promise<Folder> {
  return {
    name: path,
    open: async (file) => ((await exists(join(path, file))) ? openFile(join(path, file)) : null),
  }
}

/**
 * Writes a file so that it is whole or not there: beside its place, flushed to the disk, then renamed. An older file of that
 * name is replaced. Throws HalflingError of code 'io' (a full disk, a missing folder) and leaves nothing behind.
 */
export async function writeAtomically(
  path: string,
  chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
): Promise<void> {
  const fs = await fileSystem()
  const beside = `${path}.${Math.random().toString(36).slice(2, 10)}.tmp`
  try {
    const handle = await fs.open(beside, 'wx')
    try {
      for await (const chunk of chunks) await handle.writeFile(chunk)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await fs.rename(beside, path)
  } catch (cause) {
    await fs.rm(beside, { force: true }).catch(() => {})
    throw writeError(path, cause)
  }
}

/**
 * Writes the files of a model folder so that all of them are there or none: in a folder beside, which is renamed at the end. A folder
 * that has files in it is replaced only when told to, and only when it is a model's.
 *
 * @throws OptionError for a place that is taken, HalflingError of code 'io'
 */
export async function writeFolderAtomically(
  folder: string,
  files: ReadonlyMap<string, Iterable<Uint8Array> | AsyncIterable<Uint8Array>>,
  { force }: { force?: boolean } = {},
): Promise<void> {
  const fs = await fileSystem()
  await checkFree(folder, force)
  const final = await resolve(folder)
  let beside: string | undefined
  try {
    await makeFolder(dirname(final))
    beside = await fs.mkdtemp(`${final}.tmp-`)
    for (const [name, chunks] of files) await writeAtomically(join(beside, name), chunks)
    await fs.chmod(beside, 0o755)
    // Its files may have come only now.
    await checkFree(folder, force)
    const old = `${beside}.old`
    const replaced = await fs.rename(final, old).then(
      () => true,
      () => false,
    )
    try {
      await fs.rename(beside, final)
    } catch (error) {
      if (replaced) await fs.rename(old, final)
      throw error
    }
    if (replaced) await fs.rm(old, { recursive: true, force: true })
  } catch (cause) {
    if (beside) await fs.rm(beside, { recursive: true, force: true }).catch(() => {})
    throw writeError(folder, cause)
  }
}

/** Makes a folder, and those that it lies in. Throws HalflingError of code 'io'. */
export async function makeFolder(path: string): Promise<void> {
  const { mkdir } = await fileSystem()
  try {
    await mkdir(path, { recursive: true }).catch(async (error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error
      // What Node says of a read-only file system: the plain call has the true reason.
      await makeFolder(dirname(path))
      await mkdir(path)
    })
  } catch (cause) {
    throw writeError(path, cause)
  }
}

/** Throws OptionError unless nothing would be lost by writing a folder there. */
async function checkFree(folder: string, force: boolean | undefined): Promise<void> {
  const { readdir } = await fileSystem()
  const there = await readdir(folder, { withFileTypes: true }).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOTDIR') throw new OptionError(`${folder}: is a file: give a new folder`)
    return []
  })
  if (there.length === 0) return
  if (!force)
    throw new OptionError(`${folder}: has files in it: give a new folder${force === false ? ', or force' : ''}`)
  if (!there.some(({ name }) => name === 'config.json') || there.some((entry) => !entry.isFile()))
    throw new OptionError(`${folder}: is not replaced, it holds more than a model: give a new folder`)
}

/** An error of the file system as a HalflingError of code 'io' that names the path; any other error as it is. */
export function writeError(path: string, cause: unknown): unknown {
  if (!isSystemError(cause)) return cause
  return new HalflingError('io', `${path}: cannot be written: ${reason(cause)}`, { cause })
}

const isSystemError = (error: unknown): boolean => typeof (error as NodeJS.ErrnoException)?.syscall === 'string'

function reason(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException
  if (code === 'ENOENT') return 'no such file or folder'
  if (code === 'EACCES') return 'permission denied'
  if (code === 'ENOSPC') return isNode ? 'the disk is full' : message
  if (code === 'EROFS') return 'the file system is read-only'
  if (code === 'EEXIST' || code === 'ENOTDIR') return 'there is a file where a folder is wanted'
  return message
}
