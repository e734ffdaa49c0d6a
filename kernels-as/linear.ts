// linear, linearBackInput, linearBackWeight, linearBackBias, and (with a start and a scale) both halves of lora.
// x[N, I], w[O, I] of any weight dtype, dy[N, O]. Weights are unpacked to f32 panel by panel (pack.ts), the product is
// gemm.ts; a few rows go through gemv.ts. Threads take columns of the result, block by block, or share its rows where there are too
// few columns. `scratch`: as many bytes as the functions here say for each thread, one after the other.
//
// Measured at 512x896x4864 (2-core Sapphire Rapids VM), GFLOP/s on 1 thread in Node 20, and of the relaxed build in Node 24 on
// 1 and 2: linear f32 41 (57, 105), q8 41 (57, 104); linearBackInput q8 40 (56, 100); linearBackWeight 40 (54, 95). Multiply
// and add at 128 bits give 41 a core there, multiply-add 57.

import { BLOCK } from '../sdk/blocks'
import { high, low, nextPart, shareEnd, shareStart } from './common'
import { BASE_ROW, block, COLUMNS, DEPTH, END, PANELS, ROWS, TILE, TRANSPOSED, UNPACKED } from './gemm'
import { fewRows, gemv } from './gemv'
import { F32, loadFloat, loadFloat4, packColumns, packRows, Q8, rowBytes, transpose } from './pack'

/** Bytes of scratch that one thread needs for `linear`. */
export function linearScratch(rows: i32): usize {
  return rows <= fewRows(Q8) ? 0 : TRANSPOSED
}

/** For `linearBackInput`. */
export function linearBackInputScratch(): usize {
  return TRANSPOSED
}

/** For `linearBackWeight`. */
export function linearBackWeightScratch(): usize {
  return END
}

/** Whether threads split the columns (in units) rather than the rows (by 4) of the result. */
// @ts-ignore: decorator
@inline
function splitColumns(rows: i32, columns: i32, unit: i32, threads: i32): bool {
  return (columns + unit - 1) / unit >= 4 * threads || rows < 8 * threads
}

/**
 * c[M, N] = base + scale * a[M, K] * B, where B is wᵀ of w[N, K], or `isBack` w[K, N] itself. base: start[M, N] where it is not 0 (may be
 * c itself), else the bias b[N] where it is not 0 (f32, f16 or bf16), else nothing.
 */
function product(
  isBack: bool, a: usize, w: usize, dtype: i32, bias: usize, biasType: i32, start: usize, factor: f32, c: usize,
  M: i32, K: i32, N: i32, own: usize, thread: i32, threads: i32,
): void {
  // Blocks must not be cut.
  const unit = isBack ? BLOCK : 8
  const byColumns = splitColumns(M, N, unit, threads)
  const m0 = byColumns ? 0 : shareStart(M, 4, thread, threads)
  const m1 = byColumns ? M : shareEnd(M, 4, thread, threads)
  if (m0 >= m1) return
  const rowSize = rowBytes(dtype, isBack ? N : K)
  const aStride = <usize>K << 2
  const cStride = <usize>N << 2
  const takers = byColumns ? threads : 1
  const width = min(COLUMNS, (N + unit * 4 * takers - 1) / (unit * 4 * takers) * unit)
  for (let part = nextPart(-1, takers), n = part * width; n < N; part = nextPart(part, takers), n = part * width) {
    const columns = min(width, N - n)
    for (let j = 0; j < columns; j++)
      store<f32>(own + BASE_ROW + (<usize>j << 2), bias ? loadFloat(biasType, bias, n + j) : 0)
    for (let k = 0; k < K; k += DEPTH) {
      const depth = min(DEPTH, K - k)
      if (isBack) packColumns(dtype, w, rowSize, n, columns, k, depth, own + UNPACKED, own + PANELS)
      else packRows(dtype, w, rowSize, n, columns, k, depth, own + UNPACKED, own + PANELS)
      const from = k > 0 ? c : start
      for (let m = m0; m < m1; m += ROWS) {
        const at = <usize>m * cStride + (<usize>n << 2)
        block(
          a + <usize>m * aStride + (<usize>k << 2), aStride, min(ROWS, m1 - m), own + PANELS, depth, c + at, cStride,
          columns, from ? from + at : own + BASE_ROW, from ? cStride : 0, factor, own + TILE,
        )
      }
    }
  }
}

/** y[N, O] = (start or bias) + scale * x[N, I] * wᵀ. scale: address of an f32, or 0 for 1. */
export function linear(
  x: usize, w: usize, dtype: i32, bias: usize, biasType: i32, start: usize, scale: usize, y: usize, N: i32, I: i32,
  O: i32, scratch: usize, scratchSize: usize, thread: i32, threads: i32,
): void {
  const own = scratch + <usize>thread * scratchSize
  const factor: f32 = scale ? load<f32>(scale) : 1
  if (N <= fewRows(dtype)) gemv(x, w, dtype, bias, biasType, start, y, N, I, O, factor, thread, threads)
  else product(false, x, w, dtype, bias, biasType, start, factor, y, N, I, O, own, thread, threads)
}

/** dx[N, I] = start + scale * dy[N, O] * w. start: 0, or [N, I] (may be dx itself). scale: address of an f32, or 0 for 1. */
export function linearBackInput(
  dy: usize, w: usize, dtype: i32, start: usize, scale: usize, dx: usize, N: i32, I: i32, O: i32, scratch: usize,
  scratchSize: usize, thread: i32, threads: i32,
): void {
  const own = scratch + <usize>thread * scratchSize
  product(true, dy, w, dtype, 0, 0, start, scale ? load<f32>(scale) : 1, dx, N, O, I, own, thread, threads)
}

/** grad[O, I] += dyᵀ[O, N] * x[N, I]. */
export function linearBackWeight(
  dy: usize, x: usize, grad: usize, N: i32, I: i32, O: i32, scratch: usize, scratchSize: usize, thread: i32,
  threads: i32,
): void {
  const own = scratch + <usize>thread * scratchSize
  // The transposed side is packed per thread, so threads split the rows of grad, unless there are few (lora's A).
  const byRows = splitColumns(I, O, 4, threads)
  const m0 = byRows ? shareStart(O, 4, thread, threads) : 0
  const m1 = byRows ? shareEnd(O, 4, thread, threads) : O
  const n0 = byRows ? 0 : shareStart(I, 8, thread, threads)
  const n1 = byRows ? I : shareEnd(I, 8, thread, threads)
  if (n0 >= n1) return
  const dyStride = (<usize>O) << 2
  const xStride = (<usize>I) << 2
  for (let k = 0; k < N; k += DEPTH) {
    const depth = min(DEPTH, N - k)
    for (let m = m0; m < m1; m += ROWS) {
      const rows = min(ROWS, m1 - m)
      transpose(
        dy + <usize>k * dyStride + ((<usize>m) << 2), dyStride, depth, rows, own + TRANSPOSED, (<usize>depth) << 2,
      )
      for (let n = n0; n < n1; n += COLUMNS) {
        const columns = min(COLUMNS, n1 - n)
        packColumns(F32, x, xStride, n, columns, k, depth, own + UNPACKED, own + PANELS)
        const c = grad + <usize>m * xStride + ((<usize>n) << 2)
        block(
          own + TRANSPOSED, (<usize>depth) << 2, rows, own + PANELS, depth, c, xStride, columns, c, xStride, 1,
          own + TILE,
        )
      }
    }
  }
}

/** sums[O] (+)= column sums of a[N, O], or of a * b where b is not 0; f64 inside, rows in order. Split by columns. */
export function columnSums(
  a: usize, b: usize, sums: usize, accumulate: i32, N: i32, O: i32, thread: i32, threads: i32,
): void {
  const end = shareEnd(O, 16, thread, threads)
  const stride = (<usize>O) << 2
  let c = shareStart(O, 16, thread, threads)
  for (; c < end; c += 4) {
    const count = min(4, end - c)
    let sum01 = f64x2.splat(0)
    let sum23 = f64x2.splat(0)
    if (count == 4) {
      let at = (<usize>c) << 2
      for (let n = 0; n < N; n++, at += stride) {
        const p = v128.load(a + at)
        const q = b ? v128.load(b + at) : f32x4.splat(1)
        sum01 = f64x2.add(sum01, f64x2.mul(low(p), low(q)))
        sum23 = f64x2.add(sum23, f64x2.mul(high(p), high(q)))
      }
      put(sums, c, accumulate, f64x2.extract_lane(sum01, 0))
      put(sums, c + 1, accumulate, f64x2.extract_lane(sum01, 1))
      put(sums, c + 2, accumulate, f64x2.extract_lane(sum23, 0))
      put(sums, c + 3, accumulate, f64x2.extract_lane(sum23, 1))
      continue
    }
    for (let j = c; j < end; j++) {
      let sum: f64 = 0
      let at = (<usize>j) << 2
      for (let n = 0; n < N; n++, at += stride) sum += <f64>load<f32>(a + at) * (b ? <f64>load<f32>(b + at) : 1)
      put(sums, j, accumulate, sum)
    }
  }
}

// @ts-ignore: decorator
@inline
function put(sums: usize, c: i32, accumulate: i32, sum: f64): void {
  const at = sums + ((<usize>c) << 2)
  store<f32>(at, <f32>(accumulate ? <f64>load<f32>(at) + sum : sum))
}

/** out[N, O] = y[N, O] * gain[O] + b[O] (0: none; f32, f16 or bf16). out may be y. Split by rows. */
export function scaleColumns(
  y: usize, gain: usize, bias: usize, biasType: i32, out: usize, N: i32, O: i32, thread: i32, threads: i32,
): void {
  const end = shareEnd(N, 1, thread, threads)
  for (let n = shareStart(N, 1, thread, threads); n < end; n++) {
    const at = (<usize>(n * O)) << 2
    let c = 0
    for (; c + 4 <= O; c += 4) {
      const offset = (<usize>c) << 2
      const b = bias ? loadFloat4(biasType, bias, c) : f32x4.splat(0)
      const scaled = f32x4.mul(v128.load(y + at + offset), v128.load(gain + offset))
      v128.store(out + at + offset, f32x4.add(scaled, b))
    }
    for (; c < O; c++) {
      const offset = (<usize>c) << 2
      const b: f32 = bias ? loadFloat(biasType, bias, c) : 0
      store<f32>(out + at + offset, load<f32>(y + at + offset) * load<f32>(gain + offset) + b)
    }
  }
}
