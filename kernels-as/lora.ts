// Low-rank updates where each row has an adapter of its own: n of them lie one below the other, A [n, r, I] and
// B [n, O, r], and row i takes number which[i], -1 none. Each row is a product by itself, as gemv does it: it costs one adapter, and
// its bits depend on no other row. loraDown: threads share pairs of a row and four of its r numbers. loraUp: threads share the
// columns, so that a row's part of B is read by one thread.
// One adapter for all rows goes through `linear` twice instead.
import { shareEnd, shareStart } from './common'
import { dotFloats } from './gemv'

/** h[N, r] = scale[which] * x[N, I] * A[which]ᵀ; zeros for rows without an adapter. */
export function loraDown(
  x: usize, a: usize, scale: usize, which: usize, h: usize, N: i32, I: i32, r: i32, thread: i32, threads: i32,
): void {
  const parts = (r + 3) / 4
  const end = shareEnd(N * parts, 1, thread, threads)
  for (let p = shareStart(N * parts, 1, thread, threads); p < end; p++) {
    const row = p / parts
    const adapter = load<i32>(which + (<usize>row << 2))
    const to = h + (<usize>(row * r) << 2)
    const last = min(r, (p % parts + 1) * 4)
    for (let q = (p % parts) * 4; q < last; q++) {
      let value: f32 = 0
      if (adapter >= 0) {
        const own = a + ((<usize>(adapter * r + q) * I) << 2)
        value = load<f32>(scale + (<usize>adapter << 2)) * dotFloats(own, x + ((<usize>row * I) << 2), I)
      }
      store<f32>(to + (<usize>q << 2), value)
    }
  }
}

/** out[N, O] = y[N, O] + h[N, r] * B[which]ᵀ; out may be y. */
export function loraUp(
  h: usize, b: usize, which: usize, y: usize, out: usize, N: i32, O: i32, r: i32, thread: i32, threads: i32,
): void {
  const start = shareStart(O, 16, thread, threads)
  const end = shareEnd(O, 16, thread, threads)
  for (let row = 0; row < N; row++) {
    const adapter = load<i32>(which + (<usize>row << 2))
    const hr = h + (<usize>(row * r) << 2)
    for (let o = start; o < end; o++) {
      const at = ((<usize>row * O) << 2) + (<usize>o << 2)
      const sum: f32 = adapter < 0 ? 0 : short(b + ((<usize>(adapter * O + o) * r) << 2), hr, r)
      store<f32>(out + at, load<f32>(y + at) + sum)
    }
  }
}

/** w . x of a few floats, four at a time. */
// @ts-ignore: decorator
@inline
function short(w: usize, x: usize, count: i32): f32 {
  let sum = f32x4.splat(0)
  let k = 0
  for (; k + 4 <= count; k += 4)
    sum = f32x4.add(sum, f32x4.mul(v128.load(w + (<usize>k << 2)), v128.load(x + (<usize>k << 2))))
  let total =
    f32x4.extract_lane(sum, 0) + f32x4.extract_lane(sum, 1) + (f32x4.extract_lane(sum, 2) + f32x4.extract_lane(sum, 3))
  for (; k < count; k++) total += load<f32>(w + (<usize>k << 2)) * load<f32>(x + (<usize>k << 2))
  return total
}
