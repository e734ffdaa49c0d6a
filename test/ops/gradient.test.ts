import { describe, expect, it } from 'vitest'
import { elementCount } from '../../sdk/dtype.ts'
import { ShapeError } from '../../sdk/errors.ts'
import { Graph, gradientName, type Tensor } from '../../sdk/graph/graph.ts'
import { planMemory, toProgram } from '../../sdk/graph/program.ts'
import type { OpCase, OpSpec } from '../../sdk/graph/spec.ts'
import {
  add,
  attention,
  dropout,
  embed,
  fill,
  gatherRows,
  gradient,
  linear,
  lora,
  mul,
  ops,
  rmsnorm,
  rope,
  stopGradient,
  sum,
  swiglu,
  vocabPick,
} from '../../sdk/ops/index.ts'
import { runReference } from '../../targets/reference/index.ts'
import { bindCase, fillCase, normals } from '../suite.ts'

type Arrays = Record<string, Float64Array>

/** Arguments without a gradient although they are floats. */
const constants: Record<string, string> = { where: 'input0', lora: 'input4', vocabPick: 'input3' }
/** Outputs kept for the reverse pass only. */
const saved: Record<string, number> = { rmsnorm: 1, attention: 1, lora: 1 }
/** Cases whose steps would leave the domain, that have no floats, or that refuse a gradient. */
const without = ['log: far', 'view: integers', 'lora: three adapters by row, and none', 'lora: one adapter, by row']

/** Σ coefficient·output, with random coefficients as inputs. */
function lossOf(g: Graph, spec: OpSpec, c: OpCase, inputs: readonly Tensor[]): Tensor {
  const outputs = g.apply(spec, inputs, c.attrs).filter((_, i) => saved[spec.name] !== i)
  const terms = outputs.map((y, i) => sum(g, mul(g, y, g.input(`coefficient${i}`, { dtype: 'f32', shape: y.shape }))))
  return terms.reduce((a, b) => add(g, a, b))
}

function check(spec: OpSpec, c: OpCase): void {
  const random = normals(`gradient of ${spec.name}/${c.name}`)
  const randoms = (n: number) => Float64Array.from({ length: n }, random)
  const filled = fillCase(spec, c)

  const forward = new Graph()
  const arguments_ = bindCase(forward, spec, c)
  forward.output('loss', lossOf(forward, spec, c, arguments_))
  const lossProgram = toProgram(forward, 'loss')
  const inputs: Arrays = {}
  const bound: Arrays = {}
  arguments_.forEach((t, i) => {
    ;(t.kind === 'input' ? inputs : bound)[t.name] = filled[i].data
  })
  for (const t of forward.tensors) if (t.name.startsWith('coefficient')) inputs[t.name] = randoms(elementCount(t.shape))

  // The tail is a constant -1e30 there: it would drown the loss. Its gradient has its own test.
  if (spec.name === 'vocabPick' && c.name === 'nothing outside') inputs.coefficient3.fill(0)

  const g = new Graph()
  const wrt = bindCase(g, spec, c).filter((t) => t.kind === 'input' && t.dtype === 'f32')
  const trained = bindCase(g, spec, c).filter((t) => t.trainable)
  const loss = lossOf(g, spec, c, bindCase(g, spec, c))
  gradient(g, [[loss, fill(g, [1], 1)]], { wrt }).forEach((grad, i) => {
    if (grad) g.output(wrt[i].name, grad)
    else expect(wrt[i].name).toBe(constants[spec.name])
  })
  const before: Arrays = {}
  for (const t of trained) before[t.name] = randoms(elementCount(t.shape))
  const states: Arrays = {}
  for (const t of trained) states[gradientName(t.name)] = before[t.name].slice()
  const outputs = runReference(toProgram(g, 'gradient'), inputs, { ...bound, ...states })

  const evaluate = () => runReference(lossProgram, inputs, bound).loss[0]
  for (const t of [...wrt, ...trained]) {
    if (t.name === constants[spec.name]) continue
    // Adds into what was there before.
    const analytic = t.trainable ? states[gradientName(t.name)].map((v, i) => v - before[t.name][i]) : outputs[t.name]
    const values = (t.kind === 'input' ? inputs : bound)[t.name]
    const picked = pick(values.length, random)
    const numeric = picked.map((at) => {
      const x = values[at]
      const h = 3e-5 * Math.max(1, Math.abs(x))
      const f = (step: number) => {
        values[at] = x + step
        return evaluate()
      }
      // Five-point central difference: error of order h⁴
      const slope = (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)
      values[at] = x
      return slope
    })
    const largest = analytic.reduce((a, b) => Math.max(a, Math.abs(b)), 0)
    picked.forEach((at, i) => {
      const error = Math.abs(analytic[at] - numeric[i]) / Math.max(largest, 1e-3)
      expect(error, `d ${t.name}[${at}]: ${analytic[at]}, finite difference ${numeric[i]}`).toBeLessThan(1e-6)
    })
  }
}

/** At most 16 of n places. */
function pick(n: number, random: () => number): number[] {
  if (n <= 16) return [...Array(n).keys()]
  return Array.from({ length: 16 }, () => Math.floor(Math.abs(random()) * 7919) % n)
}

describe('vjp equals central differences on the reference', () => {
  for (const spec of Object.values(ops))
    if (spec.vjp)
      for (const c of spec.cases)
        if ((c.attrs.activations ?? 'f32') !== 'f32')
          it(`${spec.name}: ${c.name} has none`, () =>
            expect(() => check(spec, c)).toThrow('have no gradient; train with f32'))
        else if (!without.includes(`${spec.name}: ${c.name}`)) it(`${spec.name}: ${c.name}`, () => check(spec, c))
})

describe('what has no gradient', () => {
  const f32 = (...shape: number[]) => ({ dtype: 'f32' as const, shape })

  it('stopGradient lets none through', () => {
    const g = new Graph()
    const x = g.input('x', f32(3))
    const [dx, dy] = gradient(g, [[sum(g, mul(g, stopGradient(g, x), g.input('y', f32(3)))), fill(g, [1], 1)]], {
      wrt: [x, g.input('y', f32(3))],
    })
    expect(dx).toBeNull()
    expect(dy).not.toBeNull()
  })

  it('a kept output refuses one', () => {
    const g = new Graph()
    const x = g.input('x', f32(3, 4))
    const [, rstd] = rmsnorm(g, x, g.weight('w', f32(4)), 1e-6)
    expect(() => gradient(g, [[sum(g, rstd), fill(g, [1], 1)]], { wrt: [x] })).toThrow(
      /rmsnorm: no gradient flows through rstd/,
    )
  })

  it('a weight that is no f32 refuses to train', () => {
    const g = new Graph()
    const y = linear(g, g.input('x', f32(3, 4)), g.weight('w', { dtype: 'f16', shape: [2, 4] }, true))
    expect(() => gradient(g, [[sum(g, y), fill(g, [1], 1)]])).toThrow(ShapeError)
  })

  it('the tail has none where every id is picked', () => {
    const g = new Graph()
    const h = g.input('h', f32(1, 2))
    const ids = g.input('ids', { dtype: 'i32', shape: [1, 3] })
    const [, , , tail] = vocabPick(g, h, g.weight('table', f32(3, 2)), ids, fill(g, [1], 1))
    const [dh] = gradient(g, [[sum(g, tail), fill(g, [1], 1)]], { wrt: [h] })
    g.output('tail', tail)
    g.output('dh', dh!)
    const outputs = runReference(
      toProgram(g, 'tail'),
      { h: Float64Array.of(1, 2), ids: Float64Array.of(2, 0, 1) },
      { table: Float64Array.of(1, 2, 3, 4, 5, -6) },
    )
    expect([...outputs.tail]).toEqual([-1e30])
    expect([...outputs.dh]).toEqual([0, 0])
  })

  it('min and max share it on ties, clamp keeps it on the border', () => {
    const run = (build: (g: Graph, a: Tensor, b: Tensor) => Tensor) => {
      const g = new Graph()
      const [a, b] = [g.input('a', f32(3)), g.input('b', f32(3))]
      gradient(g, [[sum(g, build(g, a, b)), fill(g, [1], 1)]], { wrt: [a, b] }).forEach((grad, i) => {
        if (grad) g.output('ab'[i], grad)
      })
      const inputs = { a: Float64Array.of(1, 2, 3), b: Float64Array.of(1, 3, 2) }
      return Object.values(runReference(toProgram(g, 'ties'), inputs, {})).map((v) => [...v])
    }
    expect(run((g, a, b) => g.apply(ops.min, [a, b], {})[0])).toEqual([
      [0.5, 1, 0],
      [0.5, 0, 1],
    ])
    expect(run((g, a, b) => g.apply(ops.max, [a, b], {})[0])).toEqual([
      [0.5, 0, 1],
      [0.5, 1, 0],
    ])
    expect(run((g, a) => g.apply(ops.clamp, [a], { lo: 1, hi: 2 })[0])).toEqual([[1, 1, 0]])
  })
})

/** A two-layer decoder in small, each layer a region, with everything that makes recomputation hard: dropout, LoRA, norms. */
function smallModel(recompute: boolean, keptBytes = 0) {
  const g = new Graph()
  const [n, c, v, heads] = [6, 8, 11, 2]
  const f32 = (...shape: number[]) => ({ dtype: 'f32' as const, shape })
  const i32 = (...shape: number[]) => ({ dtype: 'i32' as const, shape })
  const table = g.weight('table', f32(v, c), true)
  const seed = g.input('seed', i32(2))
  const attrs = { heads, kvHeads: 1, scale: 0.5, window: 3 }
  let x = embed(g, g.input('ids', i32(n)), table)
  for (const layer of [0, 1])
    x = g.region(`layer${layer}`, () => {
      const w = (name: string, ...shape: number[]) => g.weight(`${layer}.${name}`, f32(...shape), true)
      const [normed] = rmsnorm(g, x, w('norm', c), 1e-6)
      const positions = g.input('positions', i32(n))
      const angles = g.weight('rope', f32(n, c / heads))
      const base = linear(g, normed, w('q', c, c), w('qb', c))
      const seen = dropout(g, normed, seed, { p: 0.3, stream: layer })
      const [q] = lora(g, base, seen, w('a', 3, c), w('b', c, 3), g.input('scale', f32(1)))
      const k = linear(g, normed, w('k', c / heads, c))
      const value = linear(g, normed, w('v', c / heads, c))
      const [out] = attention(
        g,
        g.keep(rope(g, q, positions, angles, { heads })),
        rope(g, k, positions, angles, { heads: 1 }),
        value,
        g.input('starts', i32(n)),
        attrs,
      )
      const mixed = g.keep(add(g, x, g.keep(out)))
      return add(
        g,
        mixed,
        linear(g, swiglu(g, linear(g, mixed, w('gate', 13, c)), linear(g, mixed, w('up', 13, c))), w('down', c, 13)),
      )
    })
  const scored = gatherRows(g, x, g.input('rows', i32(4)))
  const [logProbs, , entropy] = vocabPick(g, scored, table, g.input('picked', i32(4, 1)), fill(g, [1], 1))
  const loss = add(g, sum(g, logProbs), sum(g, entropy))
  g.output('loss', loss)
  gradient(g, [[loss, fill(g, [1], 1)]], { recompute, keptBytes })
  const p = toProgram(g, 'small')
  const inputs: Arrays = {
    ids: Float64Array.of(3, 1, 4, 1, 5, 9),
    positions: Float64Array.of(0, 1, 2, 3, 0, 1),
    starts: Float64Array.of(0, 0, 0, 0, 4, 4),
    rows: Float64Array.of(2, 3, 5, -1),
    picked: Float64Array.of(7, 2, 10, -1),
    seed: Float64Array.of(5, 77),
    scale: Float64Array.of(2),
  }
  const random = normals('small model')
  const bound: Arrays = {}
  for (const t of p.tensors)
    if (t.kind === 'weight' || t.kind === 'state')
      bound[t.name] ??= Float64Array.from(
        { length: elementCount(t.shape) },
        t.kind === 'weight' ? () => 0.4 * random() : () => 0,
      )
  return { p, inputs, bound }
}

describe('a small decoder', () => {
  it('has the same gradients, to the bit, with recomputation, in less memory', () => {
    const [kept, again] = [smallModel(false), smallModel(true)]
    // Weights are drawn in the order of the tensors, which recomputation must not change.
    for (const [name, data] of Object.entries(kept.bound)) again.bound[name] = data.slice()
    const [a, b] = [kept, again].map(({ p, inputs, bound }) => runReference(p, inputs, bound))
    expect(again.p.nodes.length).toBeGreaterThan(kept.p.nodes.length)
    expect(b.loss).toEqual(a.loss)
    const names = Object.keys(kept.bound).filter((name) => name.startsWith('grad/'))
    expect(names.length).toBe(1 + 2 * 10)
    for (const name of names) {
      expect(again.bound[name], name).toEqual(kept.bound[name])
      expect(
        kept.bound[name].some((v) => v !== 0),
        name,
      ).toBe(true)
    }
    expect(planMemory(again.p).arenaBytes).toBeLessThan(planMemory(kept.p).arenaBytes)
  })

  it('keeps as many dear results as it is given bytes for: the same gradients, fewer nodes', () => {
    // q, the attention's result and the sum after it, [6, 8] f32 each, in two layers.
    const models = [0, 191, 192, 3 * 192, 6 * 192].map((bytes) => smallModel(true, bytes))
    for (const { bound } of models.slice(1))
      for (const [name, data] of Object.entries(models[0].bound)) bound[name] = data.slice()
    for (const { p, inputs, bound } of models) runReference(p, inputs, bound)
    for (const { bound } of models) expect(bound).toEqual(models[0].bound)
    const nodes = models.map(({ p }) => p.nodes.length)
    expect(nodes[1]).toBe(nodes[0])
    expect(nodes[2]).toBe(nodes[1] - 1)
    expect(nodes[4]).toBeLessThan(nodes[3])
    expect(nodes[3]).toBeLessThan(nodes[2])
  })

  it('has gradients that equal central differences, the tied table included', () => {
    const { p, inputs, bound } = smallModel(false)
    const lossAt = () => {
      const scratch = Object.fromEntries(
        Object.entries(bound).map(([k, v]) => [k, k.startsWith('grad/') ? v.slice() : v]),
      )
      return runReference(p, inputs, scratch).loss[0]
    }
    const grads = Object.fromEntries(Object.entries(bound).map(([k, v]) => [k, k.startsWith('grad/') ? v.slice() : v]))
    runReference(p, inputs, grads)
    const random = normals('places')
    for (const name of Object.keys(bound)) {
      const grad = grads[gradientName(name)]
      if (!grad) continue
      const places = pick(grad.length, random).slice(0, 4)
      const numeric = places.map((at) => {
        const x = bound[name][at]
        const at_ = (step: number) => {
          bound[name][at] = x + step
          return lossAt()
        }
        const h = 1e-4
        const slope = (8 * (at_(h) - at_(-h)) - (at_(2 * h) - at_(-2 * h))) / (12 * h)
        bound[name][at] = x
        return slope
      })
      const largest = grad.reduce((a, b) => Math.max(a, Math.abs(b)), 0)
      places.forEach((at, i) => {
        expect(Math.abs(numeric[i] - grad[at]) / largest, `${name}[${at}]`).toBeLessThan(1e-6)
      })
    }
  })
})
