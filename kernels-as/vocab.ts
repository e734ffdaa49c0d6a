// vocabPick and its gradient, over one slice of the vocabulary at a time: `linear` makes the slice's logits z[R, width]
// (before the division by T), these kernels consume them, and [R, V] never exists. A slice begins at id `first`.
// Split by rows of h; slices come in order, so nothing depends on the number of threads. Sums are f64.
//
// Measured: 64 rows of q8 151936x896 take 400 ms on one thread, 202 on two: 44 and 86 GFLOP/s of the product alone, so
// the exponentials cost some 8% of it.

import { high, LOG_ZERO, low, max4, shareEnd, shareStart } from './common'
import { exp1, exp4 } from './math'

/**
 * Bytes of one row's running sums over the ids that are not picked: maximum m, Σ exp(z - m), Σ exp(z - m)(z - m), as
 * f64.
 */
export const STATS: usize = 24

/** Takes a slice into the running sums; the z of picked ids goes to picked[R, K] instead. Overwrites those in z. */
export function vocabStats(
  z: usize, ids: usize, temperature: usize, picked: usize, stats: usize, R: i32, K: i32, width: i32, first: i32,
  thread: i32, threads: i32,
): void {
  const inverse: f32 = 1 / load<f32>(temperature)
  const inverse4 = f32x4.splat(inverse)
  const end = shareEnd(R, 1, thread, threads)
  for (let r = shareStart(R, 1, thread, threads); r < end; r++) {
    const row = z + ((<usize>(r * width)) << 2)
    const own = stats + <usize>r * STATS
    if (first == 0) {
      store<f64>(own, LOG_ZERO)
      store<f64>(own, 0, 8)
      store<f64>(own, 0, 16)
    }
    for (let k = 0; k < K; k++) {
      const at = (<usize>(r * K + k)) << 2
      const id = load<i32>(ids + at) - first
      if (<u32>id >= <u32>width) continue
      const place = row + ((<usize>id) << 2)
      store<f32>(picked + at, load<f32>(place) * inverse)
      store<f32>(place, LOG_ZERO * load<f32>(temperature))
    }
    let top4 = f32x4.splat(-Infinity)
    let v = 0
    for (; v + 4 <= width; v += 4) top4 = f32x4.max(top4, f32x4.mul(v128.load(row + ((<usize>v) << 2)), inverse4))
    let top = max4(top4)
    for (; v < width; v++) top = max(top, load<f32>(row + ((<usize>v) << 2)) * inverse)
    // Everything picked.
    if (top < LOG_ZERO / 10) continue
    const before = load<f64>(own)
    const m = max(before, <f64>top)
    const m4 = f32x4.splat(<f32>m)
    let sum2 = f64x2.splat(0)
    let product2 = f64x2.splat(0)
    for (v = 0; v + 4 <= width; v += 4) {
      const d = f32x4.sub(f32x4.mul(v128.load(row + ((<usize>v) << 2)), inverse4), m4)
      const e = exp4(d)
      const p = f32x4.mul(e, d)
      sum2 = f64x2.add(sum2, f64x2.add(low(e), high(e)))
      product2 = f64x2.add(product2, f64x2.add(low(p), high(p)))
    }
    let sum = f64x2.extract_lane(sum2, 0) + f64x2.extract_lane(sum2, 1)
    let product = f64x2.extract_lane(product2, 0) + f64x2.extract_lane(product2, 1)
    for (; v < width; v++) {
      const d = load<f32>(row + ((<usize>v) << 2)) * inverse - <f32>m
      const e = exp1(d)
      sum += e
      product += e * d
    }
    const factor = Math.exp(before - m)
    const sumBefore = load<f64>(own, 8)
    store<f64>(own, m)
    store<f64>(own, factor * sumBefore + sum, 8)
    store<f64>(own, factor * (load<f64>(own, 16) + (before - m) * sumBefore) + product, 16)
  }
}

/**
 * The results of each row, from the sums over the ids outside and the picked z (which become log-probabilities in
 * place).
 */
export function vocabCombine(
  ids: usize, picked: usize, stats: usize, lse: usize, entropy: usize, tail: usize, R: i32, K: i32, thread: i32,
  threads: i32,
): void {
  const end = shareEnd(R, 1, thread, threads)
  for (let r = shareStart(R, 1, thread, threads); r < end; r++) {
    const own = stats + <usize>r * STATS
    const outside = load<f64>(own)
    const outsideSum = load<f64>(own, 8)
    let m = outside
    for (let k = 0; k < K; k++) {
      const at = (<usize>(r * K + k)) << 2
      if (load<i32>(ids + at) >= 0) m = max(m, <f64>load<f32>(picked + at))
    }
    const factor = Math.exp(outside - m)
    let sum = factor * outsideSum
    let product = factor * (load<f64>(own, 16) + (outside - m) * outsideSum)
    for (let k = 0; k < K; k++) {
      const at = (<usize>(r * K + k)) << 2
      if (load<i32>(ids + at) < 0) continue
      const d = <f64>load<f32>(picked + at) - m
      const e = Math.exp(d)
      sum += e
      product += e * d
    }
    const logSum = Math.log(sum)
    const total = m + logSum
    const place = (<usize>r) << 2
    store<f32>(lse + place, <f32>total)
    store<f32>(entropy + place, <f32>(logSum - product / sum))
    store<f32>(tail + place, outsideSum > 0 ? <f32>(outside - m + Math.log(outsideSum) - logSum) : LOG_ZERO)
    for (let k = 0; k < K; k++) {
      const at = (<usize>(r * K + k)) << 2
      const id = load<i32>(ids + at)
      store<f32>(picked + at, id < 0 ? 0 : <f32>(<f64>load<f32>(picked + at) - m - logSum))
    }
  }
}

/**
 * z of a slice becomes dz / T in place: with log p = z/T - lse,
 * dz = p (dLse - Σ dLogProbs - dEntropy (log p + entropy) - dTail) + outside dTail exp(log p - tail) + dLogProb at its
 * id. `scratch`: K floats for each thread.
 */
export function vocabGradient(
  z: usize, ids: usize, dLogProbs: usize, dLse: usize, dEntropy: usize, dTail: usize, lse: usize, entropy: usize,
  tail: usize, temperature: usize, R: i32, K: i32, width: i32, first: i32, scratch: usize, thread: i32, threads: i32,
): void {
  const inverse: f32 = 1 / load<f32>(temperature)
  const inverse4 = f32x4.splat(inverse)
  const kept = scratch + ((<usize>(thread * K)) << 2)
  const end = shareEnd(R, 1, thread, threads)
  for (let r = shareStart(R, 1, thread, threads); r < end; r++) {
    const row = z + ((<usize>(r * width)) << 2)
    const place = (<usize>r) << 2
    const total = load<f32>(lse + place)
    const h = load<f32>(entropy + place)
    const outside = load<f32>(tail + place)
    const tailGradient: f32 = outside > LOG_ZERO / 10 ? load<f32>(dTail + place) : 0
    const entropyGradient = load<f32>(dEntropy + place)
    let common = load<f32>(dLse + place) - tailGradient
    for (let k = 0; k < K; k++) {
      const at = (<usize>(r * K + k)) << 2
      if (load<i32>(ids + at) >= 0) common -= load<f32>(dLogProbs + at)
    }
    // Picked ids have no tail part: computed on their own, before the rest overwrites their z.
    for (let k = 0; k < K; k++) {
      const at = (<usize>(r * K + k)) << 2
      const id = load<i32>(ids + at) - first
      if (<u32>id >= <u32>width) continue
      const logP = load<f32>(row + ((<usize>id) << 2)) * inverse - total
      const grad = exp1(logP) * (common - entropyGradient * (logP + h)) + load<f32>(dLogProbs + at)
      store<f32>(kept + ((<usize>k) << 2), grad * inverse)
    }
    const total4 = f32x4.splat(total)
    const h4 = f32x4.splat(h)
    const outside4 = f32x4.splat(outside)
    const common4 = f32x4.splat(common)
    const entropyGradient4 = f32x4.splat(entropyGradient)
    const tailGradient4 = f32x4.splat(tailGradient)
    let v = 0
    for (; v < width; v += 4) {
      // The last vector may be short: its missing elements are computed from nothing and not stored.
      const place4 = row + ((<usize>v) << 2)
      const whole = v + 4 <= width
      let z4 = f32x4.splat(0)
      if (whole) z4 = v128.load(place4)
      else {
        z4 = v128.load32_zero(place4)
        if (v + 1 < width) z4 = f32x4.replace_lane(z4, 1, load<f32>(place4, 4))
        if (v + 2 < width) z4 = f32x4.replace_lane(z4, 2, load<f32>(place4, 8))
      }
      const logP = f32x4.sub(f32x4.mul(z4, inverse4), total4)
      const weight = f32x4.sub(common4, f32x4.mul(entropyGradient4, f32x4.add(logP, h4)))
      let grad = f32x4.mul(exp4(logP), weight)
      if (tailGradient != 0) grad = f32x4.add(grad, f32x4.mul(tailGradient4, exp4(f32x4.sub(logP, outside4))))
      grad = f32x4.mul(grad, inverse4)
      if (whole) v128.store(place4, grad)
      else {
        store<f32>(place4, f32x4.extract_lane(grad, 0))
        if (v + 1 < width) store<f32>(place4, f32x4.extract_lane(grad, 1), 4)
        if (v + 2 < width) store<f32>(place4, f32x4.extract_lane(grad, 2), 8)
      }
    }
    for (let k = 0; k < K; k++) {
      const id = load<i32>(ids + ((<usize>(r * K + k)) << 2)) - first
      if (<u32>id < <u32>width) store<f32>(row + ((<usize>id) << 2), load<f32>(kept + ((<usize>k) << 2)))
    }
  }
}
