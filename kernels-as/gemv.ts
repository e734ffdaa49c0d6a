// y[r, o] = base + scale * x[r] . w[o] for one or two rows of x (decode): weights come from memory once, and are used
// straight from their bytes. Split by rows of w.
//
// A row of w is taken in blocks of 32: eight products, summed as a tree, times the block's scale, added to one vector.
// So a row's result does not depend on its companions.
//
// Measured at 896x4864, one row, one thread, weights in L3 (2-core Zen 5 VM, Node 20): f32 0.40 ms (43 GB/s),
// q8 0.51 ms (9 GB/s), q4 0.62 ms (4 GB/s). q8 and q4 are bound by unpacking, not by memory (20 GB/s).
// Beside each other on a slower one (EPYC VM): q8 1.04 ms, q4 1.15, q4a 1.37, since it adds up each block of x too.
// All products of one token of Qwen2.5-0.5B's shape (q4, q8 table): 67 ms on one thread, 38 ms on two.

import { BLOCK, Q4_BYTES, Q4A_BYTES, Q8_BYTES } from '../sdk/blocks'
import { shareEnd, shareStart, sum4 } from './common'
import { BF16, F16, half, highNibbles, loadFloat, loadFloat4, lowNibbles, Q4, Q4A, Q8, rowBytes } from './pack'

/** Four times (w . x), of 16 signed bytes and 16 floats. */
// @ts-ignore: decorator
@inline
function dot16(bytes: v128, x: usize): v128 {
  const low = i16x8.extend_low_i8x16_s(bytes)
  const high = i16x8.extend_high_i8x16_s(bytes)
  const p0 = f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(low)), v128.load(x))
  const p1 = f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(low)), v128.load(x, 16))
  const p2 = f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(high)), v128.load(x, 32))
  const p3 = f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(high)), v128.load(x, 48))
  return f32x4.add(f32x4.add(p0, p1), f32x4.add(p2, p3))
}

/** As dot16, of 16 floats. */
// @ts-ignore: decorator
@inline
function dotFloats16(w: usize, x: usize): v128 {
  const p0 = f32x4.mul(v128.load(w), v128.load(x))
  const p1 = f32x4.mul(v128.load(w, 16), v128.load(x, 16))
  const p2 = f32x4.mul(v128.load(w, 32), v128.load(x, 32))
  const p3 = f32x4.mul(v128.load(w, 48), v128.load(x, 48))
  return f32x4.add(f32x4.add(p0, p1), f32x4.add(p2, p3))
}

/** 16 floats as four sums. */
// @ts-ignore: decorator
@inline
function sum16(x: usize): v128 {
  return f32x4.add(f32x4.add(v128.load(x), v128.load(x, 16)), f32x4.add(v128.load(x, 32), v128.load(x, 48)))
}

function dotQ4(w: usize, x: usize, count: i32): f32 {
  let sum = f32x4.splat(0)
  const end = x + ((<usize>count) << 2)
  for (; x < end; x += BLOCK << 2, w += Q4_BYTES) {
    const bytes = v128.load(w, 2)
    const part = f32x4.add(dot16(lowNibbles(bytes), x), dot16(highNibbles(bytes), x + 64))
    sum = f32x4.add(sum, f32x4.mul(f32x4.splat(half(load<u16>(w))), part))
  }
  return sum4(sum)
}

/** A block gives scale * (q . x) + minimum * the sum of x. */
function dotQ4A(w: usize, x: usize, count: i32): f32 {
  let sum = f32x4.splat(0)
  const end = x + ((<usize>count) << 2)
  for (; x < end; x += BLOCK << 2, w += Q4A_BYTES) {
    const bytes = v128.load(w, 4)
    const part = f32x4.add(dot16(v128.and(bytes, i8x16.splat(15)), x), dot16(i8x16.shr_u(bytes, 4), x + 64))
    const above = f32x4.mul(f32x4.splat(half(load<u16>(w, 2))), f32x4.add(sum16(x), sum16(x + 64)))
    sum = f32x4.add(sum, f32x4.add(f32x4.mul(f32x4.splat(half(load<u16>(w))), part), above))
  }
  return sum4(sum)
}

function dotQ8(w: usize, x: usize, count: i32): f32 {
  let sum = f32x4.splat(0)
  const end = x + ((<usize>count) << 2)
  for (; x < end; x += BLOCK << 2, w += Q8_BYTES) {
    const part = f32x4.add(dot16(v128.load(w, 2), x), dot16(v128.load(w, 18), x + 64))
    sum = f32x4.add(sum, f32x4.mul(f32x4.splat(half(load<u16>(w))), part))
  }
  return sum4(sum)
}

/** w . x of `count` floats. */
export function dotFloats(w: usize, x: usize, count: i32): f32 {
  let sum = f32x4.splat(0)
  const end = x + ((<usize>(count & ~31)) << 2)
  for (; x < end; x += 128, w += 128) sum = f32x4.add(sum, f32x4.add(dotFloats16(w, x), dotFloats16(w + 64, x + 64)))
  let total = sum4(sum)
  for (let k = 0; k < (count & 31); k++, w += 4, x += 4) total += load<f32>(w) * load<f32>(x)
  return total
}

/** Four bf16 or f16 from w as floats times four floats. */
// @ts-ignore: decorator
@inline
function halves4(dtype: i32, w: usize, x: usize): v128 {
  return f32x4.mul(loadFloat4(dtype, w, 0), v128.load(x))
}

/** As dotFloats16, of bf16 or f16. */
// @ts-ignore: decorator
@inline
function dotHalves16(dtype: i32, w: usize, x: usize): v128 {
  const low = f32x4.add(halves4(dtype, w, x), halves4(dtype, w + 8, x + 16))
  return f32x4.add(low, f32x4.add(halves4(dtype, w + 16, x + 32), halves4(dtype, w + 24, x + 48)))
}

/** As dotFloats, of bf16 or f16: the same sums in the same order, of what a copy of the row as floats would hold. */
// @ts-ignore: decorator
@inline
function dotHalves(dtype: i32, w: usize, x: usize, count: i32): f32 {
  let sum = f32x4.splat(0)
  const end = x + ((<usize>(count & ~31)) << 2)
  for (; x < end; x += 128, w += 64)
    sum = f32x4.add(sum, f32x4.add(dotHalves16(dtype, w, x), dotHalves16(dtype, w + 32, x + 64)))
  let total = sum4(sum)
  for (let k = 0; k < (count & 31); k++, w += 2, x += 4) total += loadFloat(dtype, w, 0) * load<f32>(x)
  return total
}

function dotF16(w: usize, x: usize, count: i32): f32 {
  return dotHalves(F16, w, x, count)
}

function dotBf16(w: usize, x: usize, count: i32): f32 {
  return dotHalves(BF16, w, x, count)
}

/**
 * y[rows, O] = base + scale * x[rows, I] . w[O, I]: base is the bias b[O] (0: none) or, where `start` is not 0, the
 * rows of start[rows, O].
 */
export function gemv(
  x: usize, w: usize, dtype: i32, bias: usize, biasType: i32, start: usize, y: usize, rows: i32, inputs: i32,
  outputs: i32, scale: f32, thread: i32, threads: i32,
): void {
  const rowSize = rowBytes(dtype, inputs)
  const end = shareEnd(outputs, 16, thread, threads)
  for (let o = shareStart(outputs, 16, thread, threads); o < end; o++) {
    const row = w + <usize>o * rowSize
    const b: f32 = bias ? loadFloat(biasType, bias, o) : 0
    for (let r = 0; r < rows; r++) {
      const xr = x + ((<usize>(r * inputs)) << 2)
      const at = (<usize>(r * outputs + o)) << 2
      let sum: f32
      if (dtype == Q4) sum = dotQ4(row, xr, inputs)
      else if (dtype == Q4A) sum = dotQ4A(row, xr, inputs)
      else if (dtype == Q8) sum = dotQ8(row, xr, inputs)
      else if (dtype == BF16) sum = dotBf16(row, xr, inputs)
      else if (dtype == F16) sum = dotF16(row, xr, inputs)
      else sum = dotFloats(row, xr, inputs)
      store<f32>(y + at, (start ? load<f32>(start + at) : b) + scale * sum)
    }
  }
}
