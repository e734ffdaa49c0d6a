// Writes and copies in a key or value cache [slots, kvHeads, capacity, d] of f32 or f16. kvWrite: threads share the rows.
// kvCopy: threads share the positions, and each carries out all copies in order.
import { shareEnd, shareStart } from './common'
import { F32, rowBytes, toHalf } from './pack'

/** cache[i][g][positions[i]] = x[i][g], of slot `slot` (i32[1]) in place of i where it is not 0; nothing at position -1. */
export function kvWrite(
  cache: usize, dtype: i32, x: usize, positions: usize, slot: usize, r: i32, kvHeads: i32, capacity: i32, d: i32,
  thread: i32, threads: i32,
): void {
  const bytes = rowBytes(dtype, d)
  const end = shareEnd(r, 1, thread, threads)
  for (let i = shareStart(r, 1, thread, threads); i < end; i++) {
    const position = load<i32>(positions + (<usize>i << 2))
    if (position < 0) continue
    const s = slot ? load<i32>(slot) : i
    for (let g = 0; g < kvHeads; g++) {
      const to = cache + (<usize>(s * kvHeads + g) * capacity + <usize>position) * bytes
      const from = x + ((<usize>(i * kvHeads + g) * d) << 2)
      if (dtype == F32) memory.copy(to, from, bytes)
      else for (let c: usize = 0; c < <usize>d; c++) store<u16>(to + (c << 1), toHalf(load<f32>(from + (c << 2))))
    }
  }
}

/** Positions 0..length-1 of slot `from` to slot `to`, for each of m copies; nothing where from is -1. */
export function kvCopy(
  cache: usize, dtype: i32, from: usize, to: usize, length: usize, m: i32, kvHeads: i32, capacity: i32, d: i32,
  thread: i32, threads: i32,
): void {
  const bytes = rowBytes(dtype, d)
  const head = <usize>capacity * bytes
  const start = shareStart(capacity, 1, thread, threads)
  const end = shareEnd(capacity, 1, thread, threads)
  for (let i: usize = 0; i < <usize>m; i++) {
    const source = load<i32>(from + (i << 2))
    const last = min(end, load<i32>(length + (i << 2)))
    if (source < 0 || last <= start) continue
    const target = load<i32>(to + (i << 2))
    const first = cache + <usize>start * bytes
    for (let g = 0; g < kvHeads; g++)
      memory.copy(
        first + <usize>(target * kvHeads + g) * head, first + <usize>(source * kvHeads + g) * head,
        <usize>(last - start) * bytes,
      )
  }
}
