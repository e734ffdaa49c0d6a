// Small dense products for attention, all from and to per-thread scratch: C[m, n] (+)= A[m, k] * B[k, n] with
// - A in panels of 4 rows [m/4][k][4] (`productPanels`), or row-major with TILE floats a row (`productTile`),
// - B in panels of 8 columns [n/8][k][8],
// - C row-major. m is a multiple of 4, n of 8, k is free.
// The core is 4 rows x 8 columns: 8 accumulators, 2 loads and 4 broadcasts per 8 multiply-adds.

import { madd } from './common'

/** Keys (or queries) of one tile, and the row length of a tile of scores. */
export const TILE: i32 = 64
const TILE_BYTES: usize = 256

// step: bytes from one k to the next, row: bytes from one row to the next, both within A's four rows
// @ts-ignore: decorator
@inline
function product(
  a: usize, step: usize, row: usize, panel: usize, b: usize, bPanel: usize, c: usize, stride: usize,
  m: i32, n: i32, k: i32, accumulate: bool,
): void {
  for (let j = 0; j < n; j += 8, b += bPanel, c += 32) {
    let ap = a
    let c0 = c
    for (let i = 0; i < m; i += 4, ap += panel, c0 += stride << 2) {
      const c1 = c0 + stride
      const c2 = c1 + stride
      const c3 = c2 + stride
      let s00 = f32x4.splat(0)
      let s01 = f32x4.splat(0)
      let s10 = f32x4.splat(0)
      let s11 = f32x4.splat(0)
      let s20 = f32x4.splat(0)
      let s21 = f32x4.splat(0)
      let s30 = f32x4.splat(0)
      let s31 = f32x4.splat(0)
      let x = ap
      let y = b
      for (let p = k; p > 0; p--, x += step, y += 32) {
        const b0 = v128.load(y)
        const b1 = v128.load(y, 16)
        const a0 = v128.load32_splat(x)
        s00 = madd(a0, b0, s00)
        s01 = madd(a0, b1, s01)
        const a1 = v128.load32_splat(x + row)
        s10 = madd(a1, b0, s10)
        s11 = madd(a1, b1, s11)
        const a2 = v128.load32_splat(x + row * 2)
        s20 = madd(a2, b0, s20)
        s21 = madd(a2, b1, s21)
        const a3 = v128.load32_splat(x + row * 3)
        s30 = madd(a3, b0, s30)
        s31 = madd(a3, b1, s31)
      }
      if (accumulate) {
        s00 = f32x4.add(s00, v128.load(c0))
        s01 = f32x4.add(s01, v128.load(c0, 16))
        s10 = f32x4.add(s10, v128.load(c1))
        s11 = f32x4.add(s11, v128.load(c1, 16))
        s20 = f32x4.add(s20, v128.load(c2))
        s21 = f32x4.add(s21, v128.load(c2, 16))
        s30 = f32x4.add(s30, v128.load(c3))
        s31 = f32x4.add(s31, v128.load(c3, 16))
      }
      v128.store(c0, s00)
      v128.store(c0, s01, 16)
      v128.store(c1, s10)
      v128.store(c1, s11, 16)
      v128.store(c2, s20)
      v128.store(c2, s21, 16)
      v128.store(c3, s30)
      v128.store(c3, s31, 16)
    }
  }
}

/** c[m, TILE] = A * B with A in panels of depth k. */
export function productPanels(a: usize, b: usize, c: usize, m: i32, n: i32, k: i32): void {
  product(a, 16, 4, <usize>k << 4, b, <usize>k << 5, c, TILE_BYTES, m, n, k, false)
}

/** c[m, n] += A * B with A row-major [m, TILE], B's panels TILE deep, of which the first k count. */
export function productTile(a: usize, b: usize, c: usize, m: i32, n: i32, k: i32): void {
  product(a, 4, TILE_BYTES, TILE_BYTES << 2, b, TILE << 5, c, <usize>n << 2, m, n, k, true)
}

// @ts-ignore: decorator
@inline
function rowAddress(x: usize, outer: usize, inner: usize, count: i32, r: i32): usize {
  return x + <usize>(r / count) * outer + <usize>(r % count) * inner
}

// width: rows of one panel, 4 or 8
// @ts-ignore: decorator
@inline
function interleave(
  x: usize, outer: usize, inner: usize, count: i32, rows: i32, d: i32, factor: f32, width: i32, to: usize,
): void {
  const f = f32x4.splat(factor)
  const step = <usize>width << 2
  const whole = (rows + width - 1) & -width
  for (let r = 0; r < whole; r += 4) {
    const r0 = rowAddress(x, outer, inner, count, min(r, rows - 1))
    const r1 = rowAddress(x, outer, inner, count, min(r + 1, rows - 1))
    const r2 = rowAddress(x, outer, inner, count, min(r + 2, rows - 1))
    const r3 = rowAddress(x, outer, inner, count, min(r + 3, rows - 1))
    let y = to + (<usize>(r / width) * d) * step + (<usize>(r % width) << 2)
    let i = 0
    for (; i + 4 <= d; i += 4, y += step << 2) {
      const at = <usize>i << 2
      const a = f32x4.mul(v128.load(r0 + at), f)
      const b = f32x4.mul(v128.load(r1 + at), f)
      const e = f32x4.mul(v128.load(r2 + at), f)
      const g = f32x4.mul(v128.load(r3 + at), f)
      const p = v128.shuffle<f32>(a, b, 0, 4, 1, 5)
      const q = v128.shuffle<f32>(e, g, 0, 4, 1, 5)
      const s = v128.shuffle<f32>(a, b, 2, 6, 3, 7)
      const t = v128.shuffle<f32>(e, g, 2, 6, 3, 7)
      v128.store(y, v128.shuffle<f32>(p, q, 0, 1, 4, 5))
      v128.store(y + step, v128.shuffle<f32>(p, q, 2, 3, 6, 7))
      v128.store(y + step * 2, v128.shuffle<f32>(s, t, 0, 1, 4, 5))
      v128.store(y + step * 3, v128.shuffle<f32>(s, t, 2, 3, 6, 7))
    }
    for (; i < d; i++, y += step) {
      const at = <usize>i << 2
      store<f32>(y, load<f32>(r0 + at) * factor)
      store<f32>(y, load<f32>(r1 + at) * factor, 4)
      store<f32>(y, load<f32>(r2 + at) * factor, 8)
      store<f32>(y, load<f32>(r3 + at) * factor, 12)
    }
  }
}

/**
 * Rows x[r] of d floats, times factor, as panels of 4 rows [rows/4][d][4] (an A). Row r lies at (r / count) * outer +
 * (r % count) * inner bytes. The last row stands in for those missing in the last panel.
 */
export function packA(
  x: usize, outer: usize, inner: usize, count: i32, rows: i32, d: i32, factor: f32, to: usize,
): void {
  interleave(x, outer, inner, count, rows, d, factor, 4, to)
}

/** Rows of d floats, `stride` bytes apart, as columns: panels of 8 [rows/8][d][8] (a B of depth d). */
export function packColumns8(x: usize, stride: usize, rows: i32, d: i32, factor: f32, to: usize): void {
  interleave(x, 0, stride, rows, rows, d, factor, 8, to)
}

/** Rows of d floats, `stride` bytes apart, as panels of 8 elements [d/8][TILE][8] (a B of depth rows), zeros past d. */
export function packRows8(x: usize, stride: usize, rows: i32, d: i32, factor: f32, to: usize): void {
  const f = f32x4.splat(factor)
  for (let r = 0; r < rows; r++, x += stride, to += 32) {
    let y = to
    let i = 0
    for (; i + 8 <= d; i += 8, y += TILE << 5) {
      const at = x + (<usize>i << 2)
      v128.store(y, f32x4.mul(v128.load(at), f))
      v128.store(y, f32x4.mul(v128.load(at, 16), f), 16)
    }
    if (i < d) {
      v128.store(y, f32x4.splat(0))
      v128.store(y, f32x4.splat(0), 16)
      for (let at = y; i < d; i++, at += 4) store<f32>(at, load<f32>(x + (<usize>i << 2)) * factor)
    }
  }
}
