import { describe, expect, it } from 'vitest'
import { Graph } from '../../sdk/graph/graph.ts'
import { type Program, toProgram } from '../../sdk/graph/program.ts'
import { add, exp, linear, scale, sum } from '../../sdk/ops/index.ts'
import { relativeError } from '../../sdk/self-test.ts'
import type { Target } from '../../sdk/target.ts'
import { referenceTarget } from '../../targets/reference/index.ts'
import { compare } from '../compare.ts'

const f32 = (...shape: number[]) => ({ dtype: 'f32' as const, shape })

function program(): Program {
  const g = new Graph()
  const x = g.input('x', f32(3, 4))
  const hidden = g.scope('first', () => linear(g, x, g.weight('w', f32(2, 4))))
  const scaled = scale(g, hidden, 0.5)
  g.output('loss', sum(g, add(g, exp(g, scaled), hidden)))
  return toProgram(g, 'compared')
}

async function side(target: Target, w: number[]) {
  const buffer = target.create(f32(2, 4), 'w')
  await target.write(buffer, Float32Array.from(w))
  return { target, buffers: { w: buffer } }
}

/** The reference, except that one op's factor is another. */
function wrong(factor: number): Target {
  const target = referenceTarget()
  const compile = target.compile.bind(target)
  target.compile = (p, bound) =>
    compile(
      { ...p, nodes: p.nodes.map((node) => (node.op === 'scale' ? { ...node, attrs: { factor } } : node)) },
      bound,
    )
  return target
}

describe('compare', () => {
  const w = [1, -2, 3, 0.5, 0, 1, -1, 2]
  const x = Float32Array.from({ length: 12 }, (_, i) => Math.sin(i))

  it('is null where both agree', async () => {
    const [a, b] = [await side(referenceTarget(), w), await side(referenceTarget(), w)]
    expect(await compare(program(), a, b, { x })).toBeNull()
  })

  it('names the first node that differs, not those after it', async () => {
    const [a, b] = [await side(wrong(0.501), w), await side(referenceTarget(), w)]
    const found = await compare(program(), a, b, { x })
    expect(found).toMatchObject({ node: 1, op: 'scale', name: 'scale' })
    expect(found!.error).toBeCloseTo(0.002, 6)
    expect(await compare(program(), a, b, { x }, 0.1)).toBeNull()
  })

  it('names the scope', async () => {
    const [a, b] = [await side(referenceTarget(), w.with(0, 1.5)), await side(referenceTarget(), w)]
    expect(await compare(program(), a, b, { x })).toMatchObject({ node: 0, op: 'linear', name: 'first.linear' })
  })
})

describe('relativeError', () => {
  it('is relative to the largest element, and infinite for NaN', () => {
    expect(relativeError([1, 2.5], [1, 2])).toBe(0.25)
    expect(relativeError([1, Number.NaN], [1, 2])).toBe(Number.POSITIVE_INFINITY)
    expect(relativeError([Number.NaN], [Number.NaN])).toBe(0)
    expect(relativeError([0, 0], [0, 0])).toBe(0)
  })
})
