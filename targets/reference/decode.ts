import { type DType, elementCount, type TensorType } from '../../sdk/dtype.ts'

/** Bytes in the canonical layout of a dtype -> f64. */
export function decode({ dtype, shape }: TensorType, bytes: Uint8Array): Float64Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  return Float64Array.from({ length: elementCount(shape) }, (_, i) => readers[dtype](view, i))
}

function half(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >> 10) & 31
  const fraction = bits & 1023
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15))
}

const bfloat = new DataView(new ArrayBuffer(4))

const readers: Record<DType, (view: DataView, i: number) => number> = {
  f32: (view, i) => view.getFloat32(4 * i, true),
  i32: (view, i) => view.getInt32(4 * i, true),
  f16: (view, i) => half(view.getUint16(2 * i, true)),
  bf16: (view, i) => {
    bfloat.setUint32(0, view.getUint16(2 * i, true) << 16)
    return bfloat.getFloat32(0)
  },
  q8: (view, i) => {
    const block = 34 * (i >> 5)
    return half(view.getUint16(block, true)) * view.getInt8(block + 2 + (i & 31))
  },
  // The low nibbles hold elements 0..15 of a block, the high ones 16..31.
  q4: (view, i) => {
    const block = 18 * (i >> 5)
    const packed = view.getUint8(block + 2 + (i & 15))
    return half(view.getUint16(block, true)) * ((i & 16 ? packed >> 4 : packed & 15) - 8)
  },
}
