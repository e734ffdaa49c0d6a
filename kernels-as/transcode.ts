// Whole blocks of GGUF's types rewritten as blocks of q8 and q4a, to the bit as sdk/formats does it; by the names of both types.
// They run at the speed of memory on the host's thread, which reads the file: `bytes` of blocks at `from`, the others at `to`.
import { BLOCK, Q4A_BYTES, Q8_BYTES } from '../sdk/blocks'
import { half, toHalf } from './pack'

/** 16 nibbles and their fifth bits, two bytes 8 times over, less 16: a bit that is not set takes 16 away. */
// @ts-ignore: decorator
@inline
function fifths(nibbles: v128, bits: v128): v128 {
  const own = v128.and(bits, i8x16(1, 2, 4, 8, 16, 32, 64, -128, 1, 2, 4, 8, 16, 32, 64, -128))
  return v128.or(nibbles, v128.and(i8x16.eq(own, i8x16.splat(0)), i8x16.splat(-16)))
}

export function Q5_0_q8(from: usize, to: usize, bytes: usize): void {
  for (const end = from + bytes; from < end; from += 22, to += Q8_BYTES) {
    const high = i32x4.splat(load<u32>(from, 2))
    const nibbles = v128.load(from, 6)
    store<u16>(to, load<u16>(from))
    const first = i8x16.shuffle(high, high, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1)
    v128.store(to, fifths(v128.and(nibbles, i8x16.splat(15)), first), 2)
    const last = i8x16.shuffle(high, high, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3)
    v128.store(to, fifths(i8x16.shr_u(nibbles, 4), last), 18)
  }
}

/** Of group 0..7: its 6 bits of 12 bytes, the scales or 4 bytes on the minima. */
// @ts-ignore: decorator
@inline
function sixBits(at: usize, group: usize, isMinimum: usize): f32 {
  if (group < 4) return <f32>(load<u8>(at + group + 4 * isMinimum) & 63)
  const pair = <u32>load<u8>(at + group + 4)
  const top = <u32>load<u8>(at + group - 4 + 4 * isMinimum) >> 6
  return <f32>(((pair >> (4 * <u32>isMinimum)) & 15) | (top << 4))
}

export function Q4_K_q4a(from: usize, to: usize, bytes: usize): void {
  for (const end = from + bytes; from < end; from += 144) {
    const d = half(load<u16>(from))
    const dMinimum = half(load<u16>(from, 2))
    for (let group: usize = 0; group < 8; group++, to += Q4A_BYTES) {
      store<u16>(to, toHalf(d * sixBits(from + 4, group, 0)))
      store<u16>(to, toHalf(-(dMinimum * sixBits(from + 4, group, 1))), 2)
      // Two groups lie in 32 bytes, this one in the low or the high nibbles.
      const at = from + 16 + ((group >> 1) << 5)
      const a = v128.load(at)
      const b = v128.load(at, 16)
      const low = group & 1 ? i8x16.shr_u(a, 4) : v128.and(a, i8x16.splat(15))
      v128.store(to, v128.or(low, group & 1 ? v128.and(b, i8x16.splat(-16)) : i8x16.shl(b, 4)), 4)
    }
  }
}

/** Of 16 signed bytes four at a time, times `scale`. */
// @ts-ignore: decorator
@inline
function four(q: v128, n: i32, scale: v128): v128 {
  const wide = n < 2 ? i16x8.extend_low_i8x16_s(q) : i16x8.extend_high_i8x16_s(q)
  const integers = n & 1 ? i32x4.extend_high_i16x8_s(wide) : i32x4.extend_low_i16x8_s(wide)
  return f32x4.mul(f32x4.convert_i32x4_s(integers), scale)
}

/** To the nearest integer, halves away from zero. */
// @ts-ignore: decorator
@inline
function nearest(x: v128): v128 {
  const whole = f32x4.trunc(x)
  const isOver = f32x4.ge(f32x4.abs(f32x4.sub(x, whole)), f32x4.splat(0.5))
  const one = v128.or(i32x4.shr_s(x, 31), i32x4.splat(1))
  return i32x4.add(i32x4.trunc_sat_f32x4_s(whole), v128.and(isOver, one))
}

/** 16 of them times `scale`, each times `inverse` and rounded. */
// @ts-ignore: decorator
@inline
function requantized(q: v128, scale: f32, inverse: v128): v128 {
  const s = f32x4.splat(scale)
  const low = i16x8.narrow_i32x4_s(
    nearest(f32x4.mul(four(q, 0, s), inverse)), nearest(f32x4.mul(four(q, 1, s), inverse)),
  )
  const high = i16x8.narrow_i32x4_s(
    nearest(f32x4.mul(four(q, 2, s), inverse)), nearest(f32x4.mul(four(q, 3, s), inverse)),
  )
  return i8x16.narrow_i16x8_s(low, high)
}

/** The largest of 16 magnitudes of at most 32. */
// @ts-ignore: decorator
@inline
function largest(q: v128): f32 {
  let m = i8x16.abs(q)
  m = i8x16.max_s(m, i8x16.shuffle(m, m, 8, 9, 10, 11, 12, 13, 14, 15, 0, 0, 0, 0, 0, 0, 0, 0))
  m = i8x16.max_s(m, i8x16.shuffle(m, m, 4, 5, 6, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
  m = i8x16.max_s(m, i8x16.shuffle(m, m, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
  return <f32>max(i8x16.extract_lane_s(m, 0), i8x16.extract_lane_s(m, 1))
}

/** 16 of the quarters of 32 in a half of 128: their low nibbles or high ones, two bits above them, less 32. */
// @ts-ignore: decorator
@inline
function sixteen(low: v128, high: v128, quarter: i32): v128 {
  const nibbles = quarter < 2 ? v128.and(low, i8x16.splat(15)) : i8x16.shr_u(low, 4)
  const above = i8x16.shl(v128.and(i8x16.shr_u(high, 2 * quarter), i8x16.splat(3)), 4)
  return i8x16.sub(v128.or(nibbles, above), i8x16.splat(32))
}

export function Q6_K_q8(from: usize, to: usize, bytes: usize): void {
  for (const end = from + bytes; from < end; from += 210) {
    const d = half(load<u16>(from, 208))
    for (let part: usize = 0; part < 2; part++)
      for (let quarter = 0; quarter < 4; quarter++, to += Q8_BYTES) {
        const low = from + part * 64 + <usize>(quarter & 1) * BLOCK
        const high = from + 128 + part * BLOCK
        const scales = from + 192 + part * 8 + <usize>quarter * 2
        const a = sixteen(v128.load(low), v128.load(high), quarter)
        const b = sixteen(v128.load(low, 16), v128.load(high, 16), quarter)
        const scaleA = d * <f32>load<i8>(scales)
        const scaleB = d * <f32>load<i8>(scales, 1)
        // Rounding keeps order: the largest product is that of the largest integer.
        const scale = max(abs(scaleA) * largest(a), abs(scaleB) * largest(b)) / 127
        const inverse = f32x4.splat(scale == 0 ? 0 : 1 / scale)
        store<u16>(to, toHalf(scale))
        v128.store(to, requantized(a, scaleA, inverse), 2)
        v128.store(to, requantized(b, scaleB, inverse), 18)
      }
  }
}
