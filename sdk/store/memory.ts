import { concatenate } from '../bytes.ts'
import { HalflingError } from '../errors.ts'
import { bytesSource } from './byte-source.ts'
import { isFolder, join, partsOf } from './path.ts'
import type { Chunks, Entry, Files, Store } from './store.ts'

export interface MemoryStoreOptions {
  /** Named in errors; default `memory`. */
  readonly name?: string
  /** It is full with so many bytes; default: never. */
  readonly mostBytes?: number
}

/**
 * Files in memory by their paths: what stands for a folder wherever one is read or written (a model's, an adapter's, the output of a
 * training).
 *
 * @param files what is there already; whatever is written comes into this map
 */
export function memoryStore(
  files: Map<string, Uint8Array> = new Map(),
  { name = 'memory', mostBytes = Number.POSITIVE_INFINITY }: MemoryStoreOptions = {},
): Store {
  const held = new Set<string>()
  const plain = (path: string): string => partsOf(path).join('/')
  const isWithin = (key: string, folder: string): boolean =>
    folder === '' || key === folder || key.startsWith(`${folder}/`)
  const bytesBeside = (path: string): number =>
    [...files].reduce((sum, [key, { length }]) => sum + (isWithin(key, path) ? 0 : length), 0)

  /** Copies of the chunks, as long as there is room beside `taken` bytes. */
  async function* fitting(path: string, chunks: Chunks, taken: number): AsyncGenerator<Uint8Array, void> {
    let bytes = taken
    for await (const chunk of chunks) {
      bytes += chunk.length
      if (bytes > mostBytes)
        throw new HalflingError('io', `${join(name, path)}: cannot be written: the store is full (${mostBytes} bytes)`)
      yield chunk.slice()
    }
  }

  const store: Store = {
    name,
    async list(folder = '') {
      const at = plain(folder)
      const found = new Map<string, Entry>()
      for (const [key, { length }] of files) {
        if (!isWithin(key, at)) continue
        const [own, ...inner] = (at === '' ? key : key.slice(at.length + 1)).split('/')
        const kind = inner.length > 0 ? 'folder' : 'file'
        found.set(own, { name: own, kind, bytes: kind === 'file' ? length : 0, modified: 0 })
      }
      return [...found.values()].sort((a, b) => (a.name < b.name ? -1 : 1))
    },
    async open(file) {
      const bytes = files.get(plain(file))
      return bytes ? bytesSource(join(name, file), bytes) : null
    },
    async write(path, content) {
      const at = plain(path)
      const given: Files = isFolder(content) ? content : new Map([['', content]])
      const made = new Map<string, Uint8Array>()
      let taken = bytesBeside(at)
      for (const [file, chunks] of given) {
        const parts: Uint8Array[] = []
        for await (const chunk of fitting(path, chunks, taken)) parts.push(chunk)
        const bytes = concatenate(parts)
        made.set(plain(join(at, file)), bytes)
        taken += bytes.length
      }
      await store.remove(path)
      for (const [file, bytes] of made) files.set(file, bytes)
    },
    async append(path, chunks, at) {
      const key = plain(path)
      const parts: Uint8Array[] = [(files.get(key) ?? new Uint8Array()).slice(0, at)]
      try {
        const taken = bytesBeside(key) + parts[0].length
        for await (const chunk of fitting(path, chunks, taken)) parts.push(chunk)
      } finally {
        files.set(key, concatenate(parts))
      }
      return files.get(key)!.length
    },
    async move(from, to) {
      const bytes = files.get(plain(from))
      if (!bytes) throw new HalflingError('io', `${join(name, from)}: no such file`)
      files.delete(plain(from))
      files.set(plain(to), bytes)
    },
    async remove(path) {
      for (const key of files.keys()) if (isWithin(key, plain(path))) files.delete(key)
    },
    async lock(path) {
      const key = plain(path)
      if (held.has(key)) return 'another run'
      held.add(key)
      return async () => {
        held.delete(key)
      }
    },
  }
  return store
}
