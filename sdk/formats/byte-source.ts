import { FormatError } from '../errors.ts'

/** A file, a blob or bytes in memory, read by ranges. */
export interface ByteSource {
  /** Named in errors. */
  readonly name: string
  /** Bytes. */
  readonly size: number
  /** A fresh copy of the range. Throws FormatError for a range that is not there. */
  read(offset: number, length: number): Promise<Uint8Array>
  /** May be called more than once. */
  close(): Promise<void>
}

/** Throws FormatError, naming the source and the offset, unless the range lies in it. */
export function checkRange({ name, size }: { name: string; size: number }, offset: number, length: number): void {
  if (
    !Number.isSafeInteger(offset) ||
    !Number.isSafeInteger(length) ||
    offset < 0 ||
    length < 0 ||
    offset + length > size
  )
    throw new FormatError(`${name}: no bytes ${offset} to ${offset + length}, it has ${size} (is it truncated?)`)
}

export function bytesSource(name: string, bytes: Uint8Array): ByteSource {
  // A Node Buffer's own slice does not copy.
  const plain = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length)
  const source: ByteSource = {
    name,
    size: plain.length,
    async read(offset, length) {
      checkRange(source, offset, length)
      return plain.slice(offset, offset + length)
    },
    async close() {},
  }
  return source
}
