// Causal attention within packed segments, grouped query heads, online softmax; and its reverse. Never N^2 memory.
//
// Forward and dq: one task is a key/value head and a block of tokens, with all query heads that share it as the rows
// of one tile (about 64 rows), so that each tile of 64 keys is packed once for all of them. dk and dv: one task is a
// key/value head and 32 keys. Only tiles between starts[i] and i are visited. Tasks depend on the shapes alone and
// each output is written by one task: the same bits for any number of threads. Threads take tasks to and fro (0 1 1 0
// 0 1 ...), since later tokens cost more.
// Measured (1 thread of an EPYC VM, N 512, H 14, G 2, D 64, causal FLOPs only): forward 38, dq 44, dk and dv 40
// GFLOP/s; the reverse is 29 counted as its five necessary products (the two calls compute seven). Segments of 65 tokens
// (N 3072, H 4, G 2; Sapphire Rapids VM, Node 24): the reverse takes 45 ms, 60 with 64 keys at once.
// `window`: a token sees so many, itself among them.
import { lines, LOG_ZERO, max4, sum4 } from './common'
import { exp1, exp4 } from './math'
import { F32, rowBytes, unpack } from './pack'
import { packA, packColumns8, packRows8, productPanels, productTile, TILE } from './tile'

/** The first key that token i sees. */
// @ts-ignore: decorator
@inline
function firstKey(starts: usize, i: i32, window: i32): i32 {
  return max(load<i32>(starts + (<usize>i << 2)), i + 1 - window)
}

/** Keys, and queries, that attentionBackKeys takes at once: of wider tiles short segments leave more masked. */
const HALF: i32 = TILE / 2

// @ts-ignore: decorator
@inline
function isMine(task: i32, thread: i32, threads: i32): bool {
  const turn = task % (threads << 1)
  return turn == thread || turn == (threads << 1) - 1 - thread
}

/** Tokens of a block: about 64 rows of all the query heads that share a key/value head, a multiple of 4. */
export function blockTokens(group: i32): i32 {
  return max(4, (64 / group) & -4)
}

// @ts-ignore: decorator
@inline
export function up(n: i32, unit: i32): i32 {
  return (n + unit - 1) & -unit
}

/** Bytes that one thread needs for `block` tokens of `group` heads: ranges, then the pieces of `attend` in their order. */
export function attendScratch(block: i32, group: i32, d: i32, dtype: i32): usize {
  const rows = up(block * group, 4)
  const dim = up(d, 8)
  const wide = dtype == F32 ? 0 : TILE * d
  return lines(8 * block + 4 * (2 * rows + rows * d + TILE * d + TILE * dim + rows * TILE + rows * dim + wide))
}

/** Bytes that one thread needs for `attention`. */
export function attentionScratch(group: i32, d: i32): usize {
  return attendScratch(blockTokens(group), group, d, F32)
}

/** Bytes that one thread needs for attentionBackQuery and attentionBackKeys. */
export function attentionBackScratch(group: i32, d: i32): usize {
  const block = blockTokens(group)
  const most = block * group
  const dim = up(d, 8)
  const query = 8 * block + 4 * (2 * most * d + 2 * TILE * d + TILE * dim + 2 * most * TILE + most * dim)
  const keys = 4 * (4 * HALF * d + 2 * TILE * dim + 2 * HALF * dim + 2 * HALF * TILE + 2 * HALF)
  return lines(max(query, keys))
}

// A row's scores outside of its columns from..to become `value`.
// @ts-ignore: decorator
@inline
export function mask(row: usize, from: i32, to: i32, width: i32, value: f32): void {
  for (let c = 0; c < from; c++) store<f32>(row + (<usize>c << 2), value)
  for (let c = to; c < width; c++) store<f32>(row + (<usize>c << 2), value)
}

/** Online softmax: n4 scores become exp(score - top); where that raises the row's top, its total and sums shrink. */
// @ts-ignore: decorator
@inline
export function softmaxRow(row: usize, n4: i32, top: usize, total: usize, sums: usize, dim: i32): void {
  const end = row + (<usize>n4 << 2)
  let most = v128.load(row)
  for (let c = row + 16; c < end; c += 16) most = f32x4.pmax(most, v128.load(c))
  const old = load<f32>(top)
  const now = max(old, max4(most))
  const now4 = f32x4.splat(now)
  let sum = f32x4.splat(0)
  for (let c = row; c < end; c += 16) {
    const p = exp4(f32x4.sub(v128.load(c), now4))
    v128.store(c, p)
    sum = f32x4.add(sum, p)
  }
  if (now != old) {
    const shrink = exp1(old - now)
    store<f32>(top, now)
    store<f32>(total, load<f32>(total) * shrink + sum4(sum))
    const shrink4 = f32x4.splat(shrink)
    for (let c: usize = 0; c < <usize>dim << 2; c += 16) v128.store(sums + c, f32x4.mul(v128.load(sums + c), shrink4))
  } else store<f32>(total, load<f32>(total) + sum4(sum))
}

/**
 * Attention of `tokens` consecutive rows of q, `group` heads each (q and out at the first of them, rows `width` floats
 * apart), to keys first[t]..last[t]-1 (i32, at `ranges` and `ranges + tokens`); k and v lie at key 0, `kvWidth` elements of
 * `dtype` a key, d where that is not f32. lse (0: not wanted) at the first token and head, lseWidth floats a token. scratch:
 * `attendScratch`.
 */
export function attend(
  q: usize, k: usize, v: usize, dtype: i32, out: usize, lse: usize, width: i32, kvWidth: i32, lseWidth: i32,
  tokens: i32, group: i32, d: i32, factor: f32, ranges: usize, scratch: usize,
): void {
  const m = tokens * group
  const rows = up(m, 4)
  const dim = up(d, 8)
  const stride = <usize>kvWidth << 2
  const keyBytes = rowBytes(dtype, kvWidth)
  const top = scratch
  const total = top + (<usize>rows << 2)
  const qp = total + (<usize>rows << 2)
  const kp = qp + (<usize>(rows * d) << 2)
  const vp = kp + (<usize>(TILE * d) << 2)
  const scores = vp + (<usize>(TILE * dim) << 2)
  const sums = scores + (<usize>(rows * TILE) << 2)
  // a tile of keys or values in f32
  const wide = sums + (<usize>(rows * dim) << 2)
  let from = i32.MAX_VALUE
  let to = 0
  for (let t: usize = 0; t < <usize>tokens; t++) {
    from = min(from, load<i32>(ranges + (t << 2)))
    to = max(to, load<i32>(ranges + ((<usize>tokens + t) << 2)))
  }
  // row r is head r / tokens of token r % tokens
  packA(q, <usize>d << 2, <usize>width << 2, tokens, m, d, factor, qp)
  for (let r = 0; r < rows; r++) {
    store<f32>(top + (<usize>r << 2), LOG_ZERO)
    store<f32>(total + (<usize>r << 2), 0)
  }
  memory.fill(sums, 0, <usize>(rows * dim) << 2)
  for (let j = from; j < to; j += TILE) {
    const n = min(TILE, to - j)
    const n4 = up(n, 4)
    const at = <usize>j * keyBytes
    if (dtype != F32) unpack(dtype, k + at, n * d, wide)
    packColumns8(dtype == F32 ? k + at : wide, stride, n, d, 1, kp)
    if (dtype != F32) unpack(dtype, v + at, n * d, wide)
    packRows8(dtype == F32 ? v + at : wide, stride, n, d, 1, vp)
    productPanels(qp, kp, scores, rows, up(n, 8), d)
    for (let r = 0; r < rows; r++) {
      const row = scores + (<usize>(r * TILE) << 2)
      const t = <usize>(r % tokens)
      const a = max(load<i32>(ranges + (t << 2)) - j, 0)
      const b = min(load<i32>(ranges + ((<usize>tokens + t) << 2)) - j, n)
      if (a >= b) {
        memory.fill(row, 0, <usize>n4 << 2)
        continue
      }
      if (a > 0 || b < n4) mask(row, a, b, n4, LOG_ZERO)
      softmaxRow(row, n4, top + (<usize>r << 2), total + (<usize>r << 2), sums + (<usize>(r * dim) << 2), dim)
    }
    productTile(scores, vp, sums, rows, dim, n)
  }
  for (let r = 0; r < m; r++) {
    const t = r % tokens
    const h = r / tokens
    const mass = load<f32>(total + (<usize>r << 2))
    const y = out + (<usize>(t * width + h * d) << 2)
    writeRow(sums + (<usize>(r * dim) << 2), y, d, mass == 0 ? 0 : 1 / mass)
    if (lse)
      store<f32>(lse + (<usize>(t * lseWidth + h) << 2), <f32>(<f64>load<f32>(top + (<usize>r << 2)) + Math.log(mass)))
  }
}

export function writeRow(x: usize, y: usize, d: i32, factor: f32): void {
  const f = f32x4.splat(factor)
  let i = 0
  for (; i + 4 <= d; i += 4) v128.store(y + (<usize>i << 2), f32x4.mul(v128.load(x + (<usize>i << 2)), f))
  for (; i < d; i++) store<f32>(y + (<usize>i << 2), load<f32>(x + (<usize>i << 2)) * factor)
}

/**
 * q, out [n, heads*d], k, v [n, kvHeads*d], starts i32[n], lse [n, heads]; `own` bytes of scratch a thread: 8 * block
 * tokens for the ranges, then what `attend` needs.
 */
export function attention(
  q: usize, k: usize, v: usize, starts: usize, out: usize, lse: usize, n: i32, heads: i32, kvHeads: i32, d: i32,
  factor: f32, window: i32, scratch: usize, own: usize, thread: i32, threads: i32,
): void {
  const group = heads / kvHeads
  const block = blockTokens(group)
  const ranges = scratch + <usize>thread * own
  let task = 0
  for (let i = 0; i < n; i += block) {
    const tokens = min(block, n - i)
    for (let g = 0; g < kvHeads; g++, task++) {
      if (!isMine(task, thread, threads)) continue
      causalRanges(starts, i, tokens, window, ranges)
      const at = <usize>(i * heads + g * group)
      attend(
        q + ((at * d) << 2), k + (<usize>(g * d) << 2), v + (<usize>(g * d) << 2), F32, out + ((at * d) << 2),
        lse + (at << 2), heads * d, kvHeads * d, heads, tokens, group, d, factor, ranges, ranges + (<usize>block << 3),
      )
    }
  }
}

// @ts-ignore: decorator
@inline
function causalRanges(starts: usize, i: i32, tokens: i32, window: i32, ranges: usize): void {
  for (let t = 0; t < tokens; t++) {
    store<i32>(ranges + (<usize>t << 2), firstKey(starts, i + t, window))
    store<i32>(ranges + (<usize>(tokens + t) << 2), i + t + 1)
  }
}

/** delta[i, h] = dout . out over the head's d elements; delta [n, heads]. Threads share the rows. */
export function attentionDelta(
  dout: usize, out: usize, delta: usize, n: i32, heads: i32, d: i32, thread: i32, threads: i32,
): void {
  for (let r = thread; r < n; r += threads) {
    for (let h = 0; h < heads; h++) {
      const at = (<usize>(r * heads + h) * d) << 2
      let s = f32x4.splat(0)
      let i = 0
      for (; i + 4 <= d; i += 4)
        s = f32x4.add(s, f32x4.mul(v128.load(dout + at + (<usize>i << 2)), v128.load(out + at + (<usize>i << 2))))
      let sum = sum4(s)
      for (; i < d; i++) sum += load<f32>(dout + at + (<usize>i << 2)) * load<f32>(out + at + (<usize>i << 2))
      store<f32>(delta + (<usize>(r * heads + h) << 2), sum)
    }
  }
}

/** dq = factor * ds * k, ds = p * (dout . v - delta), p = exp(factor * q . k - lse). Tasks as in the forward pass. */
export function attentionBackQuery(
  dout: usize, q: usize, k: usize, v: usize, starts: usize, lse: usize, delta: usize, dq: usize,
  n: i32, heads: i32, kvHeads: i32, d: i32, factor: f32, window: i32, scratch: usize, own: usize, thread: i32,
  threads: i32,
): void {
  const group = heads / kvHeads
  const block = blockTokens(group)
  const dim = up(d, 8)
  const width = <usize>(heads * d) << 2
  const stride = <usize>(kvHeads * d) << 2
  const most = block * group
  const ranges = scratch + <usize>thread * own
  const qp = ranges + (<usize>block << 3)
  const dp = qp + (<usize>(most * d) << 2)
  const kc = dp + (<usize>(most * d) << 2)
  const vc = kc + (<usize>(TILE * d) << 2)
  const kr = vc + (<usize>(TILE * d) << 2)
  const s = kr + (<usize>(TILE * dim) << 2)
  const ds = s + (<usize>(most * TILE) << 2)
  const sums = ds + (<usize>(most * TILE) << 2)
  let task = 0
  for (let i = 0; i < n; i += block) {
    const tokens = min(block, n - i)
    const m = tokens * group
    const rows = up(m, 4)
    for (let g = 0; g < kvHeads; g++, task++) {
      if (!isMine(task, thread, threads)) continue
      causalRanges(starts, i, tokens, window, ranges)
      const at = <usize>(i * heads + g * group)
      packA(q + ((at * d) << 2), <usize>d << 2, width, tokens, m, d, factor, qp)
      packA(dout + ((at * d) << 2), <usize>d << 2, width, tokens, m, d, 1, dp)
      memory.fill(sums, 0, <usize>(rows * dim) << 2)
      const to = i + tokens
      for (let j = load<i32>(ranges); j < to; j += TILE) {
        const keys = min(TILE, to - j)
        const n4 = up(keys, 4)
        const offset = <usize>j * stride + (<usize>(g * d) << 2)
        packColumns8(k + offset, stride, keys, d, 1, kc)
        packColumns8(v + offset, stride, keys, d, 1, vc)
        packRows8(k + offset, stride, keys, d, 1, kr)
        productPanels(qp, kc, s, rows, up(keys, 8), d)
        productPanels(dp, vc, ds, rows, up(keys, 8), d)
        for (let r = 0; r < rows; r++) {
          const t = r % tokens
          // rows that only fill the last four are dropped in the end
          const h = min(r / tokens, group - 1)
          const row = ds + (<usize>(r * TILE) << 2)
          const score = s + (<usize>(r * TILE) << 2)
          const a = max(load<i32>(ranges + (<usize>t << 2)) - j, 0)
          const b = min(i + t + 1 - j, keys)
          if (a >= b) {
            memory.fill(row, 0, <usize>n4 << 2)
            continue
          }
          if (a > 0 || b < n4) mask(score, a, b, n4, LOG_ZERO)
          const index = (at + <usize>(t * heads + h)) << 2
          const lse4 = v128.load32_splat(lse + index)
          const delta4 = v128.load32_splat(delta + index)
          for (let c: usize = 0; c < <usize>n4 << 2; c += 16) {
            const p = exp4(f32x4.sub(v128.load(score + c), lse4))
            v128.store(row + c, f32x4.mul(p, f32x4.sub(v128.load(row + c), delta4)))
          }
        }
        productTile(ds, kr, sums, rows, dim, keys)
      }
      for (let r = 0; r < m; r++) {
        const y = dq + ((at * d) << 2) + <usize>(r % tokens) * width + (<usize>((r / tokens) * d) << 2)
        writeRow(sums + (<usize>(r * dim) << 2), y, d, factor)
      }
    }
  }
}

/** dk = factor * dsT * q and dv = pT * dout, summed over the group's heads. One task: HALF keys of one kv head. */
export function attentionBackKeys(
  dout: usize, q: usize, k: usize, v: usize, starts: usize, lse: usize, delta: usize, dk: usize, dv: usize,
  n: i32, heads: i32, kvHeads: i32, d: i32, factor: f32, window: i32, scratch: usize, own: usize, thread: i32,
  threads: i32,
): void {
  const group = heads / kvHeads
  const dim = up(d, 8)
  const width = <usize>(heads * d) << 2
  const stride = <usize>(kvHeads * d) << 2
  const side = <usize>(HALF * d) << 2
  const padded = <usize>(HALF * dim) << 2
  // panels of productTile are as deep as a whole tile
  const panels = <usize>(TILE * dim) << 2
  const tile = <usize>(HALF * TILE) << 2
  const kp = scratch + <usize>thread * own
  const vp = kp + side
  const qc = vp + side
  const dc = qc + side
  const qr = dc + side
  const dr = qr + panels
  const s = dr + panels
  const ds = s + tile
  const dks = ds + tile
  const dvs = dks + padded
  const lses = dvs + padded
  const deltas = lses + (<usize>HALF << 2)
  let task = 0
  for (let j = 0; j < n; j += HALF) {
    const keys = min(HALF, n - j)
    const rows = up(keys, 4)
    for (let g = 0; g < kvHeads; g++, task++) {
      if (!isMine(task, thread, threads)) continue
      const offset = <usize>j * stride + (<usize>(g * d) << 2)
      packA(k + offset, 0, stride, keys, keys, d, 1, kp)
      packA(v + offset, 0, stride, keys, keys, d, 1, vp)
      memory.fill(dks, 0, padded << 1)
      for (let i = j; i < n; i += HALF) {
        // first keys never decrease: from here on no query sees these keys
        if (firstKey(starts, i, window) >= j + keys) break
        const queries = min(HALF, n - i)
        const n4 = up(queries, 4)
        const all = i >= j + keys && firstKey(starts, i + queries - 1, window) <= j
        for (let h = g * group; h < (g + 1) * group; h++) {
          const from = <usize>i * width + (<usize>(h * d) << 2)
          packColumns8(q + from, width, queries, d, factor, qc)
          packColumns8(dout + from, width, queries, d, 1, dc)
          packRows8(q + from, width, queries, d, factor, qr)
          packRows8(dout + from, width, queries, d, 1, dr)
          for (let t = 0; t < n4; t++) {
            const index = (<usize>(i + min(t, queries - 1)) * heads + h) << 2
            store<f32>(lses + (<usize>t << 2), load<f32>(lse + index))
            store<f32>(deltas + (<usize>t << 2), load<f32>(delta + index))
          }
          productPanels(kp, qc, s, rows, up(queries, 8), d)
          productPanels(vp, dc, ds, rows, up(queries, 8), d)
          for (let r = 0; r < keys; r++) {
            const score = s + (<usize>(r * TILE) << 2)
            const row = ds + (<usize>(r * TILE) << 2)
            if (!all) maskQueries(score, starts, i, queries, j + r, window)
            for (let c: usize = 0; c < <usize>n4 << 2; c += 16) {
              const p = exp4(f32x4.sub(v128.load(score + c), v128.load(lses + c)))
              v128.store(score + c, p)
              v128.store(row + c, f32x4.mul(p, f32x4.sub(v128.load(row + c), v128.load(deltas + c))))
            }
          }
          productTile(s, dr, dvs, rows, dim, queries)
          productTile(ds, qr, dks, rows, dim, queries)
        }
      }
      for (let r = 0; r < keys; r++) {
        const to = offset + <usize>r * stride
        writeRow(dks + (<usize>(r * dim) << 2), dk + to, d, 1)
        writeRow(dvs + (<usize>(r * dim) << 2), dv + to, d, 1)
      }
    }
  }
}

// Queries i.. that do not see key j: those before it, and those whose segment or window begins after it.
// @ts-ignore: decorator
@inline
function maskQueries(score: usize, starts: usize, i: i32, queries: i32, j: i32, window: i32): void {
  for (let t = 0; t < queries; t++)
    if (i + t < j || firstKey(starts, i + t, window) > j) store<f32>(score + (<usize>t << 2), LOG_ZERO)
}
