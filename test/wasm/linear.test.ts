import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { floatDTypes, isQuantized } from '../../sdk/dtype.ts'
import { Graph } from '../../sdk/graph/graph.ts'
import { bindings, toProgram } from '../../sdk/graph/program.ts'
import type { OpCase, OpSpec } from '../../sdk/graph/spec.ts'
import { floats, frozen, normal, vectorDTypes } from '../../sdk/ops/cases.ts'
import { doraNormOp } from '../../sdk/ops/dora-norm.ts'
import { type Activations, linear, linearOp, roundedFor } from '../../sdk/ops/linear.ts'
import { linearBackBiasOp, linearBackInputOp, linearBackWeightOp } from '../../sdk/ops/linear-back.ts'
import { loraBackOp, loraOp } from '../../sdk/ops/lora.ts'
import { scaleColumnsBackOp, scaleColumnsOp } from '../../sdk/ops/scale-columns.ts'
import { toNumbers } from '../../sdk/quant/convert.ts'
import type { Buffer, Target } from '../../sdk/target.ts'
import { wasmTarget } from '../../targets/wasm/index.ts'
import { difference, expectedOf, type Filled, fillCase, runCase } from '../suite.ts'

const targets = new Map<string, Target>()
beforeAll(async () => {
  for (const threads of [1, 2, 3]) targets.set(`${threads} threads`, await wasmTarget({ threads }))
  targets.set('without shared memory', await wasmTarget({ shared: false }))
})
afterAll(() => Promise.all([...targets.values()].map((target) => target.close())))

const one = (name: string, inputs: OpCase['inputs'], activations: Activations = 'f32'): OpCase => ({
  name,
  inputs,
  attrs: { activations },
})

// Sizes past the blocks of the GEMM: 128 rows, 64 columns, 512 deep; and odd ones where the dtype allows.
const dtypeCases = floatDTypes.flatMap((dtype): [OpSpec, OpCase][] => {
  const odd = isQuantized(dtype) ? 0 : 1
  return [
    [linearOp, one(`${dtype} rows`, [normal([133, 544 + odd]), frozen(dtype, [203, 544 + odd]), frozen('f32', [203])])],
    [linearOp, one(`${dtype} 2 rows`, [normal([2, 544 + odd]), frozen(dtype, [77, 544 + odd])])],
    [linearOp, one(`${dtype} 1 row`, [normal([1, 544 + odd]), frozen(dtype, [77, 544 + odd]), frozen('bf16', [77])])],
    [linearOp, one(`${dtype} few columns`, [normal([67, 96 + odd]), frozen(dtype, [3, 96 + odd])])],
    [linearBackInputOp, one(dtype, [normal([133, 541]), frozen(dtype, [541, 224 + odd])])],
    [linearBackInputOp, one(`${dtype} 1 row`, [normal([1, 541]), frozen(dtype, [541, 96 + odd])])],
    [doraNormOp, one(dtype, [frozen(dtype, [77, 224 + odd]), normal([5, 224 + odd]), normal([77, 5]), floats([0.5])])],
  ]
})

// Past 64 rows and 1,024 elements.
const int8Cases = (['q8', 'q4', 'q4a'] as const).flatMap((dtype): [OpSpec, OpCase][] => [
  [
    linearOp,
    one(
      `int8, ${dtype}`,
      [normal([67, 1120]), frozen(dtype, [203, 1120]), frozen('f16', [203])],
      roundedFor(dtype, 'int8'),
    ),
  ],
  [
    linearOp,
    one(
      `int8, ${dtype} 1 row`,
      [normal([1, 1120]), frozen(dtype, [77, 1120]), frozen('f32', [77])],
      roundedFor(dtype, 'int8'),
    ),
  ],
  [linearOp, one(`int8, ${dtype} few columns`, [normal([3, 96]), frozen(dtype, [3, 96])], roundedFor(dtype, 'int8'))],
])

const otherCases: [OpSpec, OpCase][] = [
  [linearBackWeightOp, one('rows', [normal([541, 133]), normal([541, 77]), normal([133, 77])])],
  [linearBackWeightOp, one('few rows', [normal([130, 3]), normal([130, 261]), normal([3, 261])])],
  [linearBackBiasOp, one('rows', [normal([541, 203]), normal([203])])],
  [loraOp, one('rows', [normal([133, 203]), normal([133, 541]), normal([16, 541]), normal([203, 16]), floats([2])])],
  [loraOp, one('2 rows', [normal([2, 203]), normal([2, 541]), normal([8, 541]), normal([203, 8]), floats([2])])],
  [loraBackOp, one('rows', [normal([133, 203]), normal([16, 541]), normal([203, 16]), floats([2])])],
  [scaleColumnsBackOp, one('rows', [normal([541, 203]), normal([541, 203])])],
  ...vectorDTypes.map((dtype): [OpSpec, OpCase] => [
    scaleColumnsOp,
    one(`bias ${dtype}`, [normal([67, 203]), normal([203]), frozen(dtype, [203])]),
  ]),
]

describe('matrix kernels past their block sizes', () => {
  it.each([...dtypeCases, ...int8Cases, ...otherCases].map(([spec, c]) => [spec.name, c.name, spec, c] as const))(
    '%s, %s: as the reference, the same bits for any number of threads',
    async (_op, _name, spec, c) => {
      const filled = fillCase(spec, c)
      const results = new Map<string, Awaited<ReturnType<typeof runCase>>>()
      for (const [label, target] of targets) results.set(label, await runCase(target, spec, c, filled))
      const single = results.get('1 threads')!
      expect(difference(single, expectedOf(spec, c, filled))).toBeNull()
      for (const [label, result] of results) expect([label, result]).toEqual([label, single])
    },
  )
})

describe('a row does not depend on its companions', () => {
  const rowOf = (filled: Filled[], row: number, width: number): Filled[] => [
    {
      bytes: filled[0].bytes.slice(row * width * 4, (row + 1) * width * 4),
      data: filled[0].data.slice(row * width, (row + 1) * width),
    },
    ...filled.slice(1),
  ]

  it.each(floatDTypes)('%s, two rows', async (dtype) => {
    const target = targets.get('2 threads')!
    const many = one('many', [normal([2, 160]), frozen(dtype, [77, 160])])
    const filled = fillCase(linearOp, many)
    const { output0: all } = await runCase(target, linearOp, many, filled)
    const single = one('single', [normal([1, 160]), frozen(dtype, [77, 160])])
    for (const row of [0, 1]) {
      const { output0 } = await runCase(target, linearOp, single, rowOf(filled, row, 160))
      expect(output0).toEqual(all.slice(row * 77, (row + 1) * 77))
    }
  })

  it.each(floatDTypes)('%s, more rows', async (dtype) => {
    const target = targets.get('2 threads')!
    const make = (rows: number) => one('rows', [normal([rows, 1056]), frozen(dtype, [77, 1056])])
    const filled = fillCase(linearOp, make(131))
    const { output0: all } = await runCase(target, linearOp, make(131), filled)
    // Up to 16 rows of floats are added up in another order.
    const first = isQuantized(dtype) ? 128 : 114
    const last = {
      bytes: filled[0].bytes.slice(first * 1056 * 4),
      data: filled[0].data.slice(first * 1056),
    }
    const { output0: few } = await runCase(target, linearOp, make(131 - first), [last, filled[1]])
    expect(few).toEqual(all.slice(first * 77))
  })
})

describe('int8 activations', () => {
  it.each(['q8', 'q4', 'q4a'] as const)('%s: a row has the same bits among 1, 2, 8, 16 and 67 rows', async (dtype) => {
    const target = targets.get('2 threads')!
    const make = (rows: number) =>
      one('rows', [normal([rows, 1056]), frozen(dtype, [77, 1056])], roundedFor(dtype, 'int8'))
    const [x, w] = fillCase(linearOp, make(67))
    const { output0: all } = await runCase(target, linearOp, make(67), [x, w])
    for (const rows of [1, 2, 8, 16]) {
      const first = { bytes: x.bytes.slice(0, rows * 1056 * 4), data: x.data.slice(0, rows * 1056) }
      expect((await runCase(target, linearOp, make(rows), [first, w])).output0).toEqual(all.slice(0, rows * 77))
    }
  })

  it('products of the same x, where a thread has columns of the second alone', async () => {
    const g = new Graph()
    const x = g.input('x', { dtype: 'f32', shape: [5, 64] })
    for (const [name, columns] of [
      ['few', 16],
      ['more', 96],
    ] as const)
      g.output(name, linear(g, x, g.weight(name, { dtype: 'q8', shape: [columns, 64] }), undefined, 'int8'))
    const program = toProgram(g, 'same x')
    const [filled] = fillCase(linearOp, one('x', [normal([5, 64])]))
    const results = []
    for (const target of targets.values()) {
      const bound: Record<string, Buffer> = {}
      for (const [name, type] of bindings(program, 'weight')) {
        bound[name] = target.create(type, name)
        await target.write(bound[name], fillCase(linearOp, one(name, [normal([1]), frozen('q8', type.shape)]))[1].bytes)
      }
      const executable = await target.compile(program, bound)
      results.push(await executable.run({ x: filled.bytes }))
    }
    for (const result of results) expect(result).toEqual(results[0])
    expect(results[0].more.some((value) => Math.abs(value) > 1)).toBe(true)
  })

  it('takes weights of -128 and zeros, and hides nothing that is not finite', async () => {
    const target = targets.get('1 threads')!
    const c = one('rows', [normal([3, 32]), frozen('q8', [4, 32])], 'int16')
    const [, w] = fillCase(linearOp, c)
    w.bytes.fill(0x80, 2, 34)
    const x = Float32Array.from({ length: 96 }, (_, i) => (i < 32 ? 0 : i < 64 ? 1 : i === 70 ? Number.NaN : 1))
    const run = await runCase(target, linearOp, c, [{ bytes: new Uint8Array(x.buffer), data: new Float64Array(x) }, w])
    const scale = toNumbers(w.bytes, 'q8')[0] / -128
    expect([...run.output0.slice(0, 4)]).toEqual([0, 0, 0, 0])
    expect(run.output0[4]).toBeCloseTo(32 * -128 * scale, 6)
    expect([...run.output0.slice(8)].every(Number.isNaN)).toBe(true)
  })
})

it('reads every f16: denormal, infinite and not a number', async () => {
  // One row of all 65536 bit patterns as w[65536, 1], x = 1.
  const bits = Uint16Array.from({ length: 65536 }, (_, i) => i)
  const value = (h: number) => {
    const [sign, exponent, fraction] = [h & 0x8000 ? -1 : 1, (h >> 10) & 31, h & 1023]
    if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY
    return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24)
  }
  const x = { bytes: new Uint8Array(Float32Array.of(1).buffer), data: Float64Array.of(1) }
  const scalar = one('one by one', [normal([1, 1]), frozen('f16', [65536, 1])])
  const w = { bytes: new Uint8Array(bits.buffer), data: new Float64Array(0) }
  const { output0 } = await runCase(targets.get('1 threads')!, linearOp, scalar, [x, w])
  // A sum that starts at 0 has no negative zero.
  const expected = Float32Array.from(bits, (h) => value(h) + 0)
  expect(output0).toEqual(expected)
  // By vectors: the gradient of the input with dy = 1 is the row itself. Rows that are finite take a way of their own.
  for (const row of [bits, bits.filter((h) => (h & 0x7c00) !== 0x7c00)]) {
    const vector = one('as a row', [normal([1, 1]), frozen('f16', [1, row.length])])
    const bytes = { bytes: new Uint8Array(row.buffer), data: new Float64Array(0) }
    const { output0 } = await runCase(targets.get('1 threads')!, linearBackInputOp, vector, [x, bytes])
    expect(output0).toEqual(Float32Array.from(row, (h) => value(h) + 0))
  }
})
