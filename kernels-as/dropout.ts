// Counter-based dropout: the mask is a hash of (seed, stream, element index), the integers of sdk/ops/dropout.ts.
// Threads share runs of 4 elements. y may be x.
// Measured (1 thread): 0.4 ns an element, 21 GB/s.
import { shareEnd, shareStart } from './common'

// hash-prospector 16-15-15, after adding the golden ratio
// @ts-ignore: decorator
@inline
function mix(x: u32): u32 {
  let h = x + 0x9e3779b9
  h = (h ^ (h >>> 16)) * 0x21f0aaad
  h = (h ^ (h >>> 15)) * 0x735a2d97
  return h ^ (h >>> 15)
}

// @ts-ignore: decorator
@inline
function mix4(x: v128): v128 {
  let h = i32x4.add(x, i32x4.splat(0x9e3779b9))
  h = i32x4.mul(v128.xor(h, i32x4.shr_u(h, 16)), i32x4.splat(0x21f0aaad))
  h = i32x4.mul(v128.xor(h, i32x4.shr_u(h, 15)), i32x4.splat(0x735a2d97))
  return v128.xor(h, i32x4.shr_u(h, 15))
}

/** y = hash >= least ? x * factor : 0; seed i32[2], `stream` modulo 2^32, least = floor(p * 2^32), factor = 1/(1-p). */
export function dropout(
  x: usize, seed: usize, y: usize, n: i32, stream: u32, least: u32, factor: f32, thread: i32, threads: i32,
): void {
  const key = mix(stream ^ mix(load<u32>(seed, 4) ^ mix(load<u32>(seed))))
  const end = shareEnd(n, 4, thread, threads)
  let i = shareStart(n, 4, thread, threads)
  const key4 = i32x4.splat(key)
  const least4 = i32x4.splat(least)
  const factor4 = f32x4.splat(factor)
  let index = i32x4.add(i32x4.splat(i), i32x4(0, 1, 2, 3))
  for (; i + 4 <= end; i += 4, index = i32x4.add(index, i32x4.splat(4))) {
    const at = <usize>i << 2
    const keep = i32x4.ge_u(mix4(v128.xor(index, key4)), least4)
    v128.store(y + at, v128.and(f32x4.mul(v128.load(x + at), factor4), keep))
  }
  for (; i < end; i++) {
    const at = <usize>i << 2
    store<f32>(y + at, mix(<u32>i ^ key) >= least ? load<f32>(x + at) * factor : 0)
  }
}
