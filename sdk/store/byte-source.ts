import { FormatError } from '../errors.ts'

/** A file, read by ranges. */
export interface ByteSource {
  /** Named in errors. */
  readonly name: string
  /** Bytes. */
  readonly size: number
  /** A fresh copy of the range. Throws FormatError for a range that is not there. */
  read(offset: number, length: number): Promise<Uint8Array>
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
  }
  return source
}

export function blobSource(name: string, blob: Blob): ByteSource {
  const source: ByteSource = {
    name,
    size: blob.size,
    async read(offset, length) {
      checkRange(source, offset, length)
      const part = blob.slice(offset, offset + length)
      return new Uint8Array(
        await part.arrayBuffer().catch((cause: DOMException) => {
          throw new FormatError(`${name}: cannot read at ${offset}: ${cause.message}`, { cause })
        }),
      )
    },
  }
  return source
}
