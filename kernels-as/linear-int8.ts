// y[N, O] = bias + x[N, I] * w[O, I]ᵀ with x rounded to int8 in blocks of 32: w of q8, q4 or q4a is multiplied as the integers that it holds.
// Beside q8, whose products are of i16 in any case, x has 16 bits: that costs nothing, and 32 products stay below 2^28.
//
// A block of x is 32 integers q = round(x / s), s = max|x| / 127 (32767), and their sum. A block's product with one of w is a sum of integers,
// exact in any order; then y += (s_w * s_x) * sum, of q4a + m_w * (s_x * Σq), block after block. So a row's bits depend neither on
// the number of rows, nor on threads, nor on the instructions.
//
// Integers of x lie as i16, of each 16 the even ones before the odd ones: as two shifts of a vector of w's bytes give them. Up to FEW_ROWS
// rows take w straight from its bytes, four rows of w at a time. More: eight rows of w are packed once for as many rows of x as fit L2,
// and tiles of 4 x 8 sums stay in vectors whose lanes are rows of w, by i32x4.dot_i16x8_s. The relaxed build can multiply nibbles by
// four bytes at a time instead (`quads`), where the engine has an instruction for it: V8 of Node 24, not of 22.
// Threads split the rows of w; each rounds x for itself, which costs less than a barrier, also where it has no rows: another product may go on
// with what was rounded.
//
// Measured on one thread at 896x4864 (2-core Sapphire Rapids VM, Node 24), GFLOP/s with 1, 16 and 128 rows: q8 33, 67, 73; q4a 31, 62, 71, by
// quads 31, 95, 114. The roofs are 94 for i16 and 186 for quads (57 for f32 by relaxed madd). One row of a table of 145 MB: 11 GB/s of 15.
import { BLOCK, Q4_BYTES, Q4A_BYTES, Q8_BYTES } from '../sdk/blocks'
import { addProducts, lines, shareEnd, shareStart } from './common'
import { half4, loadFloat, Q4, Q4A, Q8, rowBytes } from './pack'

const FEW_ROWS: i32 = 3
/** Up to as many the time goes by how fast w comes from memory. */
const FAR_ROWS: i32 = 32
/** Bytes of a block of x: 32 i16 (or i8), its scale as f32, scale * sum as f32, sum as i32, a mask of nibbles. */
const X_BYTES: usize = 80
/** Bytes of four blocks of w, one of each row: 4 x 32 i16, scales and minima as f32. */
const PANEL_BYTES: usize = 288
/** Bytes of x that go with each packed piece of w: half of an L2. */
const X_AT_ONCE: i32 = 1 << 19

/** Rows of x that one packed piece of w serves. */
// @ts-ignore: decorator
@inline
function rowsAtOnce(inputs: i32): i32 {
  return max(16, (X_AT_ONCE / ((inputs / BLOCK) * <i32>X_BYTES)) & ~3)
}

/** Bytes of scratch that one thread needs. */
export function linearInt8Scratch(rows: i32, inputs: i32): usize {
  const blocks = <usize>(inputs / BLOCK)
  return lines(<usize>min(rows, rowsAtOnce(inputs)) * blocks * X_BYTES) + 192 + lines(blocks * 2 * PANEL_BYTES)
}

/** The sign's mask, and 1.5 * 2^23: added to a float it leaves the nearest integer (of two as near the even one) in its last bits. */
const ROUND = memory.data<u32>([0x7fffffff, 0x4b400000])

/** The greater of m and |x|, as bits: so NaN is the greatest of all. */
// @ts-ignore: decorator
@inline
function absMax(x: usize, m: v128): v128 {
  return i32x4.max_s(v128.and(v128.load(x), v128.load32_splat(ROUND)), m)
}

/** Four floats times f, to the nearest integers. */
// @ts-ignore: decorator
@inline
function round4(x: usize, f: v128): v128 {
  const magic = v128.load32_splat(ROUND, 4)
  return i32x4.sub(f32x4.add(f32x4.mul(v128.load(x), f), magic), magic)
}

/** 16 numbers of a block; returns them added up in pairs and more. */
// @ts-ignore: decorator
@inline
function round16(x: usize, f: v128, isQuads: bool, to: usize): v128 {
  const a = round4(x, f)
  const b = round4(x + 16, f)
  const c = round4(x + 32, f)
  const d = round4(x + 48, f)
  if (isQuads) {
    v128.store(to, i8x16.narrow_i16x8_s(i16x8.narrow_i32x4_s(a, b), i16x8.narrow_i32x4_s(c, d)))
  } else {
    v128.store(to, i16x8.narrow_i32x4_s(v128.shuffle<i32>(a, b, 0, 2, 4, 6), v128.shuffle<i32>(c, d, 0, 2, 4, 6)))
    v128.store(to, i16x8.narrow_i32x4_s(v128.shuffle<i32>(a, b, 1, 3, 5, 7), v128.shuffle<i32>(c, d, 1, 3, 5, 7)), 16)
  }
  return i32x4.add(i32x4.add(a, b), i32x4.add(c, d))
}

/** `blocks` blocks of one row of x to integers up to `most`. A row that is not finite gets a scale that is not. */
function roundRow(x: usize, blocks: i32, isQuads: bool, most: f32, to: usize): void {
  for (let b = 0; b < blocks; b++, x += BLOCK << 2, to += X_BYTES) {
    let m = i32x4.splat(0)
    for (let i: usize = 0; i < 128; i += 16) m = absMax(x + i, m)
    const n = i32x4.max_s(m, v128.shuffle<i64>(m, m, 1, 0))
    const largest = reinterpret<f32>(max(i32x4.extract_lane(n, 0), i32x4.extract_lane(n, 1)))
    const scale: f32 = largest / most
    const f = f32x4.splat(largest > 0 ? most / largest : 0)
    const half = round16(x, f, isQuads, to)
    const sums = i32x4.add(half, round16(x + 64, f, isQuads, to + <usize>(isQuads ? 16 : 32)))
    const two = i32x4.add(sums, v128.shuffle<i64>(sums, sums, 1, 0))
    const sum = i32x4.extract_lane(two, 0) + i32x4.extract_lane(two, 1)
    store<f32>(to, scale, 64)
    store<f32>(to, scale * <f32>sum, 68)
    store<i32>(to, sum, 72)
    store<i32>(to, 0x000f000f, 76)
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
function dot(isNibbles: bool, w: usize, x: usize, mask: v128): v128 {
  let a: v128
  let b: v128
  let c: v128
  let d: v128
  const bytes = v128.load(w)
  if (isNibbles) {
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
  // From memory: engines make a constant anew each time.
  const mask = v128.load32_splat(x, 76)
  for (const end = x + <usize>blocks * X_BYTES; x < end; x += X_BYTES) {
    const isNibbles = dtype != Q8
    const sums = sums4(
      dot(isNibbles, w0 + head, x, mask), dot(isNibbles, w1 + head, x, mask), dot(isNibbles, w2 + head, x, mask),
      dot(isNibbles, w3 + head, x, mask),
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

/** Four vectors of four 32-bit lanes, lane by lane: 64 bytes. */
// @ts-ignore: decorator
@inline
function storeTransposed(a: v128, b: v128, c: v128, d: v128, to: usize): void {
  const ab = v128.shuffle<i32>(a, b, 0, 4, 1, 5)
  const cd = v128.shuffle<i32>(c, d, 0, 4, 1, 5)
  const ef = v128.shuffle<i32>(a, b, 2, 6, 3, 7)
  const gh = v128.shuffle<i32>(c, d, 2, 6, 3, 7)
  v128.store(to, v128.shuffle<i64>(ab, cd, 0, 2))
  v128.store(to, v128.shuffle<i64>(ab, cd, 1, 3), 16)
  v128.store(to, v128.shuffle<i64>(ef, gh, 0, 2), 32)
  v128.store(to, v128.shuffle<i64>(ef, gh, 1, 3), 48)
}

/**
 * Four rows of w, a block each, to vectors whose lane r is row r: 16 of pairs of i16 (8 of quads of bytes), in the order of x's integers.
 * Behind them scales and minima as f32.
 */
// @ts-ignore: decorator
@inline
function pack(dtype: i32, isQuads: bool, w0: usize, w1: usize, w2: usize, w3: usize, to: usize): void {
  v128.store(to, halves(w0, w1, w2, w3), 256)
  if (dtype == Q4A) v128.store(to, halves(w0 + 2, w1 + 2, w2 + 2, w3 + 2), 272)
  const head: usize = dtype == Q4A ? 4 : 2
  const a = v128.load(w0 + head)
  const b = v128.load(w1 + head)
  const c = v128.load(w2 + head)
  const d = v128.load(w3 + head)
  if (dtype == Q8) {
    packBytes(a, b, c, d, to)
    packBytes(v128.load(w0 + 18), v128.load(w1 + 18), v128.load(w2 + 18), v128.load(w3 + 18), to + 128)
  } else if (isQuads) {
    const low = i8x16.splat(15)
    storeTransposed(v128.and(a, low), v128.and(b, low), v128.and(c, low), v128.and(d, low), to)
    storeTransposed(i8x16.shr_u(a, 4), i8x16.shr_u(b, 4), i8x16.shr_u(c, 4), i8x16.shr_u(d, 4), to + 64)
  } else {
    packNibbles(0, a, b, c, d, to)
    packNibbles(8, a, b, c, d, to + 64)
    packNibbles(4, a, b, c, d, to + 128)
    packNibbles(12, a, b, c, d, to + 192)
  }
}

/** 16 signed bytes of each row. */
// @ts-ignore: decorator
@inline
function packBytes(a: v128, b: v128, c: v128, d: v128, to: usize): void {
  storeTransposed(evens(a), evens(b), evens(c), evens(d), to)
  storeTransposed(i16x8.shr_s(a, 8), i16x8.shr_s(b, 8), i16x8.shr_s(c, 8), i16x8.shr_s(d, 8), to + 64)
}

/** The nibbles `shift` bits above the lowest of each 16. */
// @ts-ignore: decorator
@inline
function packNibbles(shift: i32, a: v128, b: v128, c: v128, d: v128, to: usize): void {
  const low = i16x8.splat(15)
  storeTransposed(
    v128.and(i16x8.shr_u(a, shift), low), v128.and(i16x8.shr_u(b, shift), low), v128.and(i16x8.shr_u(c, shift), low),
    v128.and(i16x8.shr_u(d, shift), low), to,
  )
}

/** What four rows of x and eight of w (two panels) give: tile [4, 8] floats. */
// @ts-ignore: decorator
@inline
function micro(
  dtype: i32, isQuads: bool, x0: usize, x1: usize, x2: usize, x3: usize, panel: usize, blocks: i32, tile: usize,
): void {
  memory.fill(tile, 0, 128)
  const bytes: usize = isQuads ? 32 : 64
  for (const end = x0 + <usize>blocks * X_BYTES; x0 < end; panel += 2 * PANEL_BYTES) {
    let a0 = i32x4.splat(0)
    let a1 = a0
    let a2 = a0
    let a3 = a0
    let b0 = a0
    let b1 = a0
    let b2 = a0
    let b3 = a0
    let w = panel
    for (let k: usize = 0; k < bytes; k += 4, w += 16) {
      const p = v128.load(w)
      const q = v128.load(w, PANEL_BYTES)
      let x = v128.load32_splat(x0 + k)
      a0 = addProducts(isQuads, x, p, a0)
      b0 = addProducts(isQuads, x, q, b0)
      x = v128.load32_splat(x1 + k)
      a1 = addProducts(isQuads, x, p, a1)
      b1 = addProducts(isQuads, x, q, b1)
      x = v128.load32_splat(x2 + k)
      a2 = addProducts(isQuads, x, p, a2)
      b2 = addProducts(isQuads, x, q, b2)
      x = v128.load32_splat(x3 + k)
      a3 = addProducts(isQuads, x, p, a3)
      b3 = addProducts(isQuads, x, q, b3)
    }
    addTo(tile, dtype, a0, panel, x0)
    addTo(tile + 32, dtype, a1, panel, x1)
    addTo(tile + 64, dtype, a2, panel, x2)
    addTo(tile + 96, dtype, a3, panel, x3)
    addTo(tile + 16, dtype, b0, panel + PANEL_BYTES, x0)
    addTo(tile + 48, dtype, b1, panel + PANEL_BYTES, x1)
    addTo(tile + 80, dtype, b2, panel + PANEL_BYTES, x2)
    addTo(tile + 112, dtype, b3, panel + PANEL_BYTES, x3)
    x0 += X_BYTES
    x1 += X_BYTES
    x2 += X_BYTES
    x3 += X_BYTES
  }
}

// @ts-ignore: decorator
@inline
function addTo(y: usize, dtype: i32, sums: v128, panel: usize, x: usize): void {
  v128.store(y, added(v128.load(y), dtype, sums, v128.load(panel, 256), v128.load(panel, 272), x))
}

/**
 * y[rows, first..end] for up to FEW_ROWS rows of x. Four rows of w that lie a quarter of all apart: four streams in pages of their own,
 * which the processor prefetches; four in one page it does not.
 */
// @ts-ignore: decorator
@inline
function fewRows(
  dtype: i32, blockBytes: usize, x: usize, rows: i32, blocks: i32, w: usize, rowSize: usize, bias: usize, biasType: i32, y: usize,
  O: i32, first: i32, end: i32,
): void {
  const quarter = (end - first + 3) >> 2
  for (let i = 0; i < quarter; i++) {
    const o0 = first + i
    const o1 = min(o0 + quarter, end - 1)
    const o2 = min(o0 + 2 * quarter, end - 1)
    const o3 = min(o0 + 3 * quarter, end - 1)
    for (let r = 0; r < rows; r++) {
      const sums = direct(
        dtype, blockBytes, w + <usize>o0 * rowSize, w + <usize>o1 * rowSize, w + <usize>o2 * rowSize,
        w + <usize>o3 * rowSize, x + <usize>(r * blocks) * X_BYTES, blocks,
      )
      const row = y + ((<usize>r * O) << 2)
      putOne(row, o0, f32x4.extract_lane(sums, 0), bias, biasType)
      putOne(row, o1, f32x4.extract_lane(sums, 1), bias, biasType)
      putOne(row, o2, f32x4.extract_lane(sums, 2), bias, biasType)
      putOne(row, o3, f32x4.extract_lane(sums, 3), bias, biasType)
    }
  }
}

// @ts-ignore: decorator
@inline
function putOne(y: usize, o: i32, sum: f32, bias: usize, biasType: i32): void {
  store<f32>(y + (<usize>o << 2), bias ? loadFloat(biasType, bias, o) + sum : sum)
}

/**
 * y[rows, first..end], eight rows of w at a time: next to each other, or where there are few rows of x an eighth of all apart (see fewRows).
 * Rows past the last are the last again.
 */
// @ts-ignore: decorator
@inline
function manyRows(
  dtype: i32, isQuads: bool, blockBytes: usize, x: usize, rows: i32, blocks: i32, w: usize, rowSize: usize, bias: usize,
  biasType: i32, y: usize, O: i32, first: i32, end: i32, tile: usize,
): void {
  const xRow = <usize>blocks * X_BYTES
  const base = tile + 128
  const panels = base + 64
  const isFar = rows <= FAR_ROWS
  const apart = isFar ? (end - first + 7) >> 3 : 1
  const until = isFar ? first + apart : end
  for (let o = first; o < until; o += isFar ? 1 : 8) {
    for (let half = 0; half < 2; half++) {
      const c = o + half * 4 * apart
      let w0 = w + <usize>min(c, end - 1) * rowSize
      let w1 = w + <usize>min(c + apart, end - 1) * rowSize
      let w2 = w + <usize>min(c + 2 * apart, end - 1) * rowSize
      let w3 = w + <usize>min(c + 3 * apart, end - 1) * rowSize
      let to = panels + <usize>half * PANEL_BYTES
      for (let b = 0; b < blocks; b++, to += 2 * PANEL_BYTES) {
        pack(dtype, isQuads, w0, w1, w2, w3, to)
        w0 += blockBytes
        w1 += blockBytes
        w2 += blockBytes
        w3 += blockBytes
      }
    }
    for (let c = 0; c < 8; c++)
      store<f32>(base + (<usize>c << 2), bias ? loadFloat(biasType, bias, min(o + c * apart, end - 1)) : 0)
    const isWhole = !isFar && o + 8 <= end
    for (let r = 0; r < rows; r += 4) {
      const last = rows - 1
      micro(
        dtype, isQuads, x + <usize>r * xRow, x + <usize>min(r + 1, last) * xRow, x + <usize>min(r + 2, last) * xRow,
        x + <usize>min(r + 3, last) * xRow, panels, blocks, tile,
      )
      for (let i = 0; i < min(4, rows - r); i++) {
        const from = tile + (<usize>i << 5)
        const row = y + ((<usize>(r + i) * O) << 2)
        if (isWhole) {
          const to = row + (<usize>o << 2)
          v128.store(to, f32x4.add(v128.load(base), v128.load(from)))
          v128.store(to, f32x4.add(v128.load(base, 16), v128.load(from, 16)), 16)
          continue
        }
        for (let c = 0; c < 8; c++) {
          const at = <usize>c << 2
          store<f32>(row + (<usize>min(o + c * apart, end - 1) << 2), load<f32>(base + at) + load<f32>(from + at))
        }
      }
    }
  }
}

// @ts-ignore: decorator
@inline
function product(
  dtype: i32, blockBytes: usize, x: usize, w: usize, bias: usize, biasType: i32, y: usize, N: i32, I: i32, O: i32,
  quads: bool, again: bool, own: usize, thread: i32, threads: i32,
): void {
  const first = shareStart(O, 16, thread, threads)
  const end = shareEnd(O, 16, thread, threads)
  const rowSize = rowBytes(dtype, I)
  const blocks = I / BLOCK
  const many = rowsAtOnce(I)
  const isQuads = ASC_FEATURE_RELAXED_SIMD && quads && N > FEW_ROWS
  const tile = own + lines(<usize>min(N, many) * <usize>blocks * X_BYTES)
  for (let n = 0; n < N; n += many) {
    const rows = min(many, N - n)
    const to = y + ((<usize>n * O) << 2)
    for (let r = 0; r < rows && !(again && N <= many); r++)
      roundRow(
        x + ((<usize>(n + r) * I) << 2), blocks, isQuads, dtype == Q8 ? 32767 : 127, own + <usize>(r * blocks) * X_BYTES,
      )
    if (N <= FEW_ROWS)
      fewRows(dtype, blockBytes, own, rows, blocks, w, rowSize, bias, biasType, to, O, first, end)
    else if (isQuads)
      manyRows(dtype, true, blockBytes, own, rows, blocks, w, rowSize, bias, biasType, to, O, first, end, tile)
    else
      manyRows(dtype, false, blockBytes, own, rows, blocks, w, rowSize, bias, biasType, to, O, first, end, tile)
  }
}

function ofType(
  x: usize, w: usize, dtype: i32, bias: usize, biasType: i32, y: usize, N: i32, I: i32, O: i32, quads: bool, again: bool,
  scratch: usize, scratchSize: usize, thread: i32, threads: i32,
): void {
  const own = scratch + <usize>thread * scratchSize
  if (dtype == Q8) product(Q8, Q8_BYTES, x, w, bias, biasType, y, N, I, O, false, again, own, thread, threads)
  else if (dtype == Q4) product(Q4, Q4_BYTES, x, w, bias, biasType, y, N, I, O, quads, again, own, thread, threads)
  else product(Q4A, Q4A_BYTES, x, w, bias, biasType, y, N, I, O, quads, again, own, thread, threads)
}

/** y[N, O] = bias + x[N, I] * wᵀ, w of a quantized type. `quads`: nibbles by the relaxed dot product. */
export function linearInt8(
  x: usize, w: usize, dtype: i32, bias: usize, biasType: i32, y: usize, N: i32, I: i32, O: i32, quads: bool,
  scratch: usize, scratchSize: usize, thread: i32, threads: i32,
): void {
  ofType(x, w, dtype, bias, biasType, y, N, I, O, quads, false, scratch, scratchSize, thread, threads)
}

/** As linearInt8, after a call with the same x and scratch that rounded x to the same layout: it is still there. */
export function linearInt8Again(
  x: usize, w: usize, dtype: i32, bias: usize, biasType: i32, y: usize, N: i32, I: i32, O: i32, quads: bool,
  scratch: usize, scratchSize: usize, thread: i32, threads: i32,
): void {
  ofType(x, w, dtype, bias, biasType, y, N, I, O, quads, true, scratch, scratchSize, thread, threads)
}
