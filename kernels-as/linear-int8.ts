// y[N, O] = bias + x[N, I] * w[O, I]ᵀ with x rounded to int8 in blocks of 32: w of q8, q4 or q4a is multiplied as the integers that it holds.
//
// A block of x is 32 integers q = round(x / s), s = max|x| / 127, and their sum. A block's product with one of w is a sum of integers,
// exact in any order; then y += (s_w * s_x) * sum, of q4a + m_w * (s_x * Σq), block after block. So a row's bits depend neither on
// the number of rows nor on threads. Integers of x lie as i16, of each 16 the even ones before the odd ones: as two shifts of a vector of w's
// bytes give them.
//
// One row takes w straight from its bytes, four rows of w at a time. More rows: four rows of w are unpacked to i16 once (`panel`) for up to
// ROWS rows of x, DEPTH elements at a time. Threads split the rows of w; each rounds x for itself, which costs less than a barrier.
import { BLOCK, Q4_BYTES, Q4A_BYTES, Q8_BYTES } from '../sdk/blocks'
import { lines, max4, shareEnd, shareStart } from './common'
import { half4, loadFloat, Q4, Q4A, Q8, rowBytes } from './pack'

/** Rows of x that one unpacked piece of w serves. */
const ROWS: i32 = 64
/** Elements of a piece of four rows of w: 8.5 kB unpacked. */
const DEPTH: i32 = 1024
/** Bytes of a block of x: 32 i16, its scale as f32, scale * sum as f32, sum as i32, and room to keep vectors apart. */
const X_BYTES: usize = 80
/** Bytes of four blocks of w, one of each row: 4 x 32 i16, scales and minima as f32. */
const PANEL_BYTES: usize = 288

/** Bytes of scratch that one thread needs. */
export function linearInt8Scratch(rows: i32, inputs: i32): usize {
  const blocks = <usize>(inputs / BLOCK)
  return lines(<usize>min(rows, ROWS) * blocks * X_BYTES) + <usize>(DEPTH / BLOCK) * PANEL_BYTES
}

// @ts-ignore: decorator
@inline
function absMax(at: usize, a: v128): v128 {
  return f32x4.max(a, f32x4.abs(v128.load(at)))
}

/** Eight floats times f, to the nearest integers as i16. */
// @ts-ignore: decorator
@inline
function round8(x: usize, f: v128): v128 {
  const a = i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(v128.load(x), f)))
  const b = i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(v128.load(x, 16), f)))
  return i16x8.narrow_i32x4_s(a, b)
}

/** `blocks` blocks of one row of x. A row that is not finite gets a scale that is not. */
function roundRow(x: usize, blocks: i32, to: usize): void {
  for (let b = 0; b < blocks; b++, x += BLOCK << 2, to += X_BYTES) {
    let m = f32x4.splat(0)
    for (let i: usize = 0; i < 128; i += 16) m = absMax(x + i, m)
    const largest = max4(m)
    const scale: f32 = largest / 127
    const f = f32x4.splat(largest > 0 ? 127 / largest : 0)
    const q0 = round8(x, f)
    const q1 = round8(x + 32, f)
    const q2 = round8(x + 64, f)
    const q3 = round8(x + 96, f)
    v128.store(to, v128.shuffle<i16>(q0, q1, 0, 2, 4, 6, 8, 10, 12, 14))
    v128.store(to, v128.shuffle<i16>(q0, q1, 1, 3, 5, 7, 9, 11, 13, 15), 16)
    v128.store(to, v128.shuffle<i16>(q2, q3, 0, 2, 4, 6, 8, 10, 12, 14), 32)
    v128.store(to, v128.shuffle<i16>(q2, q3, 1, 3, 5, 7, 9, 11, 13, 15), 48)
    const sums = i32x4.extadd_pairwise_i16x8_s(i16x8.add(i16x8.add(q0, q1), i16x8.add(q2, q3)))
    const sum =
      i32x4.extract_lane(sums, 0) + i32x4.extract_lane(sums, 1) + i32x4.extract_lane(sums, 2) +
      i32x4.extract_lane(sums, 3)
    store<f32>(to, scale, 64)
    store<f32>(to, scale * <f32>sum, 68)
    store<i32>(to, sum, 72)
  }
}

/** Lanes of four vectors added up: [Σa, Σb, Σc, Σd]. */
// @ts-ignore: decorator
@inline
function sums4(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = i32x4.add(v128.shuffle<i32>(a, b, 0, 4, 1, 5), v128.shuffle<i32>(a, b, 2, 6, 3, 7))
  const cd = i32x4.add(v128.shuffle<i32>(c, d, 0, 4, 1, 5), v128.shuffle<i32>(c, d, 2, 6, 3, 7))
  return i32x4.add(v128.shuffle<i64>(ab, cd, 0, 2), v128.shuffle<i64>(ab, cd, 1, 3))
}

/** The even bytes of 16 signed ones as i16. */
// @ts-ignore: decorator
@inline
function evens(bytes: v128): v128 {
  return i16x8.shr_s(i16x8.shl(bytes, 8), 8)
}

/** Of one block of w (integers from `w`, of q4 and q4a as 0..15) with one of x: four sums. */
// @ts-ignore: decorator
@inline
function dot(isNibbles: bool, w: usize, x: usize): v128 {
  let a: v128
  let b: v128
  let c: v128
  let d: v128
  const bytes = v128.load(w)
  if (isNibbles) {
    const mask = i16x8.splat(15)
    a = v128.and(bytes, mask)
    b = v128.and(i16x8.shr_u(bytes, 8), mask)
    c = v128.and(i16x8.shr_u(bytes, 4), mask)
    d = i16x8.shr_u(bytes, 12)
  } else {
    const more = v128.load(w, 16)
    a = evens(bytes)
    b = i16x8.shr_s(bytes, 8)
    c = evens(more)
    d = i16x8.shr_s(more, 8)
  }
  return i32x4.add(
    i32x4.add(i32x4.dot_i16x8_s(a, v128.load(x)), i32x4.dot_i16x8_s(b, v128.load(x, 16))),
    i32x4.add(i32x4.dot_i16x8_s(c, v128.load(x, 32)), i32x4.dot_i16x8_s(d, v128.load(x, 48))),
  )
}

/** As dot, of a block of a panel. */
// @ts-ignore: decorator
@inline
function dotPanel(w: usize, x0: v128, x1: v128, x2: v128, x3: v128): v128 {
  return i32x4.add(
    i32x4.add(i32x4.dot_i16x8_s(x0, v128.load(w)), i32x4.dot_i16x8_s(x1, v128.load(w, 16))),
    i32x4.add(i32x4.dot_i16x8_s(x2, v128.load(w, 32)), i32x4.dot_i16x8_s(x3, v128.load(w, 48))),
  )
}

/** The f16 at four addresses as f32. */
// @ts-ignore: decorator
@inline
function halves(w0: usize, w1: usize, w2: usize, w3: usize): v128 {
  const a = v128.load16_lane(w0, i32x4.splat(0), 0)
  const b = v128.load16_lane(w1, a, 2)
  return half4(v128.load16_lane(w3, v128.load16_lane(w2, b, 4), 6))
}

/** y + what one block of four rows of w gives with one of x: sums of integers, scales of w, of q4a its minima. */
// @ts-ignore: decorator
@inline
function added(y: v128, dtype: i32, sums: v128, scale: v128, minimum: v128, x: usize): v128 {
  const whole = dtype == Q4 ? i32x4.sub(sums, i32x4.shl(v128.load32_splat(x, 72), 3)) : sums
  const product = f32x4.mul(f32x4.convert_i32x4_s(whole), f32x4.mul(scale, v128.load32_splat(x, 64)))
  if (dtype == Q4A) y = f32x4.add(y, f32x4.mul(minimum, v128.load32_splat(x, 68)))
  return f32x4.add(y, product)
}

/** y for four rows of w and one of x, from w's bytes. */
// @ts-ignore: decorator
@inline
function direct(dtype: i32, bytes: usize, w0: usize, w1: usize, w2: usize, w3: usize, x: usize, blocks: i32): v128 {
  const head: usize = dtype == Q4A ? 4 : 2
  let y = f32x4.splat(0)
  let minimum = y
  for (const end = x + <usize>blocks * X_BYTES; x < end; x += X_BYTES) {
    const isNibbles = dtype != Q8
    const sums = sums4(
      dot(isNibbles, w0 + head, x), dot(isNibbles, w1 + head, x), dot(isNibbles, w2 + head, x),
      dot(isNibbles, w3 + head, x),
    )
    if (dtype == Q4A) minimum = halves(w0 + 2, w1 + 2, w2 + 2, w3 + 2)
    y = added(y, dtype, sums, halves(w0, w1, w2, w3), minimum, x)
    w0 += bytes
    w1 += bytes
    w2 += bytes
    w3 += bytes
  }
  return y
}

/** Four rows of w, `blocks` blocks each, to [block][row][32 i16], then four scales and four minima. */
// @ts-ignore: decorator
@inline
function panel(dtype: i32, bytes: usize, w0: usize, w1: usize, w2: usize, w3: usize, blocks: i32, to: usize): void {
  for (const end = to + <usize>blocks * PANEL_BYTES; to < end; to += PANEL_BYTES) {
    v128.store(to, halves(w0, w1, w2, w3), 256)
    if (dtype == Q4A) v128.store(to, halves(w0 + 2, w1 + 2, w2 + 2, w3 + 2), 272)
    unpackBlock(dtype, w0, to)
    unpackBlock(dtype, w1, to + 64)
    unpackBlock(dtype, w2, to + 128)
    unpackBlock(dtype, w3, to + 192)
    w0 += bytes
    w1 += bytes
    w2 += bytes
    w3 += bytes
  }
}

// @ts-ignore: decorator
@inline
function unpackBlock(dtype: i32, w: usize, to: usize): void {
  if (dtype == Q8) {
    const bytes = v128.load(w, 2)
    const more = v128.load(w, 18)
    v128.store(to, evens(bytes))
    v128.store(to, i16x8.shr_s(bytes, 8), 16)
    v128.store(to, evens(more), 32)
    v128.store(to, i16x8.shr_s(more, 8), 48)
    return
  }
  const bytes = v128.load(w + (dtype == Q4A ? 4 : 2))
  const mask = i16x8.splat(15)
  v128.store(to, v128.and(bytes, mask))
  v128.store(to, v128.and(i16x8.shr_u(bytes, 8), mask), 16)
  v128.store(to, v128.and(i16x8.shr_u(bytes, 4), mask), 32)
  v128.store(to, i16x8.shr_u(bytes, 12), 48)
}

/** As direct, of a panel; `y` is what came before. */
// @ts-ignore: decorator
@inline
function byPanel(dtype: i32, w: usize, x: usize, blocks: i32, y: v128): v128 {
  for (const end = x + <usize>blocks * X_BYTES; x < end; x += X_BYTES, w += PANEL_BYTES) {
    const x0 = v128.load(x)
    const x1 = v128.load(x, 16)
    const x2 = v128.load(x, 32)
    const x3 = v128.load(x, 48)
    const sums = sums4(
      dotPanel(w, x0, x1, x2, x3), dotPanel(w + 64, x0, x1, x2, x3), dotPanel(w + 128, x0, x1, x2, x3),
      dotPanel(w + 192, x0, x1, x2, x3),
    )
    y = added(y, dtype, sums, v128.load(w, 256), v128.load(w, 272), x)
  }
  return y
}

/** Up to four floats of a row of y. */
// @ts-ignore: decorator
@inline
function put(y: usize, values: v128, count: i32): void {
  if (count == 4) {
    v128.store(y, values)
    return
  }
  store<f32>(y, f32x4.extract_lane(values, 0))
  if (count > 1) store<f32>(y, f32x4.extract_lane(values, 1), 4)
  if (count > 2) store<f32>(y, f32x4.extract_lane(values, 2), 8)
}

// @ts-ignore: decorator
@inline
function get(y: usize, count: i32): v128 {
  if (count == 4) return v128.load(y)
  const two = v128.load32_lane(y + 4 * <usize>min(1, count - 1), v128.load32_zero(y), 1)
  return v128.load32_lane(y + 4 * <usize>min(2, count - 1), two, 2)
}

/**
 * y[first..end] for one row of x. Its four rows of w lie a quarter of all apart: four streams in pages of their own, which the processor
 * prefetches; four in one page it does not.
 */
// @ts-ignore: decorator
@inline
function oneRow(
  dtype: i32, blockBytes: usize, x: usize, blocks: i32, w: usize, rowSize: usize, bias: usize, biasType: i32, y: usize,
  first: i32, end: i32,
): void {
  const quarter = (end - first + 3) >> 2
  for (let i = 0; i < quarter; i++) {
    const o0 = first + i
    const o1 = min(o0 + quarter, end - 1)
    const o2 = min(o0 + 2 * quarter, end - 1)
    const o3 = min(o0 + 3 * quarter, end - 1)
    const sums = direct(
      dtype, blockBytes, w + <usize>o0 * rowSize, w + <usize>o1 * rowSize, w + <usize>o2 * rowSize,
      w + <usize>o3 * rowSize, x, blocks,
    )
    putOne(y, o0, f32x4.extract_lane(sums, 0), bias, biasType)
    putOne(y, o1, f32x4.extract_lane(sums, 1), bias, biasType)
    putOne(y, o2, f32x4.extract_lane(sums, 2), bias, biasType)
    putOne(y, o3, f32x4.extract_lane(sums, 3), bias, biasType)
  }
}

// @ts-ignore: decorator
@inline
function putOne(y: usize, o: i32, sum: f32, bias: usize, biasType: i32): void {
  store<f32>(y + (<usize>o << 2), bias ? loadFloat(biasType, bias, o) + sum : sum)
}

// @ts-ignore: decorator
@inline
function product(
  dtype: i32, blockBytes: usize, x: usize, w: usize, bias: usize, biasType: i32, y: usize, N: i32, I: i32, O: i32,
  own: usize, thread: i32, threads: i32,
): void {
  const first = shareStart(O, 16, thread, threads)
  const end = shareEnd(O, 16, thread, threads)
  if (first >= end) return
  const rowSize = rowBytes(dtype, I)
  const blocks = I / BLOCK
  const xRow = <usize>blocks * X_BYTES
  const piece = own + lines(<usize>min(N, ROWS) * xRow)
  for (let n = 0; n < N; n += ROWS) {
    const rows = min(ROWS, N - n)
    for (let r = 0; r < rows; r++) roundRow(x + ((<usize>(n + r) * I) << 2), blocks, own + <usize>r * xRow)
    if (rows == 1) {
      oneRow(dtype, blockBytes, own, blocks, w, rowSize, bias, biasType, y + ((<usize>n * O) << 2), first, end)
      continue
    }
    for (let o = first; o < end; o += 4) {
      const count = min(4, end - o)
      const w0 = w + <usize>o * rowSize
      const w1 = w + <usize>min(o + 1, end - 1) * rowSize
      const w2 = w + <usize>min(o + 2, end - 1) * rowSize
      const w3 = w + <usize>min(o + 3, end - 1) * rowSize
      let base = f32x4.splat(0)
      if (bias) {
        base = f32x4.splat(loadFloat(biasType, bias, o))
        if (count > 1) base = f32x4.replace_lane(base, 1, loadFloat(biasType, bias, o + 1))
        if (count > 2) base = f32x4.replace_lane(base, 2, loadFloat(biasType, bias, o + 2))
        if (count > 3) base = f32x4.replace_lane(base, 3, loadFloat(biasType, bias, o + 3))
      }
      const to = y + ((<usize>n * O + <usize>o) << 2)
      for (let b = 0; b < blocks; b += DEPTH / BLOCK) {
        const depth = min(DEPTH / BLOCK, blocks - b)
        const at = <usize>b * blockBytes
        panel(dtype, blockBytes, w0 + at, w1 + at, w2 + at, w3 + at, depth, piece)
        for (let r = 0; r < rows; r++) {
          const row = to + ((<usize>r * O) << 2)
          const before = b > 0 ? get(row, count) : f32x4.splat(0)
          const after = byPanel(dtype, piece, own + <usize>r * xRow + <usize>b * X_BYTES, depth, before)
          put(row, b + depth < blocks ? after : f32x4.add(base, after), count)
        }
      }
    }
  }
}

/** y[N, O] = bias + x[N, I] * wᵀ, w of a quantized type. */
export function linearInt8(
  x: usize, w: usize, dtype: i32, bias: usize, biasType: i32, y: usize, N: i32, I: i32, O: i32, scratch: usize,
  scratchSize: usize, thread: i32, threads: i32,
): void {
  const own = scratch + <usize>thread * scratchSize
  if (dtype == Q8) product(Q8, Q8_BYTES, x, w, bias, biasType, y, N, I, O, own, thread, threads)
  else if (dtype == Q4) product(Q4, Q4_BYTES, x, w, bias, biasType, y, N, I, O, own, thread, threads)
  else product(Q4A, Q4A_BYTES, x, w, bias, biasType, y, N, I, O, own, thread, threads)
}
