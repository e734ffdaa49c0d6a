// What a teacher says of each token, from its logits [R, V]: the K likeliest ids with their log-probabilities and the
// mass of the rest, or N draws. Threads share the rows. Logits are read only: topLogProbs masks a copy in its scratch.
//
// The K best are kept in order by insertion: past the first few thousand ids hardly any of a vocabulary beats the worst
// of them, so this is one comparison of four ids at a time. Sums are f64, in a fixed order.

import { lines, LOG_ZERO, shareEnd, shareStart } from './common'
import { exp1, weigh } from './math'

/** Bytes of scratch that one thread needs for topLogProbs. */
export function topScratch(v: i32): usize {
  return lines((<usize>v) << 2)
}

/** ids i32[R, K], logProbs f32[R, K], tail f32[R]; scratch: one row f32[V] a thread. */
export function topLogProbs(
  logits: usize, temperature: usize, ids: usize, logProbs: usize, tail: usize, R: i32, V: i32, K: i32,
  scratch: usize, scratchBytes: i32, thread: i32, threads: i32,
): void {
  const inverse: f32 = 1 / load<f32>(temperature)
  const own = scratch + <usize>thread * scratchBytes
  const end = shareEnd(R, 1, thread, threads)
  for (let r = shareStart(R, 1, thread, threads); r < end; r++) {
    const row = logits + ((<usize>r * V) << 2)
    const best = ids + ((<usize>r * K) << 2)
    const values = logProbs + ((<usize>r * K) << 2)
    let found = 0
    let least: f32 = -Infinity
    let v = 0
    while (v < V) {
      // Nothing among the next four beats the worst that is kept.
      if (found == K && v + 4 <= V) {
        if (!v128.any_true(f32x4.gt(v128.load(row + (<usize>v << 2)), f32x4.splat(least)))) {
          v += 4
          continue
        }
      }
      const stop = min(V, v + 4)
      for (; v < stop; v++) {
        const value = load<f32>(row + (<usize>v << 2))
        if (found == K && value <= least) continue
        let at = found < K ? found++ : K - 1
        for (; at > 0 && load<f32>(values + (<usize>(at - 1) << 2)) < value; at--) {
          store<f32>(values + (<usize>at << 2), load<f32>(values + (<usize>(at - 1) << 2)))
          store<i32>(best + (<usize>at << 2), load<i32>(best + (<usize>(at - 1) << 2)))
        }
        store<f32>(values + (<usize>at << 2), value)
        store<i32>(best + (<usize>at << 2), v)
        if (found == K) least = load<f32>(values + (<usize>(K - 1) << 2))
      }
    }
    const top = load<f32>(values)
    memory.copy(own, row, <usize>V << 2)
    for (let i: usize = 0; i < <usize>K; i++) store<f32>(own + (<usize>load<i32>(best + (i << 2)) << 2), LOG_ZERO)
    // Relative to the greatest outside, so that a tail too small for f32's exp keeps its log.
    const outside = logMass(own, V, inverse, top)
    let total = Math.exp(outside)
    for (let i: usize = 0; i < <usize>K; i++) total += <f64>exp1((load<f32>(values + (i << 2)) - top) * inverse)
    const logTotal = Math.log(total)
    for (let i: usize = 0; i < <usize>K; i++) {
      const z = (<f64>load<f32>(values + (i << 2)) - <f64>top) * <f64>inverse
      store<f32>(values + (i << 2), <f32>(z - logTotal))
    }
    store<f32>(tail + (<usize>r << 2), K == V ? LOG_ZERO : <f32>(outside - logTotal))
  }
}

/** log Σ exp((l - top)/T), exact however small. */
function logMass(l: usize, v: i32, inverse: f32, top: f32): f64 {
  let greatest = load<f32>(l)
  for (let i = 1; i < v; i++) greatest = max(greatest, load<f32>(l + (<usize>i << 2)))
  return Math.log(weigh(l, 0, v, greatest, inverse)) + (<f64>greatest - <f64>top) * <f64>inverse
}

/** uniforms f32[R, N] ascending in each row; ids i32[R, N]: the first id whose cumulated mass exceeds each. */
export function drawTokens(
  logits: usize, temperature: usize, uniforms: usize, ids: usize, R: i32, V: i32, N: i32, thread: i32, threads: i32,
): void {
  const inverse: f32 = 1 / load<f32>(temperature)
  const end = shareEnd(R, 1, thread, threads)
  for (let r = shareStart(R, 1, thread, threads); r < end; r++) {
    const row = logits + ((<usize>r * V) << 2)
    const own = (<usize>r * N) << 2
    let top = load<f32>(row)
    for (let v = 1; v < V; v++) top = max(top, load<f32>(row + (<usize>v << 2)))
    const total = weigh(row, 0, V, top, inverse)
    let cumulated: f64 = 0
    let last = 0
    let n: usize = 0
    for (let v = 0; v < V && n < <usize>N; v++) {
      const weight = <f64>exp1((load<f32>(row + (<usize>v << 2)) - top) * inverse)
      if (weight == 0) continue
      cumulated += weight
      last = v
      while (n < <usize>N && cumulated > <f64>load<f32>(uniforms + own + (n << 2)) * total) {
        store<i32>(ids + own + (n << 2), v)
        n++
      }
    }
    for (; n < <usize>N; n++) store<i32>(ids + own + (n << 2), last)
  }
}
