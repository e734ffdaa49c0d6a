// Attention to a key/value cache [slots, kvHeads, capacity, d] of f32 or f16. Tasks depend on the shapes alone: the same bits for any number of
// threads. Rows are either a chunk of one slot (a prompt): one task is a key/value head and a block of rows, which run as one tile
// of attention.ts; or row r is the newest token of slot r: one task is a row and a key/value head, and where the cache is long also
// a chunk of its positions; a second call merges those by their log-sum-exps. Position -1 gives zeros.
// Measured (1 thread, H 14, G 2, D 64, beside other work): 512 positions 0.06 ms a row, 28-31 GFLOP/s; chunk of 128
// rows 34-39 GFLOP/s.
import { shareEnd, shareStart } from './common'
import { exp1 } from './math'
import { attend, attendScratch, blockTokens } from './attention'
import { rowBytes } from './pack'

/** Positions of one task where rows of several slots read a long cache. */
export const CACHED_CHUNK: i32 = 512

/** Bytes of scratch that one thread needs; `isChunk`: the rows are of one slot. */
export function attentionCachedScratch(isChunk: i32, group: i32, d: i32, dtype: i32): usize {
  return attendScratch(isChunk ? blockTokens(group) : 1, group, d, dtype)
}

/** Where the keys or values of a slot's head begin. */
// @ts-ignore: decorator
@inline
function headOf(cache: usize, dtype: i32, slot: i32, kvHeads: i32, g: i32, capacity: i32, d: i32): usize {
  return cache + <usize>(slot * kvHeads + g) * capacity * rowBytes(dtype, d)
}

/**
 * q, out [r, heads*d], caches, positions i32[r], slot i32[1] or 0 where row i is slot i. `own` bytes of scratch a thread: 8 a row of a
 * block for the ranges, then what `attend` needs.
 */
export function attentionCached(
  q: usize, cacheK: usize, cacheV: usize, dtype: i32, positions: usize, slot: usize, out: usize, r: i32, capacity: i32,
  heads: i32, kvHeads: i32, d: i32, factor: f32, window: i32, scratch: usize, own: usize, thread: i32, threads: i32,
): void {
  const group = heads / kvHeads
  const width = heads * d
  const block = slot ? blockTokens(group) : 1
  const ranges = scratch + <usize>thread * own
  let task = 0
  for (let i = 0; i < r; i += block) {
    const end = min(r, i + block)
    for (let g = 0; g < kvHeads; g++, task++) {
      if (task % threads != thread) continue
      let row = i
      while (row < end) {
        const at = <usize>(row * width + g * group * d) << 2
        if (load<i32>(positions + (<usize>row << 2)) < 0) {
          memory.fill(out + at, 0, <usize>(group * d) << 2)
          row++
          continue
        }
        let tokens = 1
        while (row + tokens < end && load<i32>(positions + (<usize>(row + tokens) << 2)) >= 0) tokens++
        for (let t = 0; t < tokens; t++) {
          const seen = load<i32>(positions + (<usize>(row + t) << 2)) + 1
          store<i32>(ranges + (<usize>t << 2), max(0, seen - window))
          store<i32>(ranges + (<usize>(tokens + t) << 2), seen)
        }
        const s = slot ? load<i32>(slot) : row
        attend(
          q + at, headOf(cacheK, dtype, s, kvHeads, g, capacity, d), headOf(cacheV, dtype, s, kvHeads, g, capacity, d), dtype, out + at, 0,
          width, d, 0, tokens, group, d, factor, ranges, ranges + (<usize>block << 3),
        )
        row += tokens
      }
    }
  }
}

/**
 * Row i of slot i, for each chunk of the positions alone: partial [r, chunks, heads*d] and lse [r, chunks, heads], where chunks =
 * ceil(capacity / CACHED_CHUNK). Chunks past a row's position, and before its window, are left as they were.
 */
export function attentionCachedChunks(
  q: usize, cacheK: usize, cacheV: usize, dtype: i32, positions: usize, partial: usize, lse: usize, r: i32, capacity: i32,
  heads: i32, kvHeads: i32, d: i32, factor: f32, window: i32, scratch: usize, own: usize, thread: i32, threads: i32,
): void {
  const group = heads / kvHeads
  const width = heads * d
  const chunks = (capacity + CACHED_CHUNK - 1) / CACHED_CHUNK
  const ranges = scratch + <usize>thread * own
  // tasks count only where there is work, so that threads share what is there
  let task = 0
  for (let row = 0; row < r; row++) {
    const end = load<i32>(positions + (<usize>row << 2)) + 1
    const first = max(0, end - window)
    for (let c = first / CACHED_CHUNK; c * CACHED_CHUNK < end; c++) {
      for (let g = 0; g < kvHeads; g++, task++) {
        if (task % threads != thread) continue
        store<i32>(ranges, max(first, c * CACHED_CHUNK))
        store<i32>(ranges, min(end, (c + 1) * CACHED_CHUNK), 4)
        const piece = <usize>(row * chunks + c)
        attend(
          q + (<usize>(row * width + g * group * d) << 2), headOf(cacheK, dtype, row, kvHeads, g, capacity, d),
          headOf(cacheV, dtype, row, kvHeads, g, capacity, d), dtype, partial + ((piece * width + <usize>(g * group * d)) << 2),
          lse + ((piece * heads + <usize>(g * group)) << 2), width, d, heads, 1, group, d, factor, ranges, ranges + 8,
        )
      }
    }
  }
}

/** out[r, heads*d] from what attentionCachedChunks left; zeros at position -1. Threads share rows and heads. */
export function attentionCachedMerge(
  partial: usize, lse: usize, positions: usize, out: usize, r: i32, capacity: i32, heads: i32, d: i32, window: i32,
  thread: i32, threads: i32,
): void {
  const chunks = (capacity + CACHED_CHUNK - 1) / CACHED_CHUNK
  const end = shareEnd(r * heads, 1, thread, threads)
  for (let i = shareStart(r * heads, 1, thread, threads); i < end; i++) {
    const row = i / heads
    const y = out + (<usize>(i * d) << 2)
    const seen = load<i32>(positions + (<usize>row << 2)) + 1
    const begin = max(0, seen - window) / CACHED_CHUNK
    const used = (seen + CACHED_CHUNK - 1) / CACHED_CHUNK
    // chunk c of this row and head lies c * heads further
    const first = <usize>(row * chunks * heads + (i % heads))
    let top: f32 = -Infinity
    for (let c = begin; c < used; c++) top = max(top, load<f32>(lse + ((first + <usize>(c * heads)) << 2)))
    let total: f32 = 0
    for (let c = begin; c < used; c++) total += exp1(load<f32>(lse + ((first + <usize>(c * heads)) << 2)) - top)
    memory.fill(y, 0, <usize>d << 2)
    for (let c = begin; c < used; c++) {
      const at = first + <usize>(c * heads)
      const weight = exp1(load<f32>(lse + (at << 2)) - top) / total
      const x = partial + ((at * <usize>d) << 2)
      const weight4 = f32x4.splat(weight)
      let k = 0
      for (; k + 4 <= d; k += 4) {
        const to = y + (<usize>k << 2)
        v128.store(to, f32x4.add(v128.load(to), f32x4.mul(v128.load(x + (<usize>k << 2)), weight4)))
      }
      for (; k < d; k++) {
        const to = y + (<usize>k << 2)
        store<f32>(to, load<f32>(to) + load<f32>(x + (<usize>k << 2)) * weight)
      }
    }
  }
}
