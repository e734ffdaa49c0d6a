// Attention to a key/value cache. Tasks depend on the shapes alone: the same bits for any number of threads.
// Many rows: one task is a key/value head and a block of rows; within it consecutive rows of one slot (a prefill
// chunk) run as one tile of attention.ts, decode rows as tiles of their own. Few rows of a long cache: one task is a
// row, a key/value head and a chunk of the positions; a second call merges the chunks by their log-sum-exps.
// Measured (1 thread, H 14, G 2, D 64, beside other work): 512 positions 0.06 ms a row, 28-31 GFLOP/s; chunk of 128
// rows 34-39 GFLOP/s.
import { shareEnd, shareStart } from './common'
import { exp1 } from './math'
import { attend } from './attention'

/**
 * q, out [r, heads*d], caches [.., capacity, kvHeads*d], slots, positions i32[r] (-1: zeros); `block` rows a task,
 * `own` bytes of scratch a thread: 8 * block for the ranges, then what `attend` needs.
 */
export function attentionCached(
  q: usize, cacheK: usize, cacheV: usize, slots: usize, positions: usize, out: usize, r: i32, capacity: i32,
  heads: i32, kvHeads: i32, d: i32, factor: f32, block: i32, scratch: usize, own: usize, thread: i32, threads: i32,
): void {
  const group = heads / kvHeads
  const width = heads * d
  const kvWidth = kvHeads * d
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
        const slot = load<i32>(slots + (<usize>row << 2))
        let tokens = 1
        while (
          row + tokens < end &&
          load<i32>(slots + (<usize>(row + tokens) << 2)) == slot &&
          load<i32>(positions + (<usize>(row + tokens) << 2)) >= 0
        )
          tokens++
        for (let t = 0; t < tokens; t++) {
          store<i32>(ranges + (<usize>t << 2), 0)
          store<i32>(ranges + (<usize>(tokens + t) << 2), load<i32>(positions + (<usize>(row + t) << 2)) + 1)
        }
        const from = (<usize>slot * capacity * kvWidth + <usize>(g * d)) << 2
        attend(
          q + at, cacheK + from, cacheV + from, out + at, 0, width, kvWidth, 0, tokens, group, d, factor, ranges,
          ranges + (<usize>block << 3),
        )
        row += tokens
      }
    }
  }
}

/**
 * As attentionCached for each chunk of the positions alone: partial [r, chunks, heads*d] and lse [r, chunks, heads],
 * where chunks = ceil(capacity / chunk). Chunks past a row's position are left as they were. `own` for one row.
 */
export function attentionCachedChunks(
  q: usize, cacheK: usize, cacheV: usize, slots: usize, positions: usize, partial: usize, lse: usize, r: i32,
  capacity: i32,
  heads: i32, kvHeads: i32, d: i32, factor: f32, chunk: i32, scratch: usize, own: usize, thread: i32, threads: i32,
): void {
  const group = heads / kvHeads
  const width = heads * d
  const kvWidth = kvHeads * d
  const chunks = (capacity + chunk - 1) / chunk
  const ranges = scratch + <usize>thread * own
  // tasks count only where there is work, so that threads share what is there
  let task = 0
  for (let row = 0; row < r; row++) {
    const end = load<i32>(positions + (<usize>row << 2)) + 1
    const slot = load<i32>(slots + (<usize>row << 2))
    for (let c = 0; c * chunk < end; c++) {
      for (let g = 0; g < kvHeads; g++, task++) {
        if (task % threads != thread) continue
        store<i32>(ranges, c * chunk)
        store<i32>(ranges, min(end, (c + 1) * chunk), 4)
        const from = (<usize>slot * capacity * kvWidth + <usize>(g * d)) << 2
        const piece = <usize>(row * chunks + c)
        attend(
          q + (<usize>(row * width + g * group * d) << 2), cacheK + from, cacheV + from,
          partial + ((piece * width + <usize>(g * group * d)) << 2), lse + ((piece * heads + <usize>(g * group)) << 2),
          width, kvWidth, heads, 1, group, d, factor, ranges, ranges + 8,
        )
      }
    }
  }
}

/** out[r, heads*d] from what attentionCachedChunks left; zeros at position -1. Threads share rows and heads. */
export function attentionCachedMerge(
  partial: usize, lse: usize, positions: usize, out: usize, r: i32, capacity: i32, heads: i32, d: i32, chunk: i32,
  thread: i32, threads: i32,
): void {
  const chunks = (capacity + chunk - 1) / chunk
  const end = shareEnd(r * heads, 1, thread, threads)
  for (let i = shareStart(r * heads, 1, thread, threads); i < end; i++) {
    const row = i / heads
    const y = out + (<usize>(i * d) << 2)
    const used = (load<i32>(positions + (<usize>row << 2)) + chunk) / chunk
    // chunk c of this row and head lies c * heads further
    const first = <usize>(row * chunks * heads + (i % heads))
    let top: f32 = -Infinity
    for (let c = 0; c < used; c++) top = max(top, load<f32>(lse + ((first + <usize>(c * heads)) << 2)))
    let total: f32 = 0
    for (let c = 0; c < used; c++) total += exp1(load<f32>(lse + ((first + <usize>(c * heads)) << 2)) - top)
    memory.fill(y, 0, <usize>d << 2)
    for (let c = 0; c < used; c++) {
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
