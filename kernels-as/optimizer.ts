// torch's AdamW after clip_grad_norm_, in place; the gradient is zeroed in the same pass. Threads share
// runs of 4 elements.
// Measured (1 thread): 1.1 ns an element in cache; 4 ns, 8 GB/s, from memory.
import { shareEnd, shareStart } from './common'

/**
 * p, g, m, v [n], normSquared [1], hyper f32[10] = lr, beta1, beta2, eps, weightDecay, maxGradNorm (0: no clipping),
 * 1 - beta1^t, 1 - beta2^t, 1 - beta1, 1 - beta2. A norm that is not finite leaves all but g as it was.
 */
export function adamw(
  p: usize, g: usize, m: usize, v: usize, normSquared: usize, hyper: usize, n: i32, decay: i32, thread: i32,
  threads: i32,
): void {
  const end = shareEnd(n, 4, thread, threads)
  let i = shareStart(n, 4, thread, threads)
  const norm = <f64>load<f32>(normSquared)
  if (!isFinite(norm)) {
    memory.fill(g + (<usize>i << 2), 0, <usize>(end - i) << 2)
    return
  }
  const lr = <f64>load<f32>(hyper)
  const maxGradNorm = <f64>load<f32>(hyper, 20)
  const clip = maxGradNorm > 0 ? Math.min(1, maxGradNorm / (Math.sqrt(norm) + 1e-6)) : 1
  const clip4 = f32x4.splat(<f32>clip)
  const beta1 = f32x4.splat(load<f32>(hyper, 4))
  const beta2 = f32x4.splat(load<f32>(hyper, 8))
  const rest1 = f32x4.splat(load<f32>(hyper, 32))
  const rest2 = f32x4.splat(load<f32>(hyper, 36))
  const eps = f32x4.splat(load<f32>(hyper, 12))
  const keep = f32x4.splat(decay ? <f32>(1 - lr * <f64>load<f32>(hyper, 16)) : 1)
  const step = f32x4.splat(<f32>(lr / <f64>load<f32>(hyper, 24)))
  const root = f32x4.splat(<f32>(1 / Math.sqrt(load<f32>(hyper, 28))))
  for (; i < end; i += 4) {
    const at = <usize>i << 2
    const whole = i + 4 <= end
    const grad = f32x4.mul(take(g + at, end - i), clip4)
    const m2 = f32x4.add(f32x4.mul(take(m + at, end - i), beta1), f32x4.mul(rest1, grad))
    const v2 = f32x4.add(f32x4.mul(take(v + at, end - i), beta2), f32x4.mul(rest2, f32x4.mul(grad, grad)))
    const ratio = f32x4.div(m2, f32x4.add(f32x4.mul(f32x4.sqrt(v2), root), eps))
    const p2 = f32x4.sub(f32x4.mul(take(p + at, end - i), keep), f32x4.mul(step, ratio))
    if (whole) {
      v128.store(p + at, p2)
      v128.store(m + at, m2)
      v128.store(v + at, v2)
      v128.store(g + at, f32x4.splat(0))
    } else {
      put(p + at, p2, end - i)
      put(m + at, m2, end - i)
      put(v + at, v2, end - i)
      put(g + at, f32x4.splat(0), end - i)
    }
  }
}

// Up to four elements, zeros past `count`.
// @ts-ignore: decorator
@inline
function take(at: usize, count: i32): v128 {
  if (count >= 4) return v128.load(at)
  let a = v128.load32_zero(at)
  if (count > 1) a = v128.load_lane<f32>(at, a, 1, 4)
  if (count > 2) a = v128.load_lane<f32>(at, a, 2, 8)
  return a
}

// The first `count` of four elements, count < 4.
// @ts-ignore: decorator
@inline
function put(at: usize, a: v128, count: i32): void {
  v128.store_lane<f32>(at, a, 0)
  if (count > 1) v128.store_lane<f32>(at, a, 1, 4)
  if (count > 2) v128.store_lane<f32>(at, a, 2, 8)
}
