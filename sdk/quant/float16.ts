// f16 and bf16 as raw bits in Uint16Array, f32 in Float32Array. Narrowing rounds to the nearest, ties to even.

const scratchFloat = new Float32Array(1)
const scratchBits = new Uint32Array(scratchFloat.buffer)

const floatBits = (x: number): number => {
  scratchFloat[0] = x
  return scratchBits[0]
}

/** f32 bits of an f16. */
function widenHalf(h: number): number {
  const sign = (h & 0x8000) << 16
  const exponent = (h >>> 10) & 31
  const fraction = h & 1023
  if (exponent === 31) return sign | 0x7f800000 | (fraction << 13)
  if (exponent !== 0) return sign | ((exponent + 112) << 23) | (fraction << 13)
  // Subnormal: fraction · 2^-24, exact in f32.
  return sign | floatBits(fraction * 2 ** -24)
}

/** f16 bits of an f32's bits. */
function narrowToHalf(bits: number): number {
  const sign = (bits >>> 16) & 0x8000
  const magnitude = bits & 0x7fffffff
  if (magnitude > 0x7f800000) return sign | 0x7e00 | ((magnitude >>> 13) & 1023)
  if (magnitude >= 0x477ff000) return sign | 0x7c00 // 65520 and more
  // Normal from 2^-14 on; a carry out of the fraction is a right exponent.
  if (magnitude >= 0x38800000) return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13)
  if (magnitude <= 0x33000000) return sign // up to 2^-25, half of the smallest
  const shift = 126 - (magnitude >>> 23)
  const significand = (magnitude & 0x7fffff) | 0x800000
  const kept = significand >>> shift
  const rest = significand & ((1 << shift) - 1)
  const half = 1 << (shift - 1)
  return sign | (kept + (rest > half || (rest === half && kept & 1) ? 1 : 0))
}

/** bf16 bits of an f32's bits. */
const narrowToBf16 = (bits: number): number =>
  (bits & 0x7fffffff) > 0x7f800000 ? (bits >>> 16) | 64 : (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16

let halves: Uint32Array | undefined
/** f32 bits of all 65,536 f16, made at first use. */
const halfTable = (): Uint32Array => {
  halves ??= Uint32Array.from({ length: 65_536 }, (_, h) => widenHalf(h))
  return halves
}

const asBits = (floats: Float32Array): Uint32Array => new Uint32Array(floats.buffer, floats.byteOffset, floats.length)

/** The number that 16 bits of an f16 stand for. */
export function halfToNumber(h: number): number {
  scratchBits[0] = widenHalf(h)
  return scratchFloat[0]
}

/** The bits of the f16 that lies at a byte, low byte first; the number that they stand for; and writing them. */
export const halfBits = (bytes: Uint8Array, at: number): number => bytes[at] | (bytes[at + 1] << 8)
export const readHalf = (bytes: Uint8Array, at: number): number => halfToNumber(halfBits(bytes, at))
export function writeHalf(bytes: Uint8Array, at: number, bits: number): void {
  bytes[at] = bits & 255
  bytes[at + 1] = bits >>> 8
}

/** The nearest f16 of a number (taken to f32 first, as everything here is), as bits. */
export const numberToHalf = (x: number): number => narrowToHalf(floatBits(x))

export function f16ToF32(source: Uint16Array, out = new Float32Array(source.length)): Float32Array {
  const table = halfTable()
  const bits = asBits(out)
  for (let i = 0; i < source.length; i++) bits[i] = table[source[i]]
  return out
}

export function f32ToF16(source: Float32Array, out = new Uint16Array(source.length)): Uint16Array {
  const bits = asBits(source)
  for (let i = 0; i < bits.length; i++) out[i] = narrowToHalf(bits[i])
  return out
}

export function bf16ToF32(source: Uint16Array, out = new Float32Array(source.length)): Float32Array {
  const bits = asBits(out)
  for (let i = 0; i < source.length; i++) bits[i] = source[i] << 16
  return out
}

export function f32ToBf16(source: Float32Array, out = new Uint16Array(source.length)): Uint16Array {
  const bits = asBits(source)
  for (let i = 0; i < bits.length; i++) out[i] = narrowToBf16(bits[i])
  return out
}
