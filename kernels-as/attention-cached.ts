// Attention to a key/value cache [slots, kvHeads, capacity, d] of f32 or f16. Tasks depend on the shapes alone: the same bits for any number of
// threads. Rows are either a chunk of one slot (a prompt): one task is a key/value head and a block of rows, which run as one tile
// of attention.ts; or row r is the newest token of slot r: one task is a row and a key/value head, and where the cache is long also
// a chunk of its positions; a second call merges those by their log-sum-exps. Position -1 gives zeros.
// Measured on one thread (2-core Sapphire Rapids VM), a row at 512 positions of D 64: f32, H 14 and G 2 0.079 ms, 23 GFLOP/s (Node 24 0.072,
// 26), f16 0.103, 18 (0.092, 20); H 9 and G 3 0.051, 23 (0.048, 25), f16 0.081, 14.5 (0.075, 16), a third of which is f16 to f32.
// A chunk of 128 rows 34-39 GFLOP/s (EPYC VM).
import { lines, LOG_ZERO, madd, shareEnd, shareStart, sum4 } from './common'
import { exp1 } from './math'
import { attend, attendScratch, blockTokens, mask, softmaxRow, up, writeRow } from './attention'
import { F32, rowBytes, unpack } from './pack'
import { TILE } from './tile'

/** Positions of one task where rows of several slots read a long cache. */
export const CACHED_CHUNK: i32 = 512

/** Bytes of scratch that one thread needs; `isChunk`: the rows are of one slot. */
export function attentionCachedScratch(isChunk: i32, group: i32, d: i32, dtype: i32): usize {
  if (isChunk) return attendScratch(blockTokens(group), group, d, dtype)
  return lines(4 * (group * (2 + TILE + up(d, 4)) + TILE * d))
}

/** scores[n] = factor * q . keys; keys [n, d] in f32. Four keys at a time. */
// @ts-ignore: decorator
@inline
function scoresOf(q: usize, keys: usize, n: i32, d: i32, factor: f32, scores: usize): void {
  const bytes = <usize>d << 2
  const whole = <usize>(d & ~3) << 2
  for (let j = 0; j < n; j += 4) {
    const k0 = keys + <usize>j * bytes
    const k1 = j + 1 < n ? k0 + bytes : k0
    const k2 = j + 2 < n ? k1 + bytes : k0
    const k3 = j + 3 < n ? k2 + bytes : k0
    let s0 = f32x4.splat(0)
    let s1 = s0
    let s2 = s0
    let s3 = s0
    for (let c: usize = 0; c < whole; c += 16) {
      const x = v128.load(q + c)
      s0 = madd(x, v128.load(k0 + c), s0)
      s1 = madd(x, v128.load(k1 + c), s1)
      s2 = madd(x, v128.load(k2 + c), s2)
      s3 = madd(x, v128.load(k3 + c), s3)
    }
    let t0 = sum4(s0)
    let t1 = sum4(s1)
    let t2 = sum4(s2)
    let t3 = sum4(s3)
    for (let c = whole; c < bytes; c += 4) {
      const x = load<f32>(q + c)
      t0 += x * load<f32>(k0 + c)
      t1 += x * load<f32>(k1 + c)
      t2 += x * load<f32>(k2 + c)
      t3 += x * load<f32>(k3 + c)
    }
    const to = scores + (<usize>j << 2)
    store<f32>(to, t0 * factor)
    store<f32>(to, t1 * factor, 4)
    store<f32>(to, t2 * factor, 8)
    store<f32>(to, t3 * factor, 12)
  }
}

/** sums[d] += p[n] . values; values [n, d] in f32. 16 columns at a time. */
// @ts-ignore: decorator
@inline
function addValues(p: usize, values: usize, n: i32, d: i32, sums: usize): void {
  const bytes = <usize>d << 2
  const end = p + (<usize>n << 2)
  let c: usize = 0
  for (; c + 64 <= bytes; c += 64) {
    const to = sums + c
    let s0 = v128.load(to)
    let s1 = v128.load(to, 16)
    let s2 = v128.load(to, 32)
    let s3 = v128.load(to, 48)
    let v = values + c
    for (let at = p; at < end; at += 4, v += bytes) {
      const weight = v128.load32_splat(at)
      s0 = madd(weight, v128.load(v), s0)
      s1 = madd(weight, v128.load(v, 16), s1)
      s2 = madd(weight, v128.load(v, 32), s2)
      s3 = madd(weight, v128.load(v, 48), s3)
    }
    v128.store(to, s0)
    v128.store(to, s1, 16)
    v128.store(to, s2, 32)
    v128.store(to, s3, 48)
  }
  for (; c < bytes; c += 4) {
    let sum = load<f32>(sums + c)
    let v = values + c
    for (let at = p; at < end; at += 4, v += bytes) sum += load<f32>(at) * load<f32>(v)
    store<f32>(sums + c, sum)
  }
}

/**
 * As `attend` for one token: its `group` heads q[group, d] read keys first..last-1 as they lie, since packing them would cost more than
 * the products of so few rows. out [group, d]; lse [group] (0: not wanted).
 */
function attendOne(
  q: usize, k: usize, v: usize, dtype: i32, out: usize, lse: usize, group: i32, d: i32, factor: f32, first: i32, last: i32,
  scratch: usize,
): void {
  const dim = up(d, 4)
  const size = rowBytes(dtype, d)
  const total = scratch + (<usize>group << 2)
  const scores = total + (<usize>group << 2)
  const sums = scores + (<usize>(group * TILE) << 2)
  // a tile of keys or values in f32
  const wide = sums + (<usize>(group * dim) << 2)
  for (let h: usize = 0; h < <usize>group; h++) store<f32>(scratch + (h << 2), LOG_ZERO)
  memory.fill(total, 0, <usize>group << 2)
  memory.fill(sums, 0, <usize>(group * dim) << 2)
  for (let j = first; j < last; j += TILE) {
    const n = min(TILE, last - j)
    const n4 = up(n, 4)
    const keys = f32Rows(dtype, k + <usize>j * size, n * d, wide)
    for (let h: usize = 0; h < <usize>group; h++) {
      const row = scores + h * (TILE << 2)
      scoresOf(q + ((h * d) << 2), keys, n, d, factor, row)
      mask(row, 0, n, n4, LOG_ZERO)
      softmaxRow(row, n4, scratch + (h << 2), total + (h << 2), sums + ((h * dim) << 2), dim)
    }
    const values = f32Rows(dtype, v + <usize>j * size, n * d, wide)
    for (let h: usize = 0; h < <usize>group; h++) addValues(scores + h * (TILE << 2), values, n, d, sums + ((h * dim) << 2))
  }
  for (let h: usize = 0; h < <usize>group; h++) {
    const mass = load<f32>(total + (h << 2))
    writeRow(sums + ((h * dim) << 2), out + ((h * d) << 2), d, 1 / mass)
    if (lse) store<f32>(lse + (h << 2), <f32>(<f64>load<f32>(scratch + (h << 2)) + Math.log(mass)))
  }
}

/** `count` elements as f32: where they are, or unpacked to `wide`. */
// @ts-ignore: decorator
@inline
function f32Rows(dtype: i32, from: usize, count: i32, wide: usize): usize {
  if (dtype == F32) return from
  unpack(dtype, from, count, wide)
  return wide
}

/** Where the keys or values of a slot's head begin. */
// @ts-ignore: decorator
@inline
function headOf(cache: usize, dtype: i32, slot: i32, kvHeads: i32, g: i32, capacity: i32, d: i32): usize {
  return cache + <usize>(slot * kvHeads + g) * capacity * rowBytes(dtype, d)
}

/**
 * Rows of one slot, slot i32[1]: q, out [r, heads*d], caches, positions i32[r]. `own` bytes of scratch a thread: 8 a row of a block for
 * the ranges, then what `attend` needs.
 */
export function attentionCached(
  q: usize, cacheK: usize, cacheV: usize, dtype: i32, positions: usize, slot: usize, out: usize, r: i32, capacity: i32,
  heads: i32, kvHeads: i32, d: i32, factor: f32, window: i32, scratch: usize, own: usize, thread: i32, threads: i32,
): void {
  const group = heads / kvHeads
  const width = heads * d
  const block = blockTokens(group)
  const s = load<i32>(slot)
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
 * ceil(capacity / CACHED_CHUNK). Chunks past a row's position, and before its window, are left as they were. Of one chunk partial is the
 * result: lse is 0 then, and rows at position -1 become zeros.
 */
export function attentionCachedChunks(
  q: usize, cacheK: usize, cacheV: usize, dtype: i32, positions: usize, partial: usize, lse: usize, r: i32, capacity: i32,
  heads: i32, kvHeads: i32, d: i32, factor: f32, window: i32, scratch: usize, own: usize, thread: i32, threads: i32,
): void {
  const group = heads / kvHeads
  const width = heads * d
  const chunks = (capacity + CACHED_CHUNK - 1) / CACHED_CHUNK
  // tasks count only where there is work, so that threads share what is there
  let task = 0
  for (let row = 0; row < r; row++) {
    const end = load<i32>(positions + (<usize>row << 2)) + 1
    const first = max(0, end - window)
    if (!lse && end <= 0 && thread == 0) memory.fill(partial + (<usize>(row * width) << 2), 0, <usize>width << 2)
    for (let c = first / CACHED_CHUNK; c * CACHED_CHUNK < end; c++) {
      for (let g = 0; g < kvHeads; g++, task++) {
        if (task % threads != thread) continue
        const piece = <usize>(row * chunks + c)
        attendOne(
          q + (<usize>(row * width + g * group * d) << 2), headOf(cacheK, dtype, row, kvHeads, g, capacity, d),
          headOf(cacheV, dtype, row, kvHeads, g, capacity, d), dtype, partial + ((piece * width + <usize>(g * group * d)) << 2),
          lse ? lse + ((piece * heads + <usize>(g * group)) << 2) : 0, group, d, factor, max(first, c * CACHED_CHUNK),
          min(end, (c + 1) * CACHED_CHUNK), scratch + <usize>thread * own,
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
