import { elementCount } from '../dtype.ts'
import { FormatError, HalflingError } from '../errors.ts'
import { isObject } from '../options.ts'
import { type ByteSource, checkRange } from '../store/byte-source.ts'
import { storeAt } from '../store/store.ts'
import { type PlainDType, plainBytes, type StoredTensor, type TensorStream } from './stored.ts'

export { decodeFloats, readFloats, type StoredDType, type StoredTensor } from './stored.ts'

export interface TensorFile {
  readonly tensors: ReadonlyMap<string, StoredTensor>
  /** The strings under `__metadata__`. */
  readonly metadata: Readonly<Record<string, string>>
}

export interface TensorData {
  readonly name: string
  readonly dtype: PlainDType
  readonly shape: readonly number[]
  /** Row-major, little-endian. */
  readonly data: Uint8Array
}

/** The format's own limit on its JSON header. */
const headerLimit = 100_000_000

/**
 * Reads the header of a safetensors file, or of the shards of one model. Tensors are read when asked for.
 *
 * @throws FormatError naming file and tensor for a header that is broken or lies about the file: sizes past the end, holes,
 *   overlaps, shapes that do not fit, unknown dtypes, tensors twice
 */
export async function openSafetensors(source: ByteSource | readonly ByteSource[]): Promise<TensorFile> {
  const sources = [source].flat() as ByteSource[]
  const tensors = new Map<string, StoredTensor>()
  const metadata: [string, string][] = []
  for (const one of sources) {
    const header = await readHeader(one)
    metadata.push(...header.metadata)
    for (const tensor of header.tensors) {
      const twin = tensors.get(tensor.name)
      if (twin) throw new FormatError(`${one.name}: ${tensor.name}: is in ${twin.file} already`)
      tensors.set(tensor.name, tensor)
    }
  }
  return {
    tensors,
    // Not by assignment: a key may be __proto__.
    metadata: Object.fromEntries(metadata),
  }
}

async function readHeader(source: ByteSource): Promise<{ tensors: StoredTensor[]; metadata: [string, string][] }> {
  const { name: file, size } = source
  const fail = (message: string, cause?: unknown): never => {
    throw new FormatError(`${file}: ${message}`, { cause })
  }
  if (size < 8) fail(`${size} bytes are no safetensors file`)
  const start = await source.read(0, 8)
  const length = new DataView(start.buffer, start.byteOffset).getBigUint64(0, true)
  if (length > headerLimit) fail(`is no safetensors file (a header of ${length} bytes)`)
  const dataStart = 8 + Number(length)
  if (dataStart > size) fail(`the header of ${length} bytes goes past the end of the file (is it truncated?)`)
  let text = ''
  let json: unknown
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(await source.read(8, Number(length)))
    json = JSON.parse(text)
  } catch (cause) {
    if (cause instanceof HalflingError) throw cause
    fail(`the header is not JSON: ${(cause as Error).message}`, cause)
  }
  if (!isObject(json)) return fail('the header is not a JSON object')
  const twice = firstRepeatedKey(text)
  if (twice !== null) fail(`${twice}: is in the header twice`)

  const metadata: [string, string][] = []
  const placed: { tensor: StoredTensor; begin: number; end: number }[] = []
  for (const [name, entry] of Object.entries(json)) {
    if (name === '__metadata__') {
      // The reference library reads null as none.
      if (entry === null) continue
      if (!isObject(entry)) return fail('__metadata__ is not an object')
      for (const [key, value] of Object.entries(entry)) {
        if (typeof value !== 'string') return fail(`__metadata__ ${key} is not a string`)
        metadata.push([key, value])
      }
      continue
    }
    placed.push(readEntry(source, dataStart, name, entry))
  }
  // One after the other, without holes or overlaps, up to the end of the file.
  let at = 0
  for (const { tensor, begin, end } of [...placed].sort((a, b) => a.begin - b.begin || a.end - b.end)) {
    if (begin !== at) fail(`${tensor.name}: begins at ${begin}, the tensor before it ends at ${at}`)
    at = end
  }
  if (dataStart + at !== size)
    fail(`its tensors end at ${dataStart + at}, the file has ${size} bytes (is it truncated?)`)
  return { tensors: placed.map(({ tensor }) => tensor), metadata }
}

function readEntry(
  source: ByteSource,
  dataStart: number,
  name: string,
  entry: unknown,
): { tensor: StoredTensor; begin: number; end: number } {
  const fail = (message: string): never => {
    throw new FormatError(`${source.name}: ${name}: ${message}`)
  }
  if (!isObject(entry)) return fail('its entry in the header is not an object')
  const { dtype, shape, data_offsets: offsets } = entry
  if (typeof dtype !== 'string' || !Object.hasOwn(plainBytes, dtype))
    return fail(`dtype ${JSON.stringify(dtype)} is not known (${Object.keys(plainBytes).join(', ')} are)`)
  if (!isSizes(shape)) return fail(`shape ${JSON.stringify(shape)} is not a list of sizes`)
  if (!isSizes(offsets) || offsets.length !== 2)
    return fail(`data_offsets ${JSON.stringify(offsets)} are not two offsets`)
  const [begin, end] = offsets
  const bytes = elementCount(shape) * plainBytes[dtype as PlainDType]
  if (!Number.isSafeInteger(bytes) || end - begin !== bytes)
    fail(`${dtype} [${shape.join(', ')}] takes ${bytes} bytes, its offsets span ${end - begin}`)
  if (dataStart + end > source.size)
    fail(`ends at ${dataStart + end}, the file has ${source.size} bytes (is it truncated?)`)
  return { tensor: storedAt(source, dataStart + begin, { name, dtype: dtype as PlainDType, shape, bytes }), begin, end }
}

/** A tensor whose bytes start at `offset` of the source. */
export function storedAt(
  source: ByteSource,
  offset: number,
  type: Pick<StoredTensor, 'name' | 'dtype' | 'shape' | 'bytes'>,
): StoredTensor {
  return {
    ...type,
    file: source.name,
    async read(byteOffset = 0, byteLength = type.bytes - byteOffset) {
      checkRange({ name: `${source.name}: ${type.name}`, size: type.bytes }, byteOffset, byteLength)
      return source.read(offset + byteOffset, byteLength)
    },
  }
}

const isSizes = (x: unknown): x is number[] => Array.isArray(x) && x.every((n) => Number.isSafeInteger(n) && n >= 0)

/** Of valid JSON text of an object: a key that it has twice (JSON.parse would keep the last), or null. */
function firstRepeatedKey(text: string): string | null {
  const seen = new Set<string>()
  let depth = 0
  let isKey = false
  for (let i = 0; i < text.length; i++) {
    const c = text[i]
    if (c === '"') {
      const begin = i
      for (i++; text[i] !== '"'; i++) if (text[i] === '\\') i++
      if (depth === 1 && isKey) {
        const key = JSON.parse(text.slice(begin, i + 1)) as string
        if (seen.has(key)) return key
        seen.add(key)
        isKey = false
      }
    } else if (c === '{' || c === '[') {
      depth++
      isKey = depth === 1
    } else if (c === '}' || c === ']') depth--
    else if (c === ',' && depth === 1) isKey = true
  }
  return null
}

const dtypeOrder = Object.keys(plainBytes)

/**
 * The header of a safetensors file (metadata in the order given), and the tensors in the order in which their data follow it:
 * widest dtype first, then by name, as the reference library does. Throws FormatError for a name that is there twice.
 */
export function safetensorsHeader<T extends Omit<TensorData, 'data'>>(
  tensors: Iterable<T>,
  metadata?: Readonly<Record<string, string>>,
): { header: Uint8Array; sorted: T[] } {
  const utf8 = new TextEncoder()
  const sorted = [...tensors]
    .map((tensor) => ({ tensor, key: utf8.encode(tensor.name) }))
    .sort(
      (a, b) => dtypeOrder.indexOf(b.tensor.dtype) - dtypeOrder.indexOf(a.tensor.dtype) || compareBytes(a.key, b.key),
    )
    .map(({ tensor }) => tensor)
  const entries: string[] = []
  const names = new Set<string>()
  if (metadata && Object.keys(metadata).length > 0) entries.push(`"__metadata__":${JSON.stringify(metadata)}`)
  let at = 0
  for (const { name, dtype, shape } of sorted) {
    if (names.has(name) || name === '__metadata__') throw new FormatError(`${name}: this name is taken`)
    names.add(name)
    const end = at + sizeOf(dtype, shape)
    entries.push(`${JSON.stringify(name)}:${JSON.stringify({ dtype, shape, data_offsets: [at, end] })}`)
    at = end
  }
  const json = utf8.encode(`{${entries.join(',')}}`)
  const header = new Uint8Array(8 + Math.ceil(json.length / 8) * 8).fill(32)
  new DataView(header.buffer).setBigUint64(0, BigInt(header.length - 8), true)
  header.set(json, 8)
  return { header, sorted }
}

const sizeOf = (dtype: PlainDType, shape: readonly number[]): number => elementCount(shape) * plainBytes[dtype]

/**
 * The parts of a safetensors file, byte for byte as the reference library writes it. Throws FormatError for data that does not
 * fit its shape and for a name that is there twice.
 */
export function safetensorsChunks(
  tensors: Iterable<TensorData>,
  metadata?: Readonly<Record<string, string>>,
): Uint8Array[] {
  const { header, sorted } = safetensorsHeader(tensors, metadata)
  for (const { name, dtype, shape, data } of sorted)
    if (data.length !== sizeOf(dtype, shape))
      throw new FormatError(
        `${name}: ${dtype} [${shape.join(', ')}] takes ${sizeOf(dtype, shape)} bytes, got ${data.length}`,
      )
  return [header, ...sorted.map(({ data }) => data)]
}

/** `safetensorsChunks` of tensors that are made when their turn comes. */
export async function* safetensorsStream(
  tensors: Iterable<TensorStream<PlainDType>>,
  metadata?: Readonly<Record<string, string>>,
): AsyncGenerator<Uint8Array, void> {
  const { header, sorted } = safetensorsHeader(tensors, metadata)
  yield header
  for (const { name, dtype, shape, chunks } of sorted) {
    let left = sizeOf(dtype, shape)
    for await (const chunk of chunks()) {
      left -= chunk.length
      yield chunk
    }
    if (left !== 0) throw new FormatError(`${name}: ${dtype} [${shape.join(', ')}] got ${-left} bytes too many`)
  }
}

/** Writes a safetensors file (`safetensorsChunks`), whole or not at all. */
export async function writeSafetensors(
  path: string,
  tensors: Iterable<TensorData>,
  metadata?: Readonly<Record<string, string>>,
): Promise<void> {
  await (await storeAt(path)).write('', safetensorsChunks(tensors, metadata))
}

function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length)
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return a[i] - b[i]
  return a.length - b.length
}
