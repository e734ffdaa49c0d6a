// Whether this engine computes the relaxed instructions rightly: V8 of Node 20, where a flag lets them pass, has a compiler that does not.
import { addProducts, madd } from './common'

/** 0 in the plain build. `at`: 48 bytes to write numbers to, so that no compiler sees them. */
export function relaxedWorks(at: usize): i32 {
  if (!ASC_FEATURE_RELAXED_SIMD) return 0
  // a runs from -128 to 127, b from 0 to 127, first both at their extremes; the same sums in memory, one by one.
  let sums = i32x4.splat(-9)
  v128.store(at, sums, 32)
  for (let round = 0; round < 256; round++) {
    for (let i = 0; i < 16; i++) {
      const a = <i8>(round < 4 ? 127 + (round & 1) : i * 37 + round)
      const b = round < 4 ? 127 : (i * 59 + round * 3) & 127
      store<i8>(at + i, a)
      store<i8>(at + i, b, 16)
      const sum = at + (i & ~3)
      store<i32>(sum, load<i32>(sum, 32) + <i32>a * b, 32)
    }
    sums = i32x4.relaxed_dot_i8x16_i7x16_add_s(v128.load(at), v128.load(at, 16), sums)
    if (v128.any_true(v128.xor(sums, v128.load(at, 32)))) return 0
  }
  // (1 + 2^-12)^2 - (1 + 2^-11) is 2^-24 rounded once, 0 rounded twice: one of them, in all lanes.
  store<f32>(at, 1.000244140625)
  const factor = v128.load32_splat(at)
  const left = madd(factor, factor, f32x4.splat(-1.00048828125))
  const isOnce = i32x4.all_true(f32x4.eq(left, f32x4.splat(5.9604644775390625e-8)))
  return i32(isOnce || i32x4.all_true(f32x4.eq(left, f32x4.splat(0))))
}

// @ts-ignore: decorator
@inline
function products(isQuads: bool, at: usize, n: i32): void {
  const x = v128.load(at)
  let a = x
  let b = x
  let c = x
  let d = x
  let e = x
  let f = x
  let g = x
  let h = x
  for (; n > 0; n--) {
    a = addProducts(isQuads, x, v128.load(at, 16), a)
    b = addProducts(isQuads, x, v128.load(at, 32), b)
    c = addProducts(isQuads, x, v128.load(at, 16), c)
    d = addProducts(isQuads, x, v128.load(at, 32), d)
    e = addProducts(isQuads, x, v128.load(at, 16), e)
    f = addProducts(isQuads, x, v128.load(at, 32), f)
    g = addProducts(isQuads, x, v128.load(at, 16), g)
    h = addProducts(isQuads, x, v128.load(at, 32), h)
  }
  const sum = i32x4.add(i32x4.add(i32x4.add(a, b), i32x4.add(c, d)), i32x4.add(i32x4.add(e, f), i32x4.add(g, h)))
  v128.store(at, sum)
}

/** `n` times eight products of 16 bytes by the relaxed instruction (`isQuads`), or of pairs of i16: for the host to time. */
export function integerProducts(isQuads: bool, at: usize, n: i32): void {
  if (isQuads) products(true, at, n)
  else products(false, at, n)
}
