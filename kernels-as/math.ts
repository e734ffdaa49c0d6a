// exp in SIMD, about 1e-7 relative. log is the scalar f64 Math.log where kernels need it.
import { high, low } from './common'

/**
 * e^x of four f32. Below -87.33 exactly 0 (so that a mask of -1e30 or -Infinity adds nothing), above 88.72 Infinity.
 * 2^n * P(r) with n = round(x / ln 2), r = x - n ln 2 in two parts; P is Cephes' expf polynomial.
 */
// @ts-ignore: decorator
@inline
export function exp4(x: v128): v128 {
  const c = f32x4.pmax(f32x4.pmin(x, f32x4.splat(89)), f32x4.splat(-88))
  const n = f32x4.nearest(f32x4.mul(c, f32x4.splat(1.44269504088896341)))
  let r = f32x4.sub(c, f32x4.mul(n, f32x4.splat(0.693359375)))
  r = f32x4.sub(r, f32x4.mul(n, f32x4.splat(-2.1219444e-4)))
  let p = f32x4.splat(1.98756915e-4)
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(1.3981999507e-3))
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(8.3334519073e-3))
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(4.1665795894e-2))
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(1.6666665459e-1))
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(5.0000001201e-1))
  p = f32x4.add(f32x4.add(f32x4.mul(f32x4.mul(p, r), r), r), f32x4.splat(1))
  // 2^n in two factors: n = 128 alone would not fit the exponent.
  const k = i32x4.trunc_sat_f32x4_s(n)
  const half = i32x4.shr_s(k, 1)
  const bias = i32x4.splat(127)
  p = f32x4.mul(p, i32x4.shl(i32x4.add(half, bias), 23))
  p = f32x4.mul(p, i32x4.shl(i32x4.add(i32x4.sub(k, half), bias), 23))
  return v128.andnot(p, f32x4.lt(x, f32x4.splat(-87.3365)))
}

/** e^x of one f32, the same bits as a lane of exp4. */
// @ts-ignore: decorator
@inline
export function exp1(x: f32): f32 {
  return f32x4.extract_lane(exp4(f32x4.splat(x)), 0)
}

/** The sum of exp((l - top) * inverse), in f64 and in a fixed order; where p is not 0 each is stored there. */
// @ts-ignore: decorator
@inline
export function weigh(l: usize, p: usize, v: i32, top: f32, inverse: f32): f64 {
  const top4 = f32x4.splat(top)
  const inverse4 = f32x4.splat(inverse)
  let a = f64x2.splat(0)
  let i = 0
  for (; i + 4 <= v; i += 4) {
    const w = exp4(f32x4.mul(f32x4.sub(v128.load(l + (<usize>i << 2)), top4), inverse4))
    if (p) v128.store(p + (<usize>i << 2), w)
    a = f64x2.add(a, low(w))
    a = f64x2.add(a, high(w))
  }
  let sum = f64x2.extract_lane(a, 0) + f64x2.extract_lane(a, 1)
  for (; i < v; i++) {
    const w = exp1((load<f32>(l + (<usize>i << 2)) - top) * inverse)
    if (p) store<f32>(p + (<usize>i << 2), w)
    sum += <f64>w
  }
  return sum
}
