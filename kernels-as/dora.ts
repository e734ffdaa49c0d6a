// norm[O] = length of each row of w[O, I] + scale * B[O, r] * A[r, I]. Split by rows; squares are summed in f64.
// `scratch`: I floats for each thread. 2 O I r FLOP at the speed of L1 (r passes over the row); not tuned.

import { lines, shareEnd, shareStart } from './common'
import { rowBytes, unpack } from './pack'

/** Bytes of scratch that one thread needs. */
export function doraScratch(I: i32): usize {
  return lines((<usize>I) << 2)
}

export function doraNorm(
  w: usize, dtype: i32, A: usize, B: usize, scale: usize, norm: usize, O: i32, I: i32, r: i32, scratch: usize,
  scratchSize: usize, thread: i32, threads: i32,
): void {
  const row = scratch + <usize>thread * scratchSize
  const rowSize = rowBytes(dtype, I)
  const factor = load<f32>(scale)
  const end = shareEnd(O, 16, thread, threads)
  for (let o = shareStart(O, 16, thread, threads); o < end; o++) {
    unpack(dtype, w + <usize>o * rowSize, I, row)
    for (let q = 0; q < r; q++) {
      const b = factor * load<f32>(B + ((<usize>(o * r + q)) << 2))
      const a = A + ((<usize>(q * I)) << 2)
      const b4 = f32x4.splat(b)
      let i = 0
      for (; i + 4 <= I; i += 4) {
        const at = (<usize>i) << 2
        v128.store(row + at, f32x4.add(v128.load(row + at), f32x4.mul(b4, v128.load(a + at))))
      }
      for (; i < I; i++) {
        const at = (<usize>i) << 2
        store<f32>(row + at, load<f32>(row + at) + b * load<f32>(a + at))
      }
    }
    let squares: f64 = 0
    for (let i = 0; i < I; i++) {
      const v = <f64>load<f32>(row + ((<usize>i) << 2))
      squares += v * v
    }
    store<f32>(norm + ((<usize>o) << 2), <f32>Math.sqrt(squares))
  }
}
