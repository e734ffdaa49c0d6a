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
}

// Tiles are 64 keys; a block of queries is about 64 rows of all heads that share a key/value head.
const shapes: Shape[] = [
  { name: 'Qwen2.5-0.5B heads, one segment', lengths: [203], heads: 14, kvHeads: 2, d: 64 },
  { name: 'short segments inside tiles', lengths: [1, 2, 61, 1, 70, 3, 5, 64], heads: 6, kvHeads: 2, d: 16 },
  { name: 'a segment begins on a tile border', lengths: [64, 128, 9], heads: 4, kvHeads: 4, d: 8 },
  { name: 'one key/value head for 32', lengths: [70], heads: 32, kvHeads: 1, d: 4 },
  { name: 'large and odd head size', lengths: [66, 5], heads: 3, kvHeads: 1, d: 129 },
]

const inputsOf = ({ lengths, heads, kvHeads, d }: Shape) => {
  const n = lengths.reduce((a, b) => a + b)
  return {
    n,
    q: normal([n, heads * d]),
    k: normal([n, kvHeads * d]),
    v: normal([n, kvHeads * d]),
    starts: ints(startsOf(lengths)),
    attrs: { heads, kvHeads, scale: 1 / Math.sqrt(d) },
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
  const attrs = { heads: 14, kvHeads: 2, scale: 0.25 }
  const cached = (name: string, slots: number[], positions: number[], capacity: number): OpCase => {
    const cache = () => frozen('f32', [5, capacity, 2 * 16])
    return one(name, [normal([slots.length, 14 * 16]), cache(), cache(), ints(slots), ints(positions)], attrs)
  }
  const steps = (count: number, from: number) => Array.from({ length: count }, (_, i) => from + i)

  it.each([
    cached('a prefill chunk of many blocks', Array(61).fill(3), steps(61, 77), 139),
    cached('decode steps of five slots', [4, 0, 2, 1, 3], [149, 0, 63, 64, 100], 150),
    cached(
      'a large batch: a chunk, padding in between, single steps, a slot seen again',
      [...Array(11).fill(1), 0, 0, 2, 3, 4, 4, 4, 1, 0, 2, 2],
      [...steps(11, 60), -1, -1, 129, 5, 100, -1, 3, 0, 64, 127, 128],
      130,
    ),
    cached('a long cache in chunks', [4, 0, 2, 1, 3, 2], [1299, -1, 0, 511, 512, 1024], 1300),
    cached('padding alone', [0, 0], [-1, -1], 3),
  ])('$name', async (c) => {
    await check(attentionCachedOp, c)
  })
})
