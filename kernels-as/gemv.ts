// y[r, o] = base + scale * x[r] . w[o] for one or two rows of x (decode): weights come from memory once, and are used
// straight from their bytes (f16 and bf16 are unpacked to L1 first). Split by rows of w.
//
// A row of w is taken in blocks of 32: eight products, summed as a tree, times the block's scale, added to one vector.
// So a row's result does not depend on its companions.
//
// Measured at 896x4864, one row, one thread, weights in L3 (2-core Zen 5 VM, Node 20): f32 0.40 ms (43 GB/s),
// q8 0.51 ms (9 GB/s), q4 0.62 ms (4 GB/s). q8 and q4 are bound by unpacking, not by memory (20 GB/s).
// All products of one token of Qwen2.5-0.5B's shape (q4, q8 table): 67 ms on one thread, 38 ms on two.

import { shareEnd, shareStart, sum4 } from './common'
import { BF16, F16, half, highNibbles, loadFloat, lowNibbles, Q4, Q8, rowBytes, unpack } from './pack'

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

function dotQ4(w: usize, x: usize, count: i32): f32 {
  let sum = f32x4.splat(0)
  const end = x + ((<usize>count) << 2)
  for (; x < end; x += 128, w += 18) {
    const bytes = v128.load(w, 2)
    const part = f32x4.add(dot16(lowNibbles(bytes), x), dot16(highNibbles(bytes), x + 64))
    sum = f32x4.add(sum, f32x4.mul(f32x4.splat(half(load<u16>(w))), part))
  }
  return sum4(sum)
}

function dotQ8(w: usize, x: usize, count: i32): f32 {
  let sum = f32x4.splat(0)
  const end = x + ((<usize>count) << 2)
  for (; x < end; x += 128, w += 34) {
    const part = f32x4.add(dot16(v128.load(w, 2), x), dot16(v128.load(w, 18), x + 64))
    sum = f32x4.add(sum, f32x4.mul(f32x4.splat(half(load<u16>(w))), part))
  }
  return sum4(sum)
}

function dotFloats(w: usize, x: usize, count: i32): f32 {
  let sum = f32x4.splat(0)
  const end = x + ((<usize>(count & ~31)) << 2)
  for (; x < end; x += 128, w += 128) sum = f32x4.add(sum, f32x4.add(dotFloats16(w, x), dotFloats16(w + 64, x + 64)))
  let total = sum4(sum)
  for (let k = 0; k < (count & 31); k++, w += 4, x += 4) total += load<f32>(w) * load<f32>(x)
  return total
}

/**
 * y[rows, O] = base + scale * x[rows, I] . w[O, I]: base is the bias b[O] (0: none) or, where `start` is not 0, the
 * rows of start[rows, O]. `scratch`: I floats for this thread.
 */
export function gemv(
  x: usize,
  w: usize,
  dtype: i32,
  bias: usize,
  biasType: i32,
  start: usize,
  y: usize,
  rows: i32,
  inputs: i32,
  outputs: i32,
  scale: f32,
  scratch: usize,
  thread: i32,
  threads: i32,
): void {
  const rowSize = rowBytes(dtype, inputs)
  const end = shareEnd(outputs, 16, thread, threads)
  for (let o = shareStart(outputs, 16, thread, threads); o < end; o++) {
    let row = w + <usize>o * rowSize
    if (dtype == F16 || dtype == BF16) {
      unpack(dtype, row, inputs, scratch)
      row = scratch
    }
    const b: f32 = bias ? loadFloat(biasType, bias, o) : 0
    for (let r = 0; r < rows; r++) {
      const xr = x + ((<usize>(r * inputs)) << 2)
      const at = (<usize>(r * outputs + o)) << 2
      let sum: f32
      if (dtype == Q4) sum = dotQ4(row, xr, inputs)
      else if (dtype == Q8) sum = dotQ8(row, xr, inputs)
      else sum = dotFloats(row, xr, inputs)
      store<f32>(y + at, (start ? load<f32>(start + at) : b) + scale * sum)
    }
  }
}
