import { byteLength, type DType } from '../dtype.ts'
import { ShapeError } from '../errors.ts'
import { dequantizeQ4, dequantizeQ8, quantizeQ4, quantizeQ8 } from './blocks.ts'
import { bf16ToF32, f16ToF32, f32ToBf16, f32ToF16 } from './float16.ts'

/** Elements that are f32 at a time: a multiple of every block size. */
export const chunkElements = 65_536

/** Canonical bytes (sdk/dtype.ts) of a float dtype to f32. */
export function toFloats(bytes: Uint8Array, dtype: DType): Float32Array {
  if (dtype === 'q8') return dequantizeQ8(bytes)
  if (dtype === 'q4') return dequantizeQ4(bytes)
  if (dtype === 'i32') throw new ShapeError('i32 is no float type')
  // A copy starts at an aligned address.
  const own = new Uint8Array(bytes).buffer
  if (dtype === 'f32') return new Float32Array(own)
  return dtype === 'f16' ? f16ToF32(new Uint16Array(own)) : bf16ToF32(new Uint16Array(own))
}

/** f32 to canonical bytes of a float dtype. For q8 and q4 the length is a multiple of 32. */
export function fromFloats(floats: Float32Array, dtype: DType): Uint8Array {
  if (dtype === 'q8') return quantizeQ8(floats)
  if (dtype === 'q4') return quantizeQ4(floats)
  if (dtype === 'i32') throw new ShapeError('i32 is no float type')
  const stored = dtype === 'f32' ? floats : dtype === 'f16' ? f32ToF16(floats) : f32ToBf16(floats)
  return new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength)
}

/**
 * Canonical bytes of one dtype as those of another, through f32, a chunk at a time. The same dtype returns `bytes` itself.
 *
 * @param count elements; rows of q8 and q4 are multiples of 32, so blocks follow each other without regard to rows
 * @throws ShapeError for a length that is not `count` elements, a count that is no multiple of a block, i32 to or from a float
 */
export function convert(bytes: Uint8Array, from: DType, to: DType, count: number): Uint8Array {
  const expected = byteLength({ dtype: from, shape: [count] })
  if (bytes.length !== expected)
    throw new ShapeError(`${count} elements of ${from} are ${expected} bytes, got ${bytes.length}`)
  if (from === to) return bytes
  if (from === 'i32' || to === 'i32') throw new ShapeError(`cannot convert ${from} to ${to}`)
  const out = new Uint8Array(byteLength({ dtype: to, shape: [count] }))
  for (let start = 0; start < count; start += chunkElements) {
    const n = Math.min(chunkElements, count - start)
    const offset = byteLength({ dtype: from, shape: [start] })
    const chunk = bytes.subarray(offset, offset + byteLength({ dtype: from, shape: [n] }))
    out.set(fromFloats(toFloats(chunk, from), to), byteLength({ dtype: to, shape: [start] }))
  }
  return out
}
