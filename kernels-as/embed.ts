// Rows of the embedding table, and its gradient.
// embed: threads share the tokens. embedBack: threads share the columns, each adds the tokens in order.
import { shareEnd, shareStart } from './common'
import { rowBytes, unpack } from './pack'

/** y[n] = table[ids[n]]; ids i32[n], table [.., c] of dtype code `dtype`, y f32[n, c]. */
export function embed(ids: usize, table: usize, dtype: i32, y: usize, n: i32, c: i32, thread: i32, threads: i32): void {
  const bytes = rowBytes(dtype, c)
  const end = shareEnd(n, 1, thread, threads)
  for (let i = shareStart(n, 1, thread, threads); i < end; i++)
    unpack(dtype, table + <usize>load<u32>(ids + (<usize>i << 2)) * bytes, c, y + ((<usize>i * c) << 2))
}

/** grad[ids[n]] += dy[n]; a negative id is left out (scatterRows shares this). */
export function embedBack(dy: usize, ids: usize, grad: usize, n: i32, c: i32, thread: i32, threads: i32): void {
  const from = shareStart(c, 16, thread, threads)
  const end = shareEnd(c, 16, thread, threads)
  if (from == end) return
  for (let i = 0; i < n; i++) {
    const id = load<i32>(ids + (<usize>i << 2))
    if (id < 0) continue
    const x = dy + ((<usize>i * c) << 2)
    const y = grad + ((<usize>id * c) << 2)
    let k = from
    for (; k + 4 <= end; k += 4) {
      const at = y + (<usize>k << 2)
      v128.store(at, f32x4.add(v128.load(at), v128.load(x + (<usize>k << 2))))
    }
    for (; k < end; k++) {
      const at = y + (<usize>k << 2)
      store<f32>(at, load<f32>(at) + load<f32>(x + (<usize>k << 2)))
    }
  }
}
