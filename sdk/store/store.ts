import { OptionError } from '../errors.ts'
import { isNode } from '../runtime.ts'
import type { ByteSource } from './byte-source.ts'
import { opfsStore } from './opfs.ts'
import { join } from './path.ts'

/** A place to read files from: a folder on the disk or of a browser's storage, below a URL, chosen files, memory. */
export interface Source {
  /** Named in errors. */
  readonly name: string
  /**
   * What lies in it, or in a folder of it, by name; nothing where there is no such folder. A file lists itself under the name ''.
   */
  list(folder?: string): Promise<Entry[]>
  /** A file below it ('' is the place itself), or null where there is none. Throws FormatError for one that cannot be read. */
  open(file: string): Promise<ByteSource | null>
}

/** What lies in a folder. Links are not followed. */
export interface Entry {
  readonly name: string
  readonly kind: 'file' | 'folder' | 'link'
  /** Of a file. */
  readonly bytes: number
  /** Milliseconds since 1970. */
  readonly modified: number
}

/** What is written into a file, in pieces. */
export type Chunks = Iterable<Uint8Array> | AsyncIterable<Uint8Array>
/** Files of a folder by name, in the order in which they are written. */
export type Files = ReadonlyMap<string, Chunks>

/**
 * A source that can be written. Folders are made as files are put there. What cannot be written is a HalflingError of code 'io'; an
 * error of the chunks is thrown as it is.
 */
export interface Store extends Source {
  /**
   * Writes a file, or a folder with its files, so that it is whole or not there, and replaces what had that name; until then and when
   * it fails that stays. Where files have to be moved one by one the last of the map comes last: the folder counts once that is there.
   */
  write(name: string, content: Chunks | Files): Promise<void>
  /**
   * Adds to the end of a file, which is made where it is missing; what came stays, also when the chunks end in an error.
   *
   * @param at cuts the file there first, where it is longer
   * @returns the bytes that it has then
   */
  append(name: string, chunks: Chunks, at?: number): Promise<number>
  /** Gives a file another name at once, over an older file too. */
  move(from: string, to: string): Promise<void>
  /** Deletes a file or a folder with all that is in it; nothing where there is none. */
  remove(name: string): Promise<void>
  /** Takes what one alone may hold. Returns what gives it back, or who holds it; a holder that died holds nothing. */
  lock(name: string): Promise<Release | string>
}

export type Release = () => Promise<void>

/** A path as the place that it means, of the disk in Node, of the browser's storage in a page; other places as they are. */
export async function storeAt(place: string | Store): Promise<Store>
export async function storeAt(place: string | Source): Promise<Source>
export async function storeAt(place: string | Source): Promise<Source> {
  if (typeof place !== 'string') return place
  return isNode ? (await import('./disk.ts')).diskStore(place) : opfsStore(place)
}

/** A folder of a source. */
export const below = (source: Source, folder: string): Source => ({
  name: join(source.name, folder),
  list: (inner = '') => source.list(join(folder, inner)),
  open: (file) => source.open(join(folder, file)),
})

/** Writes files, each whole or not at all, beside others of the place. */
export async function writeFiles(store: Store, files: Files): Promise<void> {
  for (const [name, chunks] of files) await store.write(name, chunks)
}

/**
 * Keeps others from writing into a place.
 *
 * @returns what gives it back
 * @throws OptionError naming who writes into it, HalflingError of code 'io'
 */
export async function lockStore(store: Store): Promise<Release> {
  const lock = await store.lock('run.lock')
  if (typeof lock !== 'string') return lock
  throw new OptionError(`${store.name}: ${lock} writes into it: wait for it, or give another folder`)
}
