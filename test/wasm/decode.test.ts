import { describe, expect, it } from 'vitest'
import type { CaseInput } from '../../sdk/graph/spec.ts'
import { floats, ints, normal } from '../../sdk/ops/cases.ts'
import { kvCopyOp, kvWriteOp } from '../../sdk/ops/kv-cache.ts'
import { sampleOp } from '../../sdk/ops/sample.ts'
import { agreement, one } from './agreement.ts'

const check = agreement()

describe('cache', () => {
  it('kvWrite: a chunk, padding, single steps', async () => {
    const [cache, x] = [normal([9, 3, 17, 11]), normal([9, 33])]
    await check(kvWriteOp, one('rows', [cache, x, ints([3, 4, 5, 6, 0, 16, -1, 0, -1])]))
    await check(kvWriteOp, one('chunk', [cache, x, ints([3, 4, 5, 6, 7, 8, 9, -1, -1]), ints([5])]))
  })

  it('kvCopy: later copies see earlier ones', async () => {
    const inputs = [normal([4, 3, 17, 11]), ints([0, 1, -1, 2]), ints([1, 2, 3, 0]), ints([17, 9, 5, 1])]
    await check(kvCopyOp, one('chain', inputs))
  })
})

interface Row {
  temperature?: number
  topK?: number
  topP?: number
  minP?: number
  uniform: number
}

type Edit = [row: number, id: number, bias: number]

const inputsOf = (logits: CaseInput, rows: Row[], edits: Edit[]) => [
  logits,
  floats(rows.map((r) => r.temperature ?? 1)),
  ints(rows.map((r) => r.topK ?? 0)),
  floats(rows.map((r) => r.topP ?? 1)),
  floats(rows.map((r) => r.minP ?? 0)),
  floats(rows.map((r) => r.uniform)),
  ints(edits.map(([row]) => row)),
  ints(edits.map(([, id]) => id)),
  floats(edits.map(([, , bias]) => bias)),
]

const noEdit: Edit[] = [[-1, 0, 0]]

describe('sample', () => {
  it("Qwen's vocabulary: nothing cut, and everything cut", async () => {
    const rows: Row[] = [{ uniform: 0.81 }, { topK: 40, topP: 0.9, minP: 0.02, temperature: 0.7, uniform: 0.4 }]
    await check(sampleOp, one('151936', inputsOf(normal([2, 151_936], 3), rows, noEdit)))
  })

  it('temperatures, top-k, top-p, min-p, alone and together', async () => {
    const uniforms = [0.001, 0.25, 0.6, 0.93, 0.9999]
    const kinds: Omit<Row, 'uniform'>[] = [
      { temperature: 0.05 },
      { temperature: 3 },
      { topK: 1 },
      { topK: 2002 },
      { topK: 2003 },
      { topP: 0.3 },
      { topP: 0.999 },
      { minP: 0.1 },
      { minP: 1 },
      { topK: 50, topP: 0.8, minP: 0.05, temperature: 1.3 },
      { temperature: 0, topK: 5, topP: 0.7 },
    ]
    const rows = kinds.flatMap((kind) => uniforms.map((uniform) => ({ ...kind, uniform })))
    await check(sampleOp, one('kinds', inputsOf(normal([rows.length, 2003], 2), rows, noEdit)))
  })

  it('equal logits at every border', async () => {
    // steps of 0.5, negative and positive, zeros of both signs: hundreds of ids share a value
    const values = Array.from({ length: 997 }, (_, i) => Math.round(Math.sin(i * 1.7) * 6) / 2)
    const rows: Row[] = [
      { topP: 0.31, uniform: 0.97 },
      { topP: 0.77, uniform: 0.999 },
      { topK: 10, topP: 0.5, uniform: 0.98 },
      { topK: 500, uniform: 0.99 },
      { minP: 0.22, uniform: 0.995 },
      { temperature: 0, uniform: 0 },
    ]
    const logits = floats(
      rows.flatMap(() => values).map((v, i) => (v === 0 && i % 2 ? -0 : v)),
      [rows.length, 997],
    )
    await check(sampleOp, one('ties', inputsOf(logits, rows, noEdit)))
  })

  it('penalties, biases and bans, two on one id, before everything else', async () => {
    const rows: Row[] = [
      { temperature: 0, uniform: 0 },
      { topK: 3, uniform: 0.9 },
      { topP: 0.5, uniform: 0.5 },
    ]
    const edits = Array.from({ length: 60 }, (_, i): Edit => [(i % 4) - 1, (i * 5) % 33, i % 7 ? 0.4 : -1e30])
    const penalties = floats([1.3, 0.1, 0.2, 0.8, 0, 0, 1, 0.3, -0.5], [3, 3])
    const counts = ints(
      Array.from({ length: 3 * 33 }, (_, i) => (i % 5 ? 0 : i % 7)),
      [3, 33],
    )
    const inputs = [...inputsOf(normal([3, 33], 2), rows, edits), penalties, counts]
    const { output0 } = await check(sampleOp, one('edits', inputs))
    for (const [row, id, bias] of edits) if (row >= 0 && bias < -1) expect(output0[row]).not.toBe(id)
  })

  it('one id is left when all others are banned', async () => {
    const edits = [...Array(16).keys()].filter((id) => id !== 11).map((id): Edit => [0, id, -1e30])
    const rows: Row[] = [{ temperature: 2, topK: 4, topP: 0.9, uniform: 0.99 }]
    const { output0, output1 } = await check(sampleOp, one('one', inputsOf(normal([1, 16]), rows, edits)))
    expect([output0[0], output1[0]]).toEqual([11, 0])
  })
})
