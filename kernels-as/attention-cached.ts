// Attention to a key/value cache. One task is a key/value head and a block of rows; within it consecutive rows of one slot (a prefill
// chunk) run as one tile of attention.ts, decode rows as tiles of their own. Blocks depend on the shapes alone.
import { attend } from './attention'

/**
 * q, out [r, heads*d], caches [.., capacity, kvHeads*d], slots, positions i32[r] (-1: zeros); `block` rows a task, `own` bytes of
 * scratch a thread: 8 * block for the ranges, then what `attend` needs.
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
