// Helpers of all kernels: each thread's share of the work, small vector sums.
import { LOG_ZERO as LOG_ZERO_64 } from '../sdk/log-zero'

export const LOG_ZERO = <f32>LOG_ZERO_64

/**
 * Multiples of `unit` below `n` that come before this thread's share; threads split whole units as evenly as they go.
 */
// @ts-ignore: decorator
@inline
export function shareStart(n: i32, unit: i32, thread: i32, threads: i32): i32 {
  const units = (n + unit - 1) / unit
  return min(n, <i32>((<i64>units * thread) / threads) * unit)
}

/** End of this thread's share: where the next one's begins. */
// @ts-ignore: decorator
@inline
export function shareEnd(n: i32, unit: i32, thread: i32, threads: i32): i32 {
  return shareStart(n, unit, thread + 1, threads)
}

/** Where parts of a call are counted: in the control block (controlBase of targets/wasm/memory.ts); the barrier sets it to 0. */
const PARTS: usize = (1 << 20) + 256

/**
 * The part that this thread takes after `part`, -1 at first: a thread that is slower, or interrupted, takes fewer. Only where a barrier
 * follows the call.
 */
// @ts-ignore: decorator
@inline
export function nextPart(part: i32, threads: i32): i32 {
  if (ASC_FEATURE_THREADS && threads > 1) return atomic.add<i32>(PARTS, 1)
  return part + 1
}

/** Bytes rounded up to whole cache lines: scratch of one thread does not share any with another's. */
// @ts-ignore: decorator
@inline
export function lines(bytes: usize): usize {
  return (bytes + 63) & ~63
}

/** a * b + c, rounded once in the relaxed build where the processor can, else twice. */
// @ts-ignore: decorator
@inline
export function madd(a: v128, b: v128, c: v128): v128 {
  return ASC_FEATURE_RELAXED_SIMD ? f32x4.relaxed_madd(a, b, c) : f32x4.add(f32x4.mul(a, b), c)
}

/** sums + x * w, pairs of i16 added up, or quads of bytes: x signed, w 0..127. */
// @ts-ignore: decorator
@inline
export function addProducts(isQuads: bool, x: v128, w: v128, sums: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) if (isQuads) return i32x4.relaxed_dot_i8x16_i7x16_add_s(x, w, sums)
  return i32x4.add(i32x4.dot_i16x8_s(x, w), sums)
}

/** (a0 + a2) + (a1 + a3) */
// @ts-ignore: decorator
@inline
export function sum4(a: v128): f32 {
  const b = f32x4.add(a, i8x16.shuffle(a, a, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7))
  return f32x4.extract_lane(b, 0) + f32x4.extract_lane(b, 1)
}

/** Lanes 0 and 1 of four f32, and lanes 2 and 3, as f64. */
// @ts-ignore: decorator
@inline
export function low(a: v128): v128 {
  return f64x2.promote_low_f32x4(a)
}

// @ts-ignore: decorator
@inline
export function high(a: v128): v128 {
  return f64x2.promote_low_f32x4(v128.shuffle<u64>(a, a, 1, 0))
}

/** Greatest of the four lanes. */
// @ts-ignore: decorator
@inline
export function max4(a: v128): f32 {
  return max(
    max(f32x4.extract_lane(a, 0), f32x4.extract_lane(a, 1)), max(f32x4.extract_lane(a, 2), f32x4.extract_lane(a, 3)),
  )
}
