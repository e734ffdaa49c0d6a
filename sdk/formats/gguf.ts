import { FormatError } from '../errors.ts'
import type { ByteSource } from '../store/byte-source.ts'
import { storedAt } from './safetensors.ts'
import { layoutOf, type StoredDType, type StoredTensor } from './stored.ts'

/** A metadata value. Lists of numbers and booleans are typed arrays; a 64-bit integer beyond 2^53 is a bigint. */
export type GgufValue = number | bigint | boolean | string | GgufNumbers | readonly string[] | readonly GgufValue[]

export type GgufNumbers =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array
  | BigUint64Array
  | BigInt64Array

export interface GgufFile {
  readonly name: string
  readonly version: number
  readonly metadata: ReadonlyMap<string, GgufValue>
  /** By their names in the file; shapes are row-major, that is GGUF's dimensions reversed. */
  readonly tensors: ReadonlyMap<string, StoredTensor>
}

/** By ggml's ids. */
export const tensorTypes: Readonly<Record<number, StoredDType>> = {
  0: 'F32',
  1: 'F16',
  2: 'Q4_0',
  3: 'Q4_1',
  6: 'Q5_0',
  7: 'Q5_1',
  8: 'Q8_0',
  10: 'Q2_K',
  11: 'Q3_K',
  12: 'Q4_K',
  13: 'Q5_K',
  14: 'Q6_K',
  20: 'IQ4_NL',
  23: 'IQ4_XS',
  24: 'I8',
  25: 'I16',
  26: 'I32',
  27: 'I64',
  28: 'F64',
  30: 'BF16',
  34: 'TQ1_0',
  35: 'TQ2_0',
  39: 'MXFP4',
}

/** ids of value types */
const [booleanType, stringType, listType] = [7, 8, 9]
/** How the fixed-size value types lie in memory. */
const arrays: Readonly<Record<number, new (buffer: ArrayBuffer) => GgufNumbers>> = {
  0: Uint8Array,
  1: Int8Array,
  2: Uint16Array,
  3: Int16Array,
  4: Uint32Array,
  5: Int32Array,
  6: Float32Array,
  [booleanType]: Uint8Array,
  10: BigUint64Array,
  11: BigInt64Array,
  12: Float64Array,
}
const valueBytes = (type: number): number =>
  (arrays[type] as unknown as { BYTES_PER_ELEMENT: number }).BYTES_PER_ELEMENT

/** Vocabularies take some megabytes: 6 of 150,000 tokens. */
const firstWindow = 8 * 2 ** 20
const headerLimit = 2 ** 29
const maxDimensions = 4
const maxListDepth = 4

/**
 * Reads the header of a GGUF file of version 2 or 3. Tensors are read when asked for.
 *
 * @throws FormatError naming the file and the key or tensor for anything broken: counts and sizes past the end, overlaps,
 *   misplaced or unknown tensors, keys twice
 */
export async function openGguf(source: ByteSource): Promise<GgufFile> {
  const { name, size } = source
  for (let length = Math.min(firstWindow, size); ; length = Math.min(length * 4, size)) {
    const window = await source.read(0, length)
    try {
      const header = new HeaderReader(window, name, size).read()
      return { name, ...header, tensors: placeTensors(source, header) }
    } catch (error) {
      // The header is longer than the window.
      if (!(error instanceof WindowEnd)) throw error
      if (length === size) throw new FormatError(`${name}: the header goes past the end of the file (is it truncated?)`)
      if (length >= headerLimit) throw new FormatError(`${name}: a header of more than ${headerLimit} bytes`)
    }
  }
}

/** The bytes at hand end before the header does. */
class WindowEnd extends Error {}

interface TensorInfo {
  readonly name: string
  readonly dtype: StoredDType
  readonly shape: readonly number[]
  readonly bytes: number
  /** From the start of the data. */
  readonly offset: number
}

interface Header {
  readonly version: number
  readonly metadata: Map<string, GgufValue>
  readonly infos: readonly TensorInfo[]
  readonly alignment: number
  readonly dataStart: number
}

class HeaderReader {
  private readonly bytes: Uint8Array
  private readonly view: DataView
  private readonly file: string
  private readonly size: number
  private readonly utf8 = new TextDecoder('utf-8', { ignoreBOM: true })
  private at = 0

  constructor(bytes: Uint8Array, file: string, size: number) {
    this.bytes = bytes
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    this.file = file
    this.size = size
  }

  read(): Header {
    if (this.size < 24 || this.view.getUint32(0, true) !== 0x46554747) this.fail('is not a GGUF file')
    this.at = 4
    const version = this.u32()
    if (version !== 2 && version !== 3)
      this.fail(`GGUF version ${version} is not supported (2 and 3 are, little-endian): convert the model anew`)
    // The least that an entry can take bounds the counts: a key and its type, a value; a name, dimensions, type and offset.
    const tensorCount = this.count(24, 'tensors')
    const keyCount = this.count(13, 'keys')
    const metadata = new Map<string, GgufValue>()
    for (let i = 0; i < keyCount; i++) {
      const key = this.string('a key')
      if (metadata.has(key)) this.fail(`${key}: is there twice`)
      metadata.set(key, this.value(this.u32(), key, 0))
    }
    const infos: TensorInfo[] = []
    for (let i = 0; i < tensorCount; i++) infos.push(this.tensorInfo())
    const alignment = metadata.get('general.alignment') ?? 32
    if (
      typeof alignment !== 'number' ||
      alignment < 1 ||
      alignment > 2 ** 24 ||
      2 ** Math.round(Math.log2(alignment)) !== alignment
    )
      return this.fail(`general.alignment: ${String(alignment).slice(0, 40)} is not a power of two`)
    return { version, metadata, infos, alignment, dataStart: Math.ceil(this.at / alignment) * alignment }
  }

  private tensorInfo(): TensorInfo {
    const name = this.string('a tensor name')
    const dimensions = this.u32()
    if (dimensions > maxDimensions) this.fail(`${name}: ${dimensions} dimensions (at most ${maxDimensions})`)
    const shape: number[] = []
    let elements = 1
    for (let i = 0; i < dimensions; i++) {
      const n = this.u64()
      elements *= n
      if (!Number.isSafeInteger(n) || !Number.isSafeInteger(elements))
        this.fail(`${name}: dimensions [${[n, ...shape].join(', ')}] are too large`)
      shape.unshift(n)
    }
    const type = this.u32()
    const dtype = tensorTypes[type]
    if (dtype === undefined)
      return this.fail(`${name}: tensor type ${type} is not supported (${Object.values(tensorTypes).join(', ')} are)`)
    const layout = layoutOf(dtype)
    const row = shape.at(-1) ?? 1
    if (row % layout.elements !== 0) this.fail(`${name}: rows of ${row} are no whole blocks of ${dtype}`)
    const bytes = (elements / layout.elements) * layout.bytes
    const offset = this.u64()
    if (!Number.isSafeInteger(bytes) || bytes > this.size || offset > this.size)
      this.fail(`${name}: ${bytes} bytes at ${offset} go past the end of the file (is it truncated?)`)
    return { name, dtype, shape, bytes, offset }
  }

  private value(type: number, key: string, depth: number): GgufValue {
    if (type === stringType) return this.string(key)
    if (type === listType) return this.list(key, depth)
    if (!Object.hasOwn(arrays, type)) return this.fail(`${key}: value type ${type} is not known`)
    const [value] = this.numbers(type, 1)
    if (type === booleanType) return value !== 0
    return Number.isSafeInteger(Number(value)) ? Number(value) : value
  }

  private list(key: string, depth: number): GgufValue {
    if (depth >= maxListDepth) this.fail(`${key}: lists within lists, ${depth} deep`)
    const type = this.u32()
    if (Object.hasOwn(arrays, type)) return this.numbers(type, this.count(valueBytes(type), key))
    if (type !== stringType && type !== listType) this.fail(`${key}: value type ${type} is not known`)
    const values: GgufValue[] = []
    for (let n = this.count(type === stringType ? 8 : 12, key); n > 0; n--)
      values.push(this.value(type, key, depth + 1))
    return values
  }

  private numbers(type: number, count: number): GgufNumbers {
    const bytes = count * valueBytes(type)
    const at = this.skip(bytes)
    return new arrays[type](this.bytes.slice(at, at + bytes).buffer)
  }

  private string(what: string): string {
    const at = this.skip(this.count(1, what))
    return this.utf8.decode(this.bytes.subarray(at, this.at))
  }

  /** A count of things of at least `bytes` each: no more than the file can hold. */
  private count(bytes: number, what: string): number {
    const n = this.u64()
    if (n * bytes > this.size - this.at)
      this.fail(`${what}: a count of ${n} goes past the end of the file (is it truncated?)`)
    return n
  }

  private u32(): number {
    return this.view.getUint32(this.skip(4), true)
  }

  /** Beyond 2^53 it is not exact, and larger than anything in a file. */
  private u64(): number {
    const at = this.skip(8)
    return this.view.getUint32(at, true) + 2 ** 32 * this.view.getUint32(at + 4, true)
  }

  private skip(bytes: number): number {
    const at = this.at
    if (at + bytes > this.bytes.length) throw new WindowEnd()
    this.at += bytes
    return at
  }

  private fail(message: string): never {
    throw new FormatError(`${this.file}: ${message}`)
  }
}

function placeTensors(source: ByteSource, { infos, alignment, dataStart }: Header): Map<string, StoredTensor> {
  const fail = (name: string, message: string): never => {
    throw new FormatError(`${source.name}: ${name}: ${message}`)
  }
  const tensors = new Map<string, StoredTensor>()
  let previous: TensorInfo | undefined
  for (const info of [...infos].sort((a, b) => a.offset - b.offset || a.bytes - b.bytes)) {
    const { name, offset, bytes } = info
    if (offset % alignment !== 0) fail(name, `begins at ${offset}, which is no multiple of ${alignment}`)
    if (previous && offset < previous.offset + previous.bytes) fail(name, `overlaps ${previous.name}`)
    if (dataStart + offset + bytes > source.size)
      fail(name, `ends at ${dataStart + offset + bytes}, the file has ${source.size} bytes (is it truncated?)`)
    previous = info
  }
  for (const info of infos) {
    if (tensors.has(info.name)) fail(info.name, 'is there twice')
    tensors.set(info.name, storedAt(source, dataStart + info.offset, info))
  }
  return tensors
}
