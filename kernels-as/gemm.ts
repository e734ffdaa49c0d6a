// The f32 GEMM core: C[m, n] = base + scale * A[m, k] * B[k, n], A row-major in place, B packed in panels of 8 columns.
//
// A tile of C stays in vectors: 6x8 in the relaxed build, 4x8 in the plain one, whose multiply and add need a register more. Per
// step of k it takes two loads of B and a splat of A for each row. (Unrolling k makes V8 spill.) k is cut into blocks of DEPTH: within a block the sum runs in
// order of k from 0, and the blocks are added in order. So an element of C does not depend on m, on n, on the tile or
// on the thread that computes it.

import { madd } from './common'

/** Rows of k that are packed at once: a panel is 16 kB, a third of L1. */
export const DEPTH: i32 = 512
/** Columns that are packed at once: 128 kB with DEPTH. */
export const COLUMNS: i32 = 64
/** Rows of A that go with them, whole tiles: 240 kB with DEPTH; both fit L2. */
export const ROWS: i32 = 120

/** Scratch of one thread, in bytes from its start. */
export const BASE_ROW: usize = 0 // COLUMNS floats: the bias, or zeros
export const TILE: usize = BASE_ROW + COLUMNS * 4 // 6 x 8 floats, and room to the next line
export const UNPACKED: usize = TILE + 256 // 8 x DEPTH floats
export const PANELS: usize = UNPACKED + 8 * DEPTH * 4 // COLUMNS x DEPTH floats
export const TRANSPOSED: usize = PANELS + COLUMNS * DEPTH * 4 // ROWS x DEPTH floats, where a side is transposed
export const END: usize = TRANSPOSED + ROWS * DEPTH * 4

/** One row of 8: base + scale * sum. */
// @ts-ignore: decorator
@inline
function put(c: usize, base: usize, scale: v128, low: v128, high: v128): void {
  v128.store(c, madd(scale, low, v128.load(base)))
  v128.store(c, madd(scale, high, v128.load(base, 16)), 16)
}

/** Rows x columns of a tile at the edges of C. */
function putEdge(
  tile: usize, rows: i32, columns: i32, c: usize, cStride: usize, base: usize, baseStride: usize, factor: f32,
): void {
  for (let r = 0; r < rows; r++, c += cStride, base += baseStride, tile += 32)
    for (let j: usize = 0; j < (<usize>columns) << 2; j += 4) {
      const sum = madd(f32x4.splat(factor), v128.load32_zero(tile + j), v128.load32_zero(base + j))
      v128.store_lane<f32>(c + j, sum, 0)
    }
}

/** A tile of 6 x 8 (`isTall`) or 4 x 8, or rows x columns of one at the edges, through `tile`. Missing rows of A repeat the last one. */
// @ts-ignore: decorator
@inline
function micro(
  isTall: bool, a0: usize, aStride: usize, rows: i32, b: usize, depth: i32, c: usize, cStride: usize, columns: i32,
  base: usize, baseStride: usize, factor: f32, tile: usize,
): void {
  let c00 = f32x4.splat(0)
  let c01 = c00
  let c10 = c00
  let c11 = c00
  let c20 = c00
  let c21 = c00
  let c30 = c00
  let c31 = c00
  let c40 = c00
  let c41 = c00
  let c50 = c00
  let c51 = c00
  let a1 = isTall || rows > 1 ? a0 + aStride : a0
  let a2 = isTall || rows > 2 ? a1 + aStride : a1
  let a3 = isTall || rows > 3 ? a2 + aStride : a2
  let a4 = a3 + aStride
  let a5 = a4 + aStride
  const end = b + ((<usize>depth) << 5)
  while (b < end) {
    const b0 = v128.load(b)
    const b1 = v128.load(b, 16)
    let x = v128.load32_splat(a0)
    c00 = madd(x, b0, c00)
    c01 = madd(x, b1, c01)
    x = v128.load32_splat(a1)
    c10 = madd(x, b0, c10)
    c11 = madd(x, b1, c11)
    x = v128.load32_splat(a2)
    c20 = madd(x, b0, c20)
    c21 = madd(x, b1, c21)
    x = v128.load32_splat(a3)
    c30 = madd(x, b0, c30)
    c31 = madd(x, b1, c31)
    if (isTall) {
      x = v128.load32_splat(a4)
      c40 = madd(x, b0, c40)
      c41 = madd(x, b1, c41)
      x = v128.load32_splat(a5)
      c50 = madd(x, b0, c50)
      c51 = madd(x, b1, c51)
      a4 += 4
      a5 += 4
    }
    a0 += 4
    a1 += 4
    a2 += 4
    a3 += 4
    b += 32
  }
  if ((isTall || rows == 4) && columns == 8) {
    const scale = f32x4.splat(factor)
    put(c, base, scale, c00, c01)
    put(c + cStride, base + baseStride, scale, c10, c11)
    put(c + cStride * 2, base + baseStride * 2, scale, c20, c21)
    put(c + cStride * 3, base + baseStride * 3, scale, c30, c31)
    if (isTall) {
      put(c + cStride * 4, base + baseStride * 4, scale, c40, c41)
      put(c + cStride * 5, base + baseStride * 5, scale, c50, c51)
    }
    return
  }
  v128.store(tile, c00)
  v128.store(tile, c01, 16)
  v128.store(tile, c10, 32)
  v128.store(tile, c11, 48)
  v128.store(tile, c20, 64)
  v128.store(tile, c21, 80)
  v128.store(tile, c30, 96)
  v128.store(tile, c31, 112)
  if (isTall) {
    v128.store(tile, c40, 128)
    v128.store(tile, c41, 144)
    v128.store(tile, c50, 160)
    v128.store(tile, c51, 176)
  }
  putEdge(tile, rows, columns, c, cStride, base, baseStride, factor)
}

function micro4(
  a: usize, aStride: usize, rows: i32, b: usize, depth: i32, c: usize, cStride: usize, columns: i32, base: usize,
  baseStride: usize, factor: f32, tile: usize,
): void {
  micro(false, a, aStride, rows, b, depth, c, cStride, columns, base, baseStride, factor, tile)
}

function micro6(
  a: usize, aStride: usize, b: usize, depth: i32, c: usize, cStride: usize, columns: i32, base: usize, baseStride: usize,
  factor: f32, tile: usize,
): void {
  micro(true, a, aStride, 6, b, depth, c, cStride, columns, base, baseStride, factor, tile)
}

/**
 * C = base + factor * A * B for rows x columns, B as panels of `depth` x 8. Strides in bytes; a baseStride of 0 gives
 * every row the same base.
 */
export function block(
  a: usize, aStride: usize, rows: i32, panels: usize, depth: i32, c: usize, cStride: usize, columns: i32, base: usize,
  baseStride: usize, factor: f32, tile: usize,
): void {
  for (let n = 0; n < columns; n += 8) {
    const b = panels + ((<usize>(n >> 3) * <usize>depth) << 5)
    const offset = (<usize>n) << 2
    let m = 0
    if (ASC_FEATURE_RELAXED_SIMD)
      for (; m + 6 <= rows; m += 6)
        micro6(
          a + <usize>m * aStride, aStride, b, depth, c + <usize>m * cStride + offset, cStride, min(8, columns - n),
          base + <usize>m * baseStride + offset, baseStride, factor, tile,
        )
    for (; m < rows; m += 4)
      micro4(
        a + <usize>m * aStride, aStride, min(4, rows - m), b, depth, c + <usize>m * cStride + offset, cStride,
        min(8, columns - n), base + <usize>m * baseStride + offset, baseStride, factor, tile,
      )
  }
}
