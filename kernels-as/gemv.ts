// y[r, o] = base + scale * x[r] . w[o] for a few rows of x (decode): weights come from memory once, and are used straight
// from their bytes. Split by rows of w, UNIT of which stay in L2 while the rows of x go by.
//
// A row of w in blocks is taken 32 at a time: eight products, summed as a tree, times the block's scale, added to one vector. Floats are
// added up in order. So a row's result does not depend on its companions.
//
// Measured on one thread (2-core Sapphire Rapids VM; Node 20, and the relaxed build in Node 24), GFLOP/s with 1, 4 and 16 rows:
// bf16 896x4864 22, 32, 32 (25, 38, 44), 256x768 17, 28, 28 (17, 34, 40); f32 896x4864 37, 30, 36 (29, 38, 46).
// One row on a 2-core Zen 5 VM, Node 20: q8 0.51 ms (9 GB/s), q4 0.62 ms (4 GB/s), bound by unpacking, not by memory (20 GB/s).
// Beside each other on a slower one (EPYC VM): q8 1.04 ms, q4 1.15, q4a 1.37, since it adds up each block of x too.
// All products of one token of Qwen2.5-0.5B's shape (q4, q8 table): 67 ms on one thread, 38 ms on two.

import { BLOCK, Q4_BYTES, Q4A_BYTES, Q8_BYTES } from '../sdk/blocks'
import { madd, shareEnd, shareStart, sum4 } from './common'
import { BF16, F16, F32, half, highNibbles, loadFloat, loadFloat4, lowNibbles, Q4, Q4A, Q8, rowBytes } from './pack'

/** Rows of w that a thread takes at a time. */
const UNIT: i32 = 16

/** Up to as many rows go through `gemv`; from there on packing the weights pays. */
// @ts-ignore: decorator
@inline
export function fewRows(dtype: i32): i32 {
  return dtype <= BF16 ? 16 : 2
}

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

/** start (0: bias, or 0) + scale * sum to y, of row o of w; `at`: bytes from y's and start's beginning. */
// @ts-ignore: decorator
@inline
function put(
  y: usize, start: usize, at: usize, bias: usize, biasType: i32, o: i32, scale: f32, sum: f32,
): void {
  const base: f32 = start ? load<f32>(start + at) : bias ? loadFloat(biasType, bias, o) : 0
  store<f32>(y + at, base + scale * sum)
}

/** The four sums of a row, and what a last element or more, less than 8, add. */
// @ts-ignore: decorator
@inline
function total(sums: v128, dtype: i32, w: usize, x: usize, count: i32): f32 {
  let sum = sum4(sums)
  for (let k = 0; k < (count & 7); k++, x += 4) sum += loadFloat(dtype, w, k) * load<f32>(x)
  return sum
}

/**
 * gemv of f32, f16 or bf16: each of a row's four sums runs in order of k, so that tiles of two rows of w by four of x and of four by
 * one give the same bits.
 */
// @ts-ignore: decorator
@inline
function floats(
  dtype: i32, x: usize, w: usize, bias: usize, biasType: i32, start: usize, y: usize, rows: i32, inputs: i32,
  outputs: i32, scale: f32, thread: i32, threads: i32,
): void {
  const rowSize = rowBytes(dtype, inputs)
  const block = rowBytes(dtype, 8)
  const stride = (<usize>inputs) << 2
  const step = (<usize>outputs) << 2
  const whole = (<usize>(inputs & ~7)) << 2
  const end = shareEnd(outputs, UNIT, thread, threads)
  for (let first = shareStart(outputs, UNIT, thread, threads); first < end; first += UNIT) {
    const last = min(end, first + UNIT)
    let r = 0
    for (; r + 4 <= rows; r += 4)
      for (let o = first; o < last; o += 2) {
        const isPair = o + 1 < last
        let p0 = w + <usize>o * rowSize
        let p1 = isPair ? p0 + rowSize : p0
        let x0 = x + <usize>r * stride
        let x1 = x0 + stride
        let x2 = x1 + stride
        let x3 = x2 + stride
        let s00 = f32x4.splat(0)
        let s01 = s00
        let s02 = s00
        let s03 = s00
        let s10 = s00
        let s11 = s00
        let s12 = s00
        let s13 = s00
        for (const to = x0 + whole; x0 < to; x0 += 32, x1 += 32, x2 += 32, x3 += 32, p0 += block, p1 += block) {
          let w0 = loadFloat4(dtype, p0, 0)
          let w1 = loadFloat4(dtype, p1, 0)
          let v = v128.load(x0)
          s00 = madd(w0, v, s00)
          s10 = madd(w1, v, s10)
          v = v128.load(x1)
          s01 = madd(w0, v, s01)
          s11 = madd(w1, v, s11)
          v = v128.load(x2)
          s02 = madd(w0, v, s02)
          s12 = madd(w1, v, s12)
          v = v128.load(x3)
          s03 = madd(w0, v, s03)
          s13 = madd(w1, v, s13)
          w0 = loadFloat4(dtype, p0, 4)
          w1 = loadFloat4(dtype, p1, 4)
          v = v128.load(x0, 16)
          s00 = madd(w0, v, s00)
          s10 = madd(w1, v, s10)
          v = v128.load(x1, 16)
          s01 = madd(w0, v, s01)
          s11 = madd(w1, v, s11)
          v = v128.load(x2, 16)
          s02 = madd(w0, v, s02)
          s12 = madd(w1, v, s12)
          v = v128.load(x3, 16)
          s03 = madd(w0, v, s03)
          s13 = madd(w1, v, s13)
        }
        let at = <usize>r * step + ((<usize>o) << 2)
        put(y, start, at, bias, biasType, o, scale, total(s00, dtype, p0, x0, inputs))
        if (isPair) put(y, start, at + 4, bias, biasType, o + 1, scale, total(s10, dtype, p1, x0, inputs))
        at += step
        put(y, start, at, bias, biasType, o, scale, total(s01, dtype, p0, x1, inputs))
        if (isPair) put(y, start, at + 4, bias, biasType, o + 1, scale, total(s11, dtype, p1, x1, inputs))
        at += step
        put(y, start, at, bias, biasType, o, scale, total(s02, dtype, p0, x2, inputs))
        if (isPair) put(y, start, at + 4, bias, biasType, o + 1, scale, total(s12, dtype, p1, x2, inputs))
        at += step
        put(y, start, at, bias, biasType, o, scale, total(s03, dtype, p0, x3, inputs))
        if (isPair) put(y, start, at + 4, bias, biasType, o + 1, scale, total(s13, dtype, p1, x3, inputs))
      }
    for (; r < rows; r++)
      for (let o = first; o < last; o += 4) {
        const others = last - o
        let p0 = w + <usize>o * rowSize
        let p1 = others > 1 ? p0 + rowSize : p0
        let p2 = others > 2 ? p1 + rowSize : p0
        let p3 = others > 3 ? p2 + rowSize : p0
        let x0 = x + <usize>r * stride
        let s0 = f32x4.splat(0)
        let s1 = s0
        let s2 = s0
        let s3 = s0
        for (const to = x0 + whole; x0 < to; x0 += 32, p0 += block, p1 += block, p2 += block, p3 += block) {
          let v = v128.load(x0)
          s0 = madd(loadFloat4(dtype, p0, 0), v, s0)
          s1 = madd(loadFloat4(dtype, p1, 0), v, s1)
          s2 = madd(loadFloat4(dtype, p2, 0), v, s2)
          s3 = madd(loadFloat4(dtype, p3, 0), v, s3)
          v = v128.load(x0, 16)
          s0 = madd(loadFloat4(dtype, p0, 4), v, s0)
          s1 = madd(loadFloat4(dtype, p1, 4), v, s1)
          s2 = madd(loadFloat4(dtype, p2, 4), v, s2)
          s3 = madd(loadFloat4(dtype, p3, 4), v, s3)
        }
        const at = <usize>r * step + ((<usize>o) << 2)
        put(y, start, at, bias, biasType, o, scale, total(s0, dtype, p0, x0, inputs))
        if (others > 1) put(y, start, at + 4, bias, biasType, o + 1, scale, total(s1, dtype, p1, x0, inputs))
        if (others > 2) put(y, start, at + 8, bias, biasType, o + 2, scale, total(s2, dtype, p2, x0, inputs))
        if (others > 3) put(y, start, at + 12, bias, biasType, o + 3, scale, total(s3, dtype, p3, x0, inputs))
      }
  }
}

function gemvF32(
  x: usize, w: usize, bias: usize, biasType: i32, start: usize, y: usize, rows: i32, inputs: i32, outputs: i32, scale: f32,
  thread: i32, threads: i32,
): void {
  floats(F32, x, w, bias, biasType, start, y, rows, inputs, outputs, scale, thread, threads)
}

function gemvF16(
  x: usize, w: usize, bias: usize, biasType: i32, start: usize, y: usize, rows: i32, inputs: i32, outputs: i32, scale: f32,
  thread: i32, threads: i32,
): void {
  floats(F16, x, w, bias, biasType, start, y, rows, inputs, outputs, scale, thread, threads)
}

function gemvBf16(
  x: usize, w: usize, bias: usize, biasType: i32, start: usize, y: usize, rows: i32, inputs: i32, outputs: i32, scale: f32,
  thread: i32, threads: i32,
): void {
  floats(BF16, x, w, bias, biasType, start, y, rows, inputs, outputs, scale, thread, threads)
}

/**
 * y[rows, O] = base + scale * x[rows, I] . w[O, I]: base is the bias b[O] (0: none) or, where `start` is not 0, the
 * rows of start[rows, O].
 */
export function gemv(
  x: usize, w: usize, dtype: i32, bias: usize, biasType: i32, start: usize, y: usize, rows: i32, inputs: i32,
  outputs: i32, scale: f32, thread: i32, threads: i32,
): void {
  if (dtype == F32) return gemvF32(x, w, bias, biasType, start, y, rows, inputs, outputs, scale, thread, threads)
  if (dtype == F16) return gemvF16(x, w, bias, biasType, start, y, rows, inputs, outputs, scale, thread, threads)
  if (dtype == BF16) return gemvBf16(x, w, bias, biasType, start, y, rows, inputs, outputs, scale, thread, threads)
  const rowSize = rowBytes(dtype, inputs)
  const end = shareEnd(outputs, UNIT, thread, threads)
  for (let o = shareStart(outputs, UNIT, thread, threads); o < end; o++) {
    const row = w + <usize>o * rowSize
    const b: f32 = bias ? loadFloat(biasType, bias, o) : 0
    for (let r = 0; r < rows; r++) {
      const xr = x + ((<usize>(r * inputs)) << 2)
      const at = (<usize>(r * outputs + o)) << 2
      let sum: f32
      if (dtype == Q4) sum = dotQ4(row, xr, inputs)
      else if (dtype == Q4A) sum = dotQ4A(row, xr, inputs)
      else sum = dotQ8(row, xr, inputs)
      store<f32>(y + at, (start ? load<f32>(start + at) : b) + scale * sum)
    }
  }
}
