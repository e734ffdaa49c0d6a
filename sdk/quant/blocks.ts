import { storedTypes } from '../dtype.ts'
import { numberToHalf, readHalf, writeHalf } from './float16.ts'

// q8, q4 and q4a: GGUF's Q8_0, Q4_0 and Q4_1, bit for bit as ggml's reference makes and reads them. All arithmetic is in f32.

const { elements: blockSize, bytes: q8Bytes } = storedTypes.q8
const q4Bytes = storedTypes.q4.bytes
const q4aBytes = storedTypes.q4a.bytes
/** A byte of q4 and q4a holds two elements that lie so far apart. */
const half = blockSize / 2
const { fround } = Math

/** Blocks of 32 numbers to f16 scale (largest / 127) and 32 int8. `values.length` is a multiple of 32. */
export function quantizeQ8(values: Float32Array): Uint8Array {
  const bytes = new Uint8Array((values.length / blockSize) * q8Bytes)
  const bits = new Int32Array(values.buffer, values.byteOffset, values.length)
  for (let start = 0, at = 0; start < values.length; start += blockSize, at += q8Bytes) {
    let largest = 0
    for (let i = start; i < start + blockSize; i++) largest = Math.max(largest, Math.abs(values[i]))
    const scale = fround(largest / 127)
    const inverse = scale === 0 ? 0 : fround(1 / scale)
    writeScale(bytes, at, scale)
    for (let i = 0; i < blockSize; i++) {
      // Halves go away from zero. No branch: signs are as good as random, and a wrong guess costs more than the rest.
      const magnitude = (fround(Math.abs(values[start + i]) * inverse) + 0.5) | 0
      const sign = bits[start + i] >> 31
      bytes[at + 2 + i] = (magnitude ^ sign) - sign
    }
  }
  return bytes
}

export function dequantizeQ8(
  bytes: Uint8Array,
  out = new Float32Array((bytes.length / q8Bytes) * blockSize),
): Float32Array {
  for (let start = 0, at = 0; start < out.length; start += blockSize, at += q8Bytes) {
    const scale = readHalf(bytes, at)
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
    for (let i = 0; i < half; i++) {
      const low = nibble(values[start + i], inverse, 8.5)
      const high = nibble(values[start + half + i], inverse, 8.5)
      bytes[at + 2 + i] = low | (high << 4)
    }
  }
  return bytes
}

/** ggml rounds x · inverse + offset once, as a fused multiply-add does. */
const nibble = (x: number, inverse: number, offset: number): number =>
  Math.min(15, Math.max(0, Math.trunc(fround(x * inverse + offset))))

export function dequantizeQ4(
  bytes: Uint8Array,
  out = new Float32Array((bytes.length / q4Bytes) * blockSize),
): Float32Array {
  for (let start = 0, at = 0; start < out.length; start += blockSize, at += q4Bytes) {
    const scale = readHalf(bytes, at)
    for (let i = 0; i < half; i++) {
      const pair = bytes[at + 2 + i]
      out[start + i] = scale * ((pair & 15) - 8)
      out[start + half + i] = scale * ((pair >>> 4) - 8)
    }
  }
  return out
}

/** Blocks of 32 numbers to f16 scale ((largest - least) / 15), f16 minimum and 16 bytes, elements 0..15 in the low nibbles. */
export function quantizeQ4A(values: Float32Array): Uint8Array {
  const bytes = new Uint8Array((values.length / blockSize) * q4aBytes)
  for (let start = 0, at = 0; start < values.length; start += blockSize, at += q4aBytes) {
    let least = values[start]
    let largest = least
    for (let i = start + 1; i < start + blockSize; i++) {
      if (values[i] < least) least = values[i]
      if (values[i] > largest) largest = values[i]
    }
    const scale = fround(fround(largest - least) / 15)
    const inverse = scale === 0 ? 0 : fround(1 / scale)
    writeScale(bytes, at, scale)
    writeScale(bytes, at + 2, least)
    for (let i = 0; i < half; i++) {
      const low = nibble(fround(values[start + i] - least), inverse, 0.5)
      const high = nibble(fround(values[start + half + i] - least), inverse, 0.5)
      bytes[at + 4 + i] = low | (high << 4)
    }
  }
  return bytes
}

export function dequantizeQ4A(
  bytes: Uint8Array,
  out = new Float32Array((bytes.length / q4aBytes) * blockSize),
): Float32Array {
  for (let start = 0, at = 0; start < out.length; start += blockSize, at += q4aBytes) {
    const scale = readHalf(bytes, at)
    const minimum = readHalf(bytes, at + 2)
    for (let i = 0; i < half; i++) {
      const pair = bytes[at + 4 + i]
      out[start + i] = scale * (pair & 15) + minimum
      out[start + half + i] = scale * (pair >>> 4) + minimum
    }
  }
  return out
}

const writeScale = (bytes: Uint8Array, at: number, scale: number): void => writeHalf(bytes, at, numberToHalf(scale))
