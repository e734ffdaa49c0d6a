import { blockSize } from '../dtype.ts'
import { halfToNumber, numberToHalf } from './float16.ts'

// q8 and q4: GGUF's Q8_0 and Q4_0, bit for bit as ggml's reference makes and reads them. All arithmetic is in f32.

const q8Bytes = 34
const q4Bytes = 18
const { fround } = Math

/** Blocks of 32 numbers to f16 scale (largest / 127) and 32 int8. `values.length` is a multiple of 32. */
export function quantizeQ8(values: Float32Array): Uint8Array {
  const bytes = new Uint8Array((values.length / blockSize) * q8Bytes)
  for (let start = 0, at = 0; start < values.length; start += blockSize, at += q8Bytes) {
    let largest = 0
    for (let i = start; i < start + blockSize; i++) largest = Math.max(largest, Math.abs(values[i]))
    const scale = fround(largest / 127)
    const inverse = scale === 0 ? 0 : fround(1 / scale)
    writeScale(bytes, at, scale)
    for (let i = 0; i < blockSize; i++) {
      const x = fround(values[start + i] * inverse)
      // Halves go away from zero.
      bytes[at + 2 + i] = x < 0 ? -Math.floor(0.5 - x) : Math.floor(x + 0.5)
    }
  }
  return bytes
}

export function dequantizeQ8(
  bytes: Uint8Array,
  out = new Float32Array((bytes.length / q8Bytes) * blockSize),
): Float32Array {
  for (let start = 0, at = 0; start < out.length; start += blockSize, at += q8Bytes) {
    const scale = readScale(bytes, at)
    for (let i = 0; i < blockSize; i++) out[start + i] = scale * ((bytes[at + 2 + i] << 24) >> 24)
  }
  return out
}

/** Blocks of 32 numbers to f16 scale (the number of largest magnitude / -8) and 16 bytes, elements 0..15 in the low nibbles. */
export function quantizeQ4(values: Float32Array): Uint8Array {
  const bytes = new Uint8Array((values.length / blockSize) * q4Bytes)
  for (let start = 0, at = 0; start < values.length; start += blockSize, at += q4Bytes) {
    let extreme = 0
    for (let i = start; i < start + blockSize; i++) if (Math.abs(values[i]) > Math.abs(extreme)) extreme = values[i]
    const scale = fround(extreme / -8)
    const inverse = scale === 0 ? 0 : fround(1 / scale)
    writeScale(bytes, at, scale)
    for (let i = 0; i < 16; i++) {
      const low = nibble(values[start + i], inverse)
      const high = nibble(values[start + 16 + i], inverse)
      bytes[at + 2 + i] = low | (high << 4)
    }
  }
  return bytes
}

/** ggml rounds x · inverse + 8.5 once, as a fused multiply-add does. */
const nibble = (x: number, inverse: number): number => Math.min(15, Math.max(0, Math.trunc(fround(x * inverse + 8.5))))

export function dequantizeQ4(
  bytes: Uint8Array,
  out = new Float32Array((bytes.length / q4Bytes) * blockSize),
): Float32Array {
  for (let start = 0, at = 0; start < out.length; start += blockSize, at += q4Bytes) {
    const scale = readScale(bytes, at)
    for (let i = 0; i < 16; i++) {
      const pair = bytes[at + 2 + i]
      out[start + i] = scale * ((pair & 15) - 8)
      out[start + 16 + i] = scale * ((pair >>> 4) - 8)
    }
  }
  return out
}

const readScale = (bytes: Uint8Array, at: number): number => halfToNumber(bytes[at] | (bytes[at + 1] << 8))

function writeScale(bytes: Uint8Array, at: number, scale: number): void {
  const half = numberToHalf(scale)
  bytes[at] = half & 255
  bytes[at + 1] = half >>> 8
}
