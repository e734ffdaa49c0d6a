// Weights as f32: one row unpacked, and panels of 8 columns packed for the GEMM core (gemm.ts).
// Layouts: sdk/dtype.ts; q8, q4a and q4 are blocks along the row, byte for byte GGUF's Q8_0, Q4_1 and Q4_0.
import { BLOCK, Q4_BYTES, Q4A_BYTES, Q8_BYTES } from '../sdk/blocks'

/** How the host names the type of a weight: it reads these numbers from the module's exports. */
export const F32: i32 = 0
export const F16: i32 = 1
export const BF16: i32 = 2
export const Q8: i32 = 3
export const Q4: i32 = 4
export const Q4A: i32 = 5

/** Bytes of `count` elements of one row; `count` is whole blocks for the types that have them. */
export function rowBytes(dtype: i32, count: i32): usize {
  if (dtype == F32) return <usize>count * 4
  if (dtype == Q8) return <usize>(count / BLOCK) * Q8_BYTES
  if (dtype == Q4) return <usize>(count / BLOCK) * Q4_BYTES
  if (dtype == Q4A) return <usize>(count / BLOCK) * Q4A_BYTES
  return <usize>count * 2
}

/** f16 to f32 by moving the bits and rescaling by 2^112; the exponent of infinities and NaN is set. */
// @ts-ignore: decorator
@inline
export function half(h: u32): f32 {
  const bits = (h & 0x7fff) << 13
  const magnitude = reinterpret<u32>(reinterpret<f32>(bits) * reinterpret<f32>(0x77800000))
  return reinterpret<f32>(magnitude | ((h & 0x8000) << 16) | (bits >= 0x0f800000 ? 0x7f800000 : 0))
}

/** What half4 needs, in memory: V8 makes a constant vector anew wherever it is used, in three instructions. */
const HALF4 = memory.data<u32>([0x7fff, 0x77800000, 0x8000, 0x0f800000, 0x7f800000])

/** As `half`, of the low 16 bits of four lanes. */
// @ts-ignore: decorator
@inline
export function half4(h: v128): v128 {
  const bits = i32x4.shl(v128.and(h, v128.load32_splat(HALF4)), 13)
  const magnitude = f32x4.mul(bits, v128.load32_splat(HALF4, 4))
  const sign = i32x4.shl(v128.and(h, v128.load32_splat(HALF4, 8)), 16)
  const special = v128.and(i32x4.ge_s(bits, v128.load32_splat(HALF4, 12)), v128.load32_splat(HALF4, 16))
  return v128.or(v128.or(magnitude, sign), special)
}

/** f32 to the nearest f16, of two as near the even one; infinity from 65,520 on. */
export function toHalf(x: f32): u32 {
  const bits = reinterpret<u32>(x) & 0x7fffffff
  const sign = (reinterpret<u32>(x) >> 16) & 0x8000
  if (bits > 0x7f800000) return sign | 0x7e00
  if (bits >= 0x477ff000) return sign | 0x7c00
  // Below 2^-14 the sum with 0.5 rounds to a multiple of 2^-24.
  if (bits < 0x38800000) return sign | (reinterpret<u32>(reinterpret<f32>(bits) + 0.5) - 0x3f000000)
  return sign | ((bits - 0x38000000 + 0xfff + ((bits >> 13) & 1)) >> 13)
}

/** One element of f32, f16 or bf16. */
// @ts-ignore: decorator
@inline
export function loadFloat(dtype: i32, from: usize, index: i32): f32 {
  if (dtype == F32) return load<f32>(from + ((<usize>index) << 2))
  const bits = <u32>load<u16>(from + ((<usize>index) << 1))
  return dtype == F16 ? half(bits) : reinterpret<f32>(bits << 16)
}

/** Four elements of f32, f16 or bf16. */
// @ts-ignore: decorator
@inline
export function loadFloat4(dtype: i32, from: usize, index: i32): v128 {
  if (dtype == F32) return v128.load(from + ((<usize>index) << 2))
  const bits = v128.load16x4_u(from + ((<usize>index) << 1))
  return dtype == F16 ? half4(bits) : i32x4.shl(bits, 16)
}

/** Four integers as f32 times `scale`, plus `minimum` where the type has one. */
// @ts-ignore: decorator
@inline
function scaled(integers: v128, scale: v128, minimum: v128, hasMinimum: bool): v128 {
  const product = f32x4.mul(f32x4.convert_i32x4_s(integers), scale)
  return hasMinimum ? f32x4.add(product, minimum) : product
}

/** 16 signed bytes as `scaled`. */
// @ts-ignore: decorator
@inline
function store16(bytes: v128, scale: v128, minimum: v128, hasMinimum: bool, to: usize): void {
  const low = i16x8.extend_low_i8x16_s(bytes)
  const high = i16x8.extend_high_i8x16_s(bytes)
  v128.store(to, scaled(i32x4.extend_low_i16x8_s(low), scale, minimum, hasMinimum))
  v128.store(to, scaled(i32x4.extend_high_i16x8_s(low), scale, minimum, hasMinimum), 16)
  v128.store(to, scaled(i32x4.extend_low_i16x8_s(high), scale, minimum, hasMinimum), 32)
  v128.store(to, scaled(i32x4.extend_high_i16x8_s(high), scale, minimum, hasMinimum), 48)
}

/** The low nibbles of a q4 block as -8..7: its elements 0 to 15. */
// @ts-ignore: decorator
@inline
export function lowNibbles(bytes: v128): v128 {
  return i8x16.sub(v128.and(bytes, i8x16.splat(15)), i8x16.splat(8))
}

/** The high nibbles of a q4 block as -8..7: its elements 16 to 31. */
// @ts-ignore: decorator
@inline
export function highNibbles(bytes: v128): v128 {
  return i8x16.sub(i8x16.shr_u(bytes, 4), i8x16.splat(8))
}

/** For unpackHalves, as HALF4: what is sign, exponent and mantissa after the shift; 2^112; a half's magnitude; its exponent's last bit. */
const HALVES = memory.data<u32>([0x8fffe000, 0x77800000, 0x7fff7fff, 0x04000400])

/** f16 to f32, eight at a time, and how many: none if one of them is infinite or NaN, which half4 can do. */
function unpackHalves(from: usize, count: i32, to: usize): i32 {
  const bits = v128.load32_splat(HALVES)
  const scale = v128.load32_splat(HALVES, 4)
  const magnitude = v128.load32_splat(HALVES, 8)
  const unit = v128.load32_splat(HALVES, 12)
  let special = i16x8.splat(0)
  let k = 0
  for (; k + 8 <= count; k += 8, from += 16, to += 32) {
    // exponents of all ones run over into the sign
    special = v128.or(special, i16x8.add(v128.and(v128.load(from), magnitude), unit))
    v128.store(to, f32x4.mul(v128.and(i32x4.shl(v128.load16x4_s(from), 13), bits), scale))
    v128.store(to, f32x4.mul(v128.and(i32x4.shl(v128.load16x4_s(from, 8), 13), bits), scale), 16)
  }
  return i16x8.bitmask(special) ? 0 : k
}

/**
 * `count` elements of a row from `from` to f32 at `to`. Of blocks `from` is a block's start, `count` whole blocks.
 */
export function unpack(dtype: i32, from: usize, count: i32, to: usize): void {
  if (dtype == F32) {
    memory.copy(to, from, (<usize>count) << 2)
  } else if (dtype == Q8) {
    for (let k = 0; k < count; k += BLOCK, from += Q8_BYTES, to += BLOCK << 2) {
      const scale = f32x4.splat(half(load<u16>(from)))
      store16(v128.load(from, 2), scale, scale, false, to)
      store16(v128.load(from, 18), scale, scale, false, to + 64)
    }
  } else if (dtype == Q4) {
    for (let k = 0; k < count; k += BLOCK, from += Q4_BYTES, to += BLOCK << 2) {
      const scale = f32x4.splat(half(load<u16>(from)))
      const bytes = v128.load(from, 2)
      store16(lowNibbles(bytes), scale, scale, false, to)
      store16(highNibbles(bytes), scale, scale, false, to + 64)
    }
  } else if (dtype == Q4A) {
    for (let k = 0; k < count; k += BLOCK, from += Q4A_BYTES, to += BLOCK << 2) {
      const scale = f32x4.splat(half(load<u16>(from)))
      const minimum = f32x4.splat(half(load<u16>(from, 2)))
      const bytes = v128.load(from, 4)
      store16(v128.and(bytes, i8x16.splat(15)), scale, minimum, true, to)
      store16(i8x16.shr_u(bytes, 4), scale, minimum, true, to + 64)
    }
  } else {
    let k = dtype == F16 ? unpackHalves(from, count, to) : 0
    from += (<usize>k) << 1
    to += (<usize>k) << 2
    for (; k + 4 <= count; k += 4, from += 8, to += 16) v128.store(to, loadFloat4(dtype, from, 0))
    for (; k < count; k++, from += 2, to += 4) store<f32>(to, loadFloat(dtype, from, 0))
  }
}

/** Four rows of four, `stride` bytes apart, to four columns of four, `toStride` bytes apart. */
// @ts-ignore: decorator
@inline
function transpose4(from: usize, stride: usize, to: usize, toStride: usize): void {
  const r0 = v128.load(from)
  const r1 = v128.load(from + stride)
  const r2 = v128.load(from + stride * 2)
  const r3 = v128.load(from + stride * 3)
  const a = i8x16.shuffle(r0, r1, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23)
  const b = i8x16.shuffle(r2, r3, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23)
  const c = i8x16.shuffle(r0, r1, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31)
  const d = i8x16.shuffle(r2, r3, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31)
  v128.store(to, i8x16.shuffle(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23))
  v128.store(to + toStride, i8x16.shuffle(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
  v128.store(to + toStride * 2, i8x16.shuffle(c, d, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23))
  v128.store(to + toStride * 3, i8x16.shuffle(c, d, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
}

/** f32 rows x columns, rows `stride` bytes apart, to columns x rows, `toStride` bytes apart. */
export function transpose(from: usize, stride: usize, rows: i32, columns: i32, to: usize, toStride: usize): void {
  let r = 0
  for (; r + 4 <= rows; r += 4) {
    const source = from + <usize>r * stride
    const target = to + ((<usize>r) << 2)
    let c = 0
    for (; c + 4 <= columns; c += 4)
      transpose4(source + ((<usize>c) << 2), stride, target + <usize>c * toStride, toStride)
    for (; c < columns; c++)
      for (let i = 0; i < 4; i++)
        store<f32>(
          target + <usize>c * toStride + ((<usize>i) << 2), load<f32>(source + <usize>i * stride + ((<usize>c) << 2)),
        )
  }
  for (; r < rows; r++)
    for (let c = 0; c < columns; c++)
      store<f32>(to + <usize>c * toStride + ((<usize>r) << 2), load<f32>(from + <usize>r * stride + ((<usize>c) << 2)))
}

/**
 * Panels of wᵀ: rows `row`..`row + rows` of w become columns, elements `k`..`k + depth` of each the panel's rows:
 * [panel][depth][8], zeros past the last row. `temporary` holds 8 x depth floats.
 */
export function packRows(
  dtype: i32, w: usize, rowSize: usize, row: i32, rows: i32, k: i32, depth: i32, temporary: usize, to: usize,
): void {
  const offset = rowBytes(dtype, k)
  for (let p = 0; p < rows; p += 8, to += (<usize>depth) << 5) {
    const source = w + <usize>(row + p) * rowSize + offset
    const count = min(8, rows - p)
    if (dtype == F32 && count == 8) {
      transpose(source, rowSize, 8, depth, to, 32)
      continue
    }
    for (let r = 0; r < count; r++)
      unpack(dtype, source + <usize>r * rowSize, depth, temporary + <usize>((r * depth) << 2))
    if (count < 8) memory.fill(temporary + <usize>((count * depth) << 2), 0, <usize>(((8 - count) * depth) << 2))
    transpose(temporary, (<usize>depth) << 2, 8, depth, to, 32)
  }
}

/**
 * Panels of w: elements `column`..`column + columns` of rows `k`..`k + depth`: [panel][depth][8], zeros past the last
 * column. `column` is a multiple of a block. `temporary` holds `columns` rounded up to 8 floats.
 */
export function packColumns(
  dtype: i32, w: usize, rowSize: usize, column: i32, columns: i32, k: i32, depth: i32, temporary: usize, to: usize,
): void {
  const offset = rowBytes(dtype, column)
  const whole = (columns + 7) & ~7
  const panel = (<usize>depth) << 5
  // Only what lies past the columns stays zero: unpack writes the rest anew for each row.
  memory.fill(temporary, 0, (<usize>whole) << 2)
  for (let r = 0; r < depth; r++) {
    const row = w + <usize>(k + r) * rowSize + offset
    let source = row
    if (dtype != F32 || whole != columns) {
      unpack(dtype, row, columns, temporary)
      source = temporary
    }
    let target = to + ((<usize>r) << 5)
    for (let c = 0; c < whole; c += 8, source += 32, target += panel) {
      v128.store(target, v128.load(source))
      v128.store(target, v128.load(source, 16), 16)
    }
  }
}
