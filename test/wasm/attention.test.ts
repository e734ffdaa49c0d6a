import { describe, expect, it } from 'vitest'
import type { OpCase, OpSpec } from '../../sdk/graph/spec.ts'
import { attentionOp } from '../../sdk/ops/attention.ts'
import { attentionBackOp } from '../../sdk/ops/attention-back.ts'
import { attentionCachedOp } from '../../sdk/ops/attention-cached.ts'
import { frozen, ints, normal, startsOf } from '../../sdk/ops/cases.ts'
import { wasmTarget } from '../../targets/wasm/index.ts'
import { fillCase, runCase } from '../suite.ts'
import { agreement, one } from './agreement.ts'

const check = agreement()

interface Shape {
  name: string
  lengths: number[]
  heads: number
  kvHeads: number
  d: number
  window?: number
}

// Tiles are 64 keys; a block of queries is about 64 rows of all heads that share a key/value head.
const shapes: Shape[] = [
  { name: 'Qwen2.5-0.5B heads, one segment', lengths: [203], heads: 14, kvHeads: 2, d: 64 },
  { name: 'short segments inside tiles', lengths: [1, 2, 61, 1, 70, 3, 5, 64], heads: 6, kvHeads: 2, d: 16 },
  { name: 'a segment begins on a tile border', lengths: [64, 128, 9], heads: 4, kvHeads: 4, d: 8 },
  { name: 'one key/value head for 32', lengths: [70], heads: 32, kvHeads: 1, d: 4 },
  { name: 'a window inside and across tiles', lengths: [203, 40], heads: 14, kvHeads: 2, d: 16, window: 70 },
  { name: 'large and odd head size', lengths: [66, 5], heads: 3, kvHeads: 1, d: 129 },
]

const inputsOf = ({ lengths, heads, kvHeads, d, window = 0 }: Shape) => {
  const n = lengths.reduce((a, b) => a + b)
  return {
    n,
    q: normal([n, heads * d]),
    k: normal([n, kvHeads * d]),
    v: normal([n, kvHeads * d]),
    starts: ints(startsOf(lengths)),
    attrs: { heads, kvHeads, scale: 1 / Math.sqrt(d), window },
  }
}

describe('attention across tiles', () => {
  it.each(shapes)('forward: $name', async (shape) => {
    const { q, k, v, starts, attrs } = inputsOf(shape)
    await check(attentionOp, one(shape.name, [q, k, v, starts], attrs))
  })

  it.each(shapes)('reverse: $name', async (shape) => {
    const { n, q, k, v, starts, attrs } = inputsOf(shape)
    const width = shape.heads * shape.d
    const lse = normal([n, shape.heads], 0.1, 4)
    const inputs = [normal([n, width]), q, k, v, normal([n, width]), lse, starts]
    await check(attentionBackOp, one(shape.name, inputs, attrs))
  })

  it('keeps a NaN visible', async () => {
    const { q, k, v, starts, attrs } = inputsOf({ name: '', lengths: [5], heads: 1, kvHeads: 1, d: 4 })
    const c = one('NaN', [q, k, v, starts], attrs)
    const spec = attentionOp as unknown as OpSpec
    const filled = fillCase(spec, c)
    new Float32Array(filled[1].bytes.buffer)[2 * 4] = Number.NaN
    const target = await wasmTarget({ threads: 1 })
    const { output0, output1 } = await runCase(target, spec, c, filled)
    await target.close()
    // key 2 is seen by queries 2, 3 and 4 alone
    expect([...output0].map(Number.isNaN)).toEqual([...output0].map((_, i) => i >= 2 * 4))
    expect([...output1].map(Number.isNaN)).toEqual([false, false, true, true, true])
  })
})

describe('attention to the cache', () => {
  /** Rows of 14 heads over 5 slots of 2; without `slot` row r is of slot r. */
  const cached = (name: string, positions: number[], capacity: number, slot?: number, window = 0): OpCase => {
    const cache = () => frozen('f32', [5, 2, capacity, 16])
    const of = slot === undefined ? [] : [ints([slot])]
    const inputs = [normal([positions.length, 14 * 16]), cache(), cache(), ints(positions), ...of]
    return one(name, inputs, { scale: 0.25, window })
  }
  const steps = (count: number, from: number) => Array.from({ length: count }, (_, i) => from + i)

  it.each([
    cached('a prefill chunk of many blocks', steps(61, 77), 139, 3),
    cached('a prefill chunk, padding after it', [...steps(11, 60), ...Array(5).fill(-1)], 130, 1),
    cached('a prefill chunk of a long cache', steps(30, 1200), 1300, 4),
    cached('decode steps of five slots', [149, 0, 63, 64, 100], 150),
    cached('decode steps, padding in between', [129, -1, 5, -1, 64], 130),
    cached('a long cache in chunks', [1299, -1, 0, 511, 512], 1300),
    cached('a prefill chunk, a window', steps(61, 77), 139, 3, 65),
    cached('decode steps, a window', [149, 0, 63, 64, 100], 150, undefined, 64),
    cached('a long cache in chunks, a window', [1299, -1, 0, 511, 700], 1300, undefined, 300),
    cached('padding alone', [-1, -1], 3),
    cached('padding alone, of a chunk', [-1, -1], 3, 2),
  ])('$name', async (c) => {
    await check(attentionCachedOp, c)
  })
})
