import { FormatError, HalflingError } from '../errors.ts'
import { type ByteSource, bytesSource, checkRange } from './byte-source.ts'

/** Files by name: a folder on disk, below a URL, or those that somebody dropped on a page. */
export interface Folder {
  /** Named in errors. */
  readonly name: string
  /** null where there is no such file. */
  open(file: string): Promise<ByteSource | null>
}

/** Larger than any JSON or template that a model comes with. */
const textLimit = 2 ** 28

/** Files below a URL; safetensors are read by ranges where the server allows it. */
export function urlFolder(url: string | URL): Folder {
  const base = new URL(url)
  if (!base.pathname.endsWith('/')) base.pathname += '/'
  return {
    name: base.href,
    async open(file) {
      const own = new URL(file, base)
      const answer = await fetch(own, { method: 'HEAD' }).catch((cause) => {
        throw new FormatError(`${own}: cannot be reached (${(cause as Error).message})`, { cause })
      })
      if (answer.status === 404) return null
      if (!answer.ok) throw new FormatError(`${own}: ${answer.status} ${answer.statusText}`)
      return urlSource(own.href, Number(answer.headers.get('content-length')))
    },
  }
}

/** Files that a page was given: of an <input type="file" webkitdirectory>, or dropped; or a folder of showDirectoryPicker. */
export function fileFolder(files: Iterable<File> | FileSystemDirectoryHandle, name?: string): Folder {
  if ('getFileHandle' in files)
    return {
      name: name ?? files.name,
      async open(file) {
        const found = await files.getFileHandle(file).catch((cause: DOMException) => {
          if (cause.name === 'NotFoundError') return null
          throw new FormatError(`${files.name}/${file}: cannot be opened: ${cause.message}`, { cause })
        })
        return found && blobSource(file, await found.getFile())
      },
    }
  const byName = new Map([...files].map((file) => [file.name, file]))
  return {
    name: name ?? 'dropped files',
    async open(file) {
      const found = byName.get(file)
      return found ? blobSource(file, found) : null
    },
  }
}

function blobSource(name: string, blob: Blob): ByteSource {
  const source: ByteSource = {
    name,
    size: blob.size,
    async read(offset, length) {
      checkRange(source, offset, length)
      return new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer())
    },
    async close() {},
  }
  return source
}

/** By ranges; a server that does not know them is asked for the whole file once. */
function urlSource(url: string, size: number): ByteSource {
  let whole: Promise<ByteSource> | undefined
  const load = async (): Promise<ByteSource> => bytesSource(url, new Uint8Array(await (await asked(url)).arrayBuffer()))
  const source: ByteSource = {
    name: url,
    size,
    async read(offset, length) {
      checkRange(source, offset, length)
      if (length === 0) return new Uint8Array()
      if (!whole) {
        const answer = await asked(url, { range: `bytes=${offset}-${offset + length - 1}` })
        if (answer.status === 206) {
          const bytes = new Uint8Array(await answer.arrayBuffer())
          if (bytes.length === length) return bytes
          throw new FormatError(`${url}: ${bytes.length} bytes came for ${length} at ${offset}`)
        }
        await answer.body?.cancel()
        whole = load()
      }
      return (await whole).read(offset, length)
    },
    async close() {},
  }
  return source
}

async function asked(url: string, headers: Record<string, string> = {}): Promise<Response> {
  const answer = await fetch(url, { headers }).catch((cause) => {
    throw new FormatError(`${url}: cannot be reached (${(cause as Error).message})`, { cause })
  })
  if (!answer.ok) throw new FormatError(`${url}: ${answer.status} ${answer.statusText}`)
  return answer
}

/** UTF-8 text, or null where there is no such file. Throws FormatError when it is no UTF-8, or larger than 256 MiB. */
export async function readText(folder: Folder, file: string): Promise<string | null> {
  const source = await folder.open(file)
  return source && textOf(source)
}

/** A JSON file that holds an object, or null where there is none. Throws FormatError. */
export async function readJson(folder: Folder, file: string): Promise<Record<string, unknown> | null> {
  const source = await folder.open(file)
  return source && objectOf(source.name, await textOf(source))
}

/** The text of a file, which is closed. Throws FormatError. */
export async function textOf(source: ByteSource): Promise<string> {
  try {
    if (source.size > textLimit)
      throw new FormatError(`${source.name}: ${source.size} bytes are too many for a text file`)
    return new TextDecoder('utf-8', { fatal: true }).decode(await source.read(0, source.size))
  } catch (cause) {
    if (cause instanceof HalflingError) throw cause
    throw new FormatError(`${source.name}: is not UTF-8 text`, { cause })
  } finally {
    await source.close()
  }
}

/** Throws FormatError unless a text is a JSON object. */
export function objectOf(name: string, text: string): Record<string, unknown> {
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (cause) {
    throw new FormatError(`${name}: is not JSON: ${(cause as Error).message}`, { cause })
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    throw new FormatError(`${name}: is not a JSON object`)
  return json as Record<string, unknown>
}
