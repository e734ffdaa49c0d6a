import { FormatError, HalflingError } from '../errors.ts'
import { isObject } from '../options.ts'
import type { ByteSource } from './byte-source.ts'
import { join } from './path.ts'
import type { Source } from './store.ts'

/** Larger than any JSON or template that a model comes with. */
const textLimit = 2 ** 28

/** A file that must be there. Throws FormatError. */
export async function opened(source: Source, file: string): Promise<ByteSource> {
  const found = await source.open(file)
  if (found) return found
  throw new FormatError(`${join(source.name, file)}: no such file`)
}

/** UTF-8 text, or null where there is no such file. Throws FormatError when it is no UTF-8, or larger than 256 MiB. */
export async function readText(source: Source, file: string): Promise<string | null> {
  const found = await source.open(file)
  if (!found) return null
  if (found.size > textLimit) throw new FormatError(`${found.name}: ${found.size} bytes are too many for a text file`)
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(await found.read(0, found.size))
  } catch (cause) {
    if (cause instanceof HalflingError) throw cause
    throw new FormatError(`${found.name}: is not UTF-8 text`, { cause })
  }
}

/** A JSON file that holds an object, or null where there is none. Throws FormatError. */
export async function readJson(source: Source, file: string): Promise<Record<string, unknown> | null> {
  const text = await readText(source, file)
  if (text === null) return null
  const name = join(source.name, file)
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (cause) {
    throw new FormatError(`${name}: is not JSON: ${(cause as Error).message}`, { cause })
  }
  if (!isObject(json)) throw new FormatError(`${name}: is not a JSON object`)
  return json
}

/** A text as the pieces of a file. */
export const textChunks = (text: string): Uint8Array[] => [new TextEncoder().encode(text)]

/** A value as an indented JSON file. */
export const jsonChunks = (value: unknown): Uint8Array[] => textChunks(`${JSON.stringify(value, null, 2)}\n`)
