import { FormatError } from '../errors.ts'
import { type ByteSource, blobSource, bytesSource, checkRange } from './byte-source.ts'
import type { Entry, Source } from './store.ts'

// Places that can be read alone.

/** What models and adapters are made of: what is looked for below a URL, since servers list nothing. */
export const modelFiles = [
  'config.json',
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'chat_template.jinja',
  'adapter_config.json',
  'model.safetensors',
  'model.safetensors.index.json',
  'adapter_model.safetensors',
]

/** Files below a URL; safetensors are read by ranges where the server allows it. */
export function urlFolder(url: string | URL): Source {
  const base = new URL(url)
  if (!base.pathname.endsWith('/')) base.pathname += '/'
  return filesOf(
    base.href,
    () => modelFiles,
    async (file) => {
      const own = new URL(file, base)
      const answer = await fetch(own, { method: 'HEAD' }).catch((cause) => {
        throw new FormatError(`${own}: cannot be reached (${(cause as Error).message})`, { cause })
      })
      if (answer.status === 404 || isPage(answer)) return null
      if (!answer.ok) throw new FormatError(`${own}: ${answer.status} ${answer.statusText}`)
      return urlSource(own.href, Number(answer.headers.get('content-length')))
    },
  )
}

/** Servers of single-page apps (Vite's among them) answer with their page, and 200, what they do not have. */
export const isPage = (answer: Response): boolean =>
  answer.ok && /^text\/html/i.test(answer.headers.get('content-type') ?? '')

/** Files that a page was given: of an <input type="file" webkitdirectory>, or dropped; or a folder of showDirectoryPicker. */
export function fileFolder(files: Iterable<File> | FileSystemDirectoryHandle, name?: string): Source {
  if (!('getFileHandle' in files)) {
    const byName = new Map([...files].map((file) => [file.name, file]))
    return filesOf(
      name ?? 'dropped files',
      () => byName.keys(),
      async (file) => {
        const found = byName.get(file)
        return found ? blobSource(file, found) : null
      },
    )
  }
  const folder = files as FileSystemDirectoryHandle & { keys(): AsyncIterable<string> }
  return filesOf(
    name ?? folder.name,
    () => folder.keys(),
    async (file) => {
      const found = await folder.getFileHandle(file).catch((cause: DOMException) => {
        if (/^(NotFound|TypeMismatch)Error$/.test(cause.name)) return null
        throw new FormatError(`${folder.name}/${file}: cannot be opened: ${cause.message}`, { cause })
      })
      return found && blobSource(file, await found.getFile())
    },
  )
}

/** A source of files, of which some have these names. */
export const filesOf = (
  name: string,
  names: () => Iterable<string> | AsyncIterable<string>,
  open: Source['open'],
): Source => ({
  name,
  async list() {
    const found: Entry[] = []
    for await (const file of names()) {
      const source = await open(file)
      if (source) found.push({ name: file, kind: 'file', bytes: source.size, modified: 0 })
    }
    return found
  },
  open,
})

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
