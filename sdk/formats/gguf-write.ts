import { FormatError } from '../errors.ts'
import { tensorTypes } from './gguf.ts'
import type { StoredDType, TensorStream } from './stored.ts'

/** A metadata value with its type. */
export type GgufEntry =
  | { readonly u32: number }
  | { readonly f32: number }
  | { readonly bool: boolean }
  | { readonly string: string }
  | { readonly strings: readonly string[] }
  | { readonly i32s: ArrayLike<number> }
  | { readonly f32s: ArrayLike<number> }

/** What llama.cpp takes where general.alignment says nothing. */
const alignment = 32
const aligned = (n: number): number => Math.ceil(n / alignment) * alignment
const [u32Type, i32Type, f32Type, boolType, stringType, listType] = [4, 5, 6, 7, 8, 9]

const typeIds = new Map<StoredDType, number>(Object.entries(tensorTypes).map(([id, dtype]) => [dtype, Number(id)]))

/** A GGUF file of version 3 in pieces. Shapes of tensors are row-major. Throws FormatError for a name that is there twice. */
export async function* ggufStream(
  metadata: ReadonlyMap<string, GgufEntry>,
  tensors: readonly TensorStream[],
): AsyncGenerator<Uint8Array, void> {
  yield ggufHeader(metadata, tensors)
  for (const { name, bytes, chunks } of tensors) {
    let written = 0
    for await (const chunk of chunks()) {
      written += chunk.length
      yield chunk
    }
    if (written !== bytes) throw new FormatError(`${name}: takes ${bytes} bytes, got ${written}`)
    yield new Uint8Array(aligned(bytes) - bytes)
  }
}

/** Everything before the data, padded to where they begin. */
export function ggufHeader(
  metadata: ReadonlyMap<string, GgufEntry>,
  tensors: readonly Omit<TensorStream, 'chunks'>[] = [],
): Uint8Array {
  const w = new Writer()
  w.raw(new TextEncoder().encode('GGUF'))
  w.u32(3)
  w.u64(tensors.length)
  w.u64(metadata.size)
  for (const [key, entry] of metadata) {
    w.string(key)
    writeEntry(w, entry)
  }
  const names = new Set<string>()
  let offset = 0
  for (const { name, dtype, shape, bytes } of tensors) {
    const type = typeIds.get(dtype)
    if (type === undefined || names.has(name))
      throw new FormatError(`${name}: ${type === undefined ? `${dtype} is no type of GGUF` : 'this name is taken'}`)
    names.add(name)
    w.string(name)
    w.u32(shape.length)
    for (const n of [...shape].reverse()) w.u64(n)
    w.u32(type)
    w.u64(offset)
    offset += aligned(bytes)
  }
  w.raw(new Uint8Array(aligned(w.length) - w.length))
  return w.done()
}

function writeEntry(w: Writer, entry: GgufEntry): void {
  if ('u32' in entry) {
    w.u32(u32Type)
    w.u32(entry.u32)
  } else if ('f32' in entry) {
    w.u32(f32Type)
    w.raw(new Uint8Array(Float32Array.of(entry.f32).buffer))
  } else if ('bool' in entry) {
    w.u32(boolType)
    w.raw(Uint8Array.of(Number(entry.bool)))
  } else if ('string' in entry) {
    w.u32(stringType)
    w.string(entry.string)
  } else if ('strings' in entry) {
    w.list(stringType, entry.strings.length)
    for (const text of entry.strings) w.string(text)
  } else if ('i32s' in entry) {
    w.list(i32Type, entry.i32s.length)
    w.raw(new Uint8Array(Int32Array.from(entry.i32s).buffer))
  } else {
    w.list(f32Type, entry.f32s.length)
    w.raw(new Uint8Array(Float32Array.from(entry.f32s).buffer))
  }
}

/** Little-endian bytes that grow. */
class Writer {
  private bytes = new Uint8Array(2 ** 16)
  private readonly utf8 = new TextEncoder()
  length = 0

  raw(more: Uint8Array): void {
    if (this.length + more.length > this.bytes.length) {
      const grown = new Uint8Array(Math.max(2 * this.bytes.length, this.length + more.length))
      grown.set(this.bytes)
      this.bytes = grown
    }
    this.bytes.set(more, this.length)
    this.length += more.length
  }

  u32(n: number): void {
    this.raw(new Uint8Array(Uint32Array.of(n).buffer))
  }

  u64(n: number): void {
    this.raw(new Uint8Array(BigUint64Array.of(BigInt(n)).buffer))
  }

  string(text: string): void {
    const bytes = this.utf8.encode(text)
    this.u64(bytes.length)
    this.raw(bytes)
  }

  list(type: number, length: number): void {
    this.u32(listType)
    this.u32(type)
    this.u64(length)
  }

  done(): Uint8Array {
    return this.bytes.slice(0, this.length)
  }
}
