// exp in SIMD, about 1e-7 relative. log is the scalar f64 Math.log where kernels need it.
import { high, low } from './common'

/**
 * What exp4 needs, in memory: V8 makes a constant vector anew wherever it is used, in three instructions. Limits of x; 1 / ln 2; 1.5 * 2^23,
 * which leaves the nearest integer in a float's last bits; ln 2 in two parts; the polynomial; 1.
 */
const EXP = memory.data<f32>([
  89, -88, 1.44269504088896341, 12582912, 0.693359375, -2.1219444e-4, 1.98756915e-4, 1.3981999507e-3, 8.3334519073e-3,
  4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1, 1, -87.3365,
])
const BIAS = memory.data<i32>([127])

// @ts-ignore: decorator
@inline
function constant(i: usize): v128 {
  return v128.load32_splat(EXP + (i << 2))
}

/**
 * e^x of four f32. Below -87.33 exactly 0 (so that a mask of -1e30 or -Infinity adds nothing), above 88.72 Infinity.
 * 2^n * P(r) with n = round(x / ln 2), r = x - n ln 2 in two parts; P is Cephes' expf polynomial.
 */
// @ts-ignore: decorator
@inline
export function exp4(x: v128): v128 {
  const c = f32x4.pmax(f32x4.pmin(x, constant(0)), constant(1))
  const magic = constant(3)
  const t = f32x4.add(f32x4.mul(c, constant(2)), magic)
  const n = f32x4.sub(t, magic)
  let r = f32x4.sub(c, f32x4.mul(n, constant(4)))
  r = f32x4.sub(r, f32x4.mul(n, constant(5)))
  let p = f32x4.add(f32x4.mul(constant(6), r), constant(7))
  p = f32x4.add(f32x4.mul(p, r), constant(8))
  p = f32x4.add(f32x4.mul(p, r), constant(9))
  p = f32x4.add(f32x4.mul(p, r), constant(10))
  p = f32x4.add(f32x4.mul(p, r), constant(11))
  p = f32x4.add(f32x4.add(f32x4.mul(f32x4.mul(p, r), r), r), constant(12))
  // 2^n in two factors: n = 128 alone would not fit the exponent.
  const k = i32x4.sub(t, magic)
  const half = i32x4.shr_s(k, 1)
  const bias = v128.load32_splat(BIAS)
  p = f32x4.mul(p, i32x4.shl(i32x4.add(half, bias), 23))
  p = f32x4.mul(p, i32x4.shl(i32x4.add(i32x4.sub(k, half), bias), 23))
  return v128.andnot(p, f32x4.lt(x, constant(13)))
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
