// Rows picked and put back, sums by segment. gatherRows: threads share the rows. scatterRows is zeroing, then embedBack
// (threads share the columns). segmentSum: threads share the segments, each adds the rows in order in f64.
import { shareEnd, shareStart } from './common'

/** y[r] = x[rows[r]], zeros at row -1; x [.., c], y [r, c]. */
export function gatherRows(x: usize, rows: usize, y: usize, r: i32, c: i32, thread: i32, threads: i32): void {
  const bytes = <usize>c << 2
  const end = shareEnd(r, 1, thread, threads)
  for (let i = shareStart(r, 1, thread, threads); i < end; i++) {
    const row = load<i32>(rows + (<usize>i << 2))
    if (row < 0) memory.fill(y + <usize>i * bytes, 0, bytes)
    else memory.copy(y + <usize>i * bytes, x + <usize>row * bytes, bytes)
  }
}

/** y[s] = sum of x[r] where segments[r] = s; x [r], y [count]. */
export function segmentSum(
  x: usize, segments: usize, y: usize, r: i32, count: i32, thread: i32, threads: i32,
): void {
  const end = shareEnd(count, 1, thread, threads)
  for (let s = shareStart(count, 1, thread, threads); s < end; s++) {
    let sum: f64 = 0
    for (let i: usize = 0; i < <usize>r << 2; i += 4) if (load<i32>(segments + i) == s) sum += <f64>load<f32>(x + i)
    store<f32>(y + (<usize>s << 2), <f32>sum)
  }
}
