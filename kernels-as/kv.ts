// Writes and copies in a key or value cache [slots, capacity, e]. kvWrite: threads share the rows.
// kvCopy: threads share the positions, and each carries out all copies in order.
import { shareEnd, shareStart } from './common'

/** cache[slots[r]][positions[r]] = x[r]; nothing at position -1. */
export function kvWrite(
  cache: usize, x: usize, slots: usize, positions: usize, r: i32, capacity: i32, e: i32, thread: i32, threads: i32,
): void {
  const bytes = <usize>e << 2
  const end = shareEnd(r, 1, thread, threads)
  for (let i = shareStart(r, 1, thread, threads); i < end; i++) {
    const position = load<i32>(positions + (<usize>i << 2))
    if (position < 0) continue
    const slot = load<i32>(slots + (<usize>i << 2))
    memory.copy(cache + (<usize>slot * capacity + <usize>position) * bytes, x + <usize>i * bytes, bytes)
  }
}

/** Positions 0..length-1 of slot `from` to slot `to`, for each of m copies; nothing where from is -1. */
export function kvCopy(
  cache: usize, from: usize, to: usize, length: usize, m: i32, capacity: i32, e: i32, thread: i32, threads: i32,
): void {
  const bytes = <usize>e << 2
  const slot = <usize>capacity * bytes
  const start = shareStart(capacity, 1, thread, threads)
  const end = shareEnd(capacity, 1, thread, threads)
  for (let i: usize = 0; i < <usize>m; i++) {
    const source = load<i32>(from + (i << 2))
    const last = min(end, load<i32>(length + (i << 2)))
    if (source < 0 || last <= start) continue
    const target = load<i32>(to + (i << 2))
    const first = cache + <usize>start * bytes
    memory.copy(first + <usize>target * slot, first + <usize>source * slot, <usize>(last - start) * bytes)
  }
}
