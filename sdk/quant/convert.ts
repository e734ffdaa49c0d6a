import { bytesOf } from '../bytes.ts'
import type { DType, FloatDType } from '../dtype.ts'
import { ShapeError } from '../errors.ts'
import { dequantizeQ4, dequantizeQ4A, dequantizeQ8, quantizeQ4, quantizeQ4A, quantizeQ8 } from './blocks.ts'
import { bf16ToF32, f16ToF32, f32ToBf16, f32ToF16 } from './float16.ts'

/** A view needs an aligned start: a copy has one. */
const aligned = (bytes: Uint8Array): ArrayBuffer => new Uint8Array(bytes).buffer

/** How each float type's canonical bytes (sdk/dtype.ts) are read and written. */
const codecs: Readonly<
  Record<FloatDType, { decode(bytes: Uint8Array): Float32Array; encode(floats: Float32Array): Uint8Array }>
> = {
  f32: { decode: (bytes) => new Float32Array(aligned(bytes)), encode: bytesOf },
  f16: { decode: (bytes) => f16ToF32(new Uint16Array(aligned(bytes))), encode: (x) => bytesOf(f32ToF16(x)) },
  bf16: { decode: (bytes) => bf16ToF32(new Uint16Array(aligned(bytes))), encode: (x) => bytesOf(f32ToBf16(x)) },
  q8: { decode: (bytes) => dequantizeQ8(bytes), encode: quantizeQ8 },
  q4a: { decode: (bytes) => dequantizeQ4A(bytes), encode: quantizeQ4A },
  q4: { decode: (bytes) => dequantizeQ4(bytes), encode: quantizeQ4 },
}

function codecOf(dtype: DType) {
  if (dtype === 'i32') throw new ShapeError('i32 is no float type')
  return codecs[dtype]
}

/** Canonical bytes (sdk/dtype.ts) of a float dtype to f32. */
export const toFloats = (bytes: Uint8Array, dtype: DType): Float32Array => codecOf(dtype).decode(bytes)

/** f32 to canonical bytes of a float dtype, whole blocks. */
export const fromFloats = (floats: Float32Array, dtype: DType): Uint8Array => codecOf(dtype).encode(floats)

/** Canonical bytes of any dtype as numbers, and back. */
export const toNumbers = (bytes: Uint8Array, dtype: DType): Float64Array =>
  new Float64Array(dtype === 'i32' ? new Int32Array(aligned(bytes)) : toFloats(bytes, dtype))
export const toBytes = (numbers: Float64Array, dtype: DType): Uint8Array =>
  dtype === 'i32' ? bytesOf(Int32Array.from(numbers)) : fromFloats(Float32Array.from(numbers), dtype)
/** What numbers are once they were stored so. */
export const rounded = (numbers: Float64Array, dtype: DType): Float64Array => toNumbers(toBytes(numbers, dtype), dtype)
