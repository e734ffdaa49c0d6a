import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { byteLength } from '../../sdk/dtype.ts'
import { ShapeError } from '../../sdk/errors.ts'
import { ops } from '../../sdk/ops/index.ts'
import type { Target } from '../../sdk/target.ts'
import { candidates, difference, expectedOf, fillCase, runCase } from '../suite.ts'

const every = Object.values(ops)

describe('the op list', () => {
  it('names every op as the op names itself', () => {
    for (const [name, spec] of Object.entries(ops)) expect(spec.name).toBe(name)
  })

  it.each(every)('$name has cases, and infers what its reference returns', (spec) => {
    expect(spec.cases.length).toBeGreaterThan(0)
    expect(new Set(spec.cases.map((c) => c.name)).size).toBe(spec.cases.length)
    for (const c of spec.cases) {
      const types = spec.infer(
        c.inputs.map((i) => i.type),
        c.attrs,
      )
      const filled = fillCase(spec, c)
      const before = filled.map((f) => f.data.slice())
      const outputs = spec.reference(
        c.inputs.map((input, i) => ({ shape: input.type.shape, data: filled[i].data })),
        c.attrs,
      )
      expect(outputs.map((y) => y.shape)).toEqual(types.map((t) => t.shape))
      expect(outputs.map((y) => y.data.length)).toEqual(types.map((t) => t.shape.reduce((a, b) => a * b, 1)))
      expect(outputs.every((y) => y.data.every(Number.isFinite))).toBe(true)
      // The reference must not write into its inputs.
      expect(filled.map((f) => f.data)).toEqual(before)
      for (const [input, output] of [...(spec.state ?? []), ...(spec.view ?? [])])
        if (types[output]) expect(byteLength(types[output])).toBe(byteLength(c.inputs[input].type))
    }
  })

  it.each(every.filter((spec) => spec.cases[0].inputs.length > 0))(
    '$name refuses wrong shapes, dtypes and counts by name',
    (spec) => {
      const { inputs, attrs } = spec.cases[0]
      const types = inputs.map((i) => i.type)
      const refused = (changed: typeof types, what: RegExp) => {
        expect(() => spec.infer(changed, attrs)).toThrow(ShapeError)
        expect(() => spec.infer(changed, attrs)).toThrow(what)
      }
      const named = new RegExp(`^${spec.name}: `)
      refused([...types, ...types, ...types], named)
      types.forEach((type, i) => {
        if (spec.name === 'view') return
        const other = type.dtype === 'i32' ? 'f32' : 'i32'
        refused(types.with(i, { ...type, dtype: other }), new RegExp(`^${spec.name}: \\w+ is ${other}\\[`))
        refused(types.with(i, { ...type, shape: type.shape.with(0, 0) }), named)
      })
    },
  )
})

describe('shape errors name op, argument and both shapes', () => {
  it('linear', () => {
    const f32 = (...shape: number[]) => ({ dtype: 'f32' as const, shape })
    expect(() => ops.linear.infer([f32(3, 6), f32(5, 7)], {})).toThrow(
      'linear: w is f32[5, 7], expected [O, I=6] to fit x f32[3, 6]',
    )
    expect(() => ops.add.infer([f32(3, 6), f32(6, 3)], {})).toThrow(
      'add: b is f32[6, 3], expected the shape of a f32[3, 6], or one of them [1]',
    )
    expect(() =>
      ops.attention.infer([f32(3, 8), f32(3, 6), f32(3, 6), { dtype: 'i32', shape: [3] }], {
        heads: 2,
        kvHeads: 1,
        scale: 1,
      }),
    ).toThrow(/^attention: q is f32\[3, 8\] and k f32\[3, 6\], expected/)
  })
})

/** What the same target and build, with other threads, gave. */
const seen = new Map<string, Record<string, ArrayLike<number>>>()

for (const candidate of await candidates())
  describe.skipIf(candidate.skip)(`${candidate.label}${candidate.skip ? ` (${candidate.skip})` : ''}`, () => {
    let target: Target
    beforeAll(async () => {
      target = await candidate.open()
    })
    afterAll(() => target?.close())

    for (const spec of every)
      for (const c of spec.cases)
        it(`${spec.name}: ${c.name}`, async (context) => {
          const types = c.inputs.map((i) => i.type)
          const supported = target.supports(spec.name, types, c.attrs)
          if (supported !== true) return context.skip(supported)
          const filled = fillCase(spec, c)
          const got = await runCase(target, spec, c, filled)
          expect(difference(got, expectedOf(spec, c, filled), c.tolerance?.value)).toBeNull()
          // Work is split by rows: the same bits for any number of threads.
          const key = `${target.name} ${target.info.features[0]}, ${spec.name}: ${c.name}`
          expect(got).toEqual(seen.get(key) ?? got)
          seen.set(key, got)
          if (!spec.inplace && !spec.view) return
          const copy = target.supports('scale', [{ dtype: 'f32', shape: [1] }], { factor: 1 })
          if (copy !== true) return context.skip(copy)
          // The same, bit for bit, when the op may overwrite its inputs.
          expect(await runCase(target, spec, c, filled, true)).toEqual(got)
        })
  })
