import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { byteLength, elementCount } from '../../sdk/dtype.ts'
import { Graph, type Tensor } from '../../sdk/graph/graph.ts'
import { type Location, type MemoryPlan, type Program, planMemory, toProgram } from '../../sdk/graph/program.ts'
import { accumulate, add, dropout, fill, mul, ops, scale, sub, sum, swiglu, view } from '../../sdk/ops/index.ts'
import { swigluBack } from '../../sdk/ops/swiglu.ts'

type Step = { kind: number; a: number; b: number; c: number }

/** A random program over two shapes, [4, 5] and [1], with views, several outputs, state and in-place ops. */
function build(steps: readonly Step[], outputs: readonly number[]): Program {
  const g = new Graph()
  const type = { dtype: 'f32', shape: [4, 5] } as const
  const wide = [g.input('x', type), g.input('y', type), g.weight('w', type)]
  const scalars = [g.input('s', { dtype: 'f32', shape: [1] })]
  const seed = g.input('seed', { dtype: 'i32', shape: [2] })
  const of = (list: Tensor[], i: number) => list[i % list.length]
  const kinds: ((a: Tensor, b: Tensor, c: Tensor, s: Tensor) => Tensor[])[] = [
    (a, b) => [add(g, a, b)],
    (a, b) => [sub(g, a, b)],
    (a) => [scale(g, a, -0.5)],
    (a, _, __, s) => [mul(g, a, s)],
    (a, b) => [swiglu(g, a, b)],
    (a, b, c) => swigluBack(g, a, b, c),
    (a) => [view(g, view(g, a, [20]), [4, 5])],
    (a) => [dropout(g, a, seed, { p: 0.5, stream: 1 })],
    () => [fill(g, [4, 5], 0.25)],
    (a) => {
      accumulate(g, g.state('grad', type), a)
      return []
    },
    (a) => {
      scalars.push(sum(g, a))
      return []
    },
  ]
  for (const { kind, a, b, c } of steps)
    wide.push(...kinds[kind % kinds.length](of(wide, a), of(wide, b), of(wide, c), of(scalars, c)))
  for (const [i, at] of outputs.entries()) g.output(`out${i}`, of(wide, at))
  return toProgram(g, 'random')
}

const step = fc.record({ kind: fc.nat(10), a: fc.nat(40), b: fc.nat(40), c: fc.nat(40) })
const program = fc
  .tuple(fc.array(step, { minLength: 1, maxLength: 40 }), fc.array(fc.nat(60), { minLength: 1, maxLength: 3 }))
  .map(([steps, outputs]) => build(steps, outputs))

const range = (at: Location): [start: number, end: number] | null =>
  'bound' in at ? null : [at.offset, at.offset + at.bytes]
const overlap = (a: Location, b: Location): boolean => {
  const [x, y] = [range(a), range(b)]
  return x !== null && y !== null && x[0] < y[1] && y[0] < x[1]
}
const alignment = 64
const rounded = (bytes: number) => Math.ceil(bytes / alignment) * alignment

/** Node at which each tensor's bytes appear, and the last one that reads them through any view. */
function trueLifetimes(p: Program): [first: number, last: number][] {
  const lives = p.tensors.map((): [number, number] => [-1, -1])
  p.nodes.forEach((node, n) => {
    for (const id of node.outputs) lives[id] = [n, n]
    for (const id of node.inputs) lives[id][1] = n
  })
  for (const id of Object.values(p.outputs)) lives[id][1] = p.nodes.length
  return lives
}

/** Runs in one arena at the planned places, scratch filled with NaN; state in `bound`. Rounds to f32 as a target does. */
function runInArena(p: Program, plan: MemoryPlan, inputs: Float32Array[], bound: Record<string, Float32Array>) {
  const arena = new Float32Array(plan.arenaBytes / 4)
  const at = (id: number) => {
    const where = plan.locations[id]
    if ('bound' in where) return bound[where.bound]
    return arena.subarray(where.offset / 4, where.offset / 4 + elementCount(p.tensors[id].shape))
  }
  for (const t of p.tensors) if (t.kind === 'input') at(t.id).set(inputs[['x', 'y', 's', 'seed'].indexOf(t.name)])
  p.nodes.forEach((node, n) => {
    const results = ops[node.op].reference(
      node.inputs.map((id) => ({ shape: p.tensors[id].shape, data: Float64Array.from(at(id)) })),
      node.attrs,
    )
    if (plan.scratch[n] >= 0) arena.fill(Number.NaN, plan.scratch[n] / 4, plan.scratch[n] / 4 + 10)
    node.outputs.forEach((id, i) => {
      at(id).set(results[i].data)
    })
  })
  return Object.fromEntries(Object.entries(p.outputs).map(([key, id]) => [key, at(id).slice()]))
}

/** The same with memory of its own for every tensor. */
function runNaively(p: Program, inputs: Float32Array[], bound: Record<string, Float32Array>) {
  const locations = p.tensors.map((t) => ({ bound: t.kind === 'temp' || t.kind === 'input' ? `#${t.id}` : t.name }))
  const memory = { ...bound }
  for (const t of p.tensors) memory[locations[t.id].bound] ??= new Float32Array(elementCount(t.shape))
  return runInArena(p, { arenaBytes: 0, locations, scratch: p.nodes.map(() => -1), lifetimes: [] }, inputs, memory)
}

const scratchBytesOf = (p: Program) => p.nodes.map(() => 40)

describe('planMemory', () => {
  it('never lets two live blocks overlap, and is at least the peak of live bytes', () => {
    fc.assert(
      fc.property(program, (p) => {
        const plan = planMemory(p, { alignment, scratchBytes: scratchBytesOf(p) })
        const lives = trueLifetimes(p)
        for (const at of plan.locations)
          if (!('bound' in at)) {
            expect(at.offset % alignment).toBe(0)
            expect(at.offset + at.bytes).toBeLessThanOrEqual(plan.arenaBytes)
          }
        p.nodes.forEach((node, n) => {
          // Blocks in use while the node runs: its own, and all that are read later.
          const live = p.tensors.filter(
            (t) => lives[t.id][0] <= n && lives[t.id][1] >= n && range(plan.locations[t.id]),
          )
          const blocks = new Map<number, number>([[plan.scratch[n], rounded(40)]])
          for (const t of live) {
            const [offset] = range(plan.locations[t.id])!
            blocks.set(offset, rounded(byteLength(t)))
            expect(overlap(plan.locations[t.id], { offset: plan.scratch[n], bytes: 40 })).toBe(false)
            for (const u of live) {
              if (u.id >= t.id || !overlap(plan.locations[t.id], plan.locations[u.id])) continue
              // Only tensors that stand for the same bytes share them: one of them is a view of, or was made in place of, the other.
              expect(range(plan.locations[t.id])).toEqual(range(plan.locations[u.id]))
            }
          }
          expect([...blocks.values()].reduce((a, b) => a + b, 0)).toBeLessThanOrEqual(plan.arenaBytes)
          for (const [o, id] of node.outputs.entries()) {
            node.inputs.forEach((input, i) => {
              if (!overlap(plan.locations[id], plan.locations[input])) return
              const allowed = [...node.inplace, ...node.alias].some(([from, to]) => from === i && to === o)
              expect(allowed, `${node.op}: output ${o} over input ${i}`).toBe(true)
            })
            for (const other of node.outputs.slice(0, o))
              expect(overlap(plan.locations[id], plan.locations[other])).toBe(false)
          }
        })
      }),
      { numRuns: 300, seed: 1 },
    )
  })

  it('gives the same results as memory of its own for every tensor', () => {
    const inputs = [
      Float32Array.from({ length: 20 }, (_, i) => Math.sin(i + 1)),
      Float32Array.from({ length: 20 }, (_, i) => Math.cos(3 * i)),
      Float32Array.of(0.75),
      Float32Array.of(7, 9),
    ]
    const memory = () => ({ w: Float32Array.from({ length: 20 }, (_, i) => 1 / (i + 1)), grad: new Float32Array(20) })
    let shared = 0
    fc.assert(
      fc.property(program, (p) => {
        const [planned, naive] = [memory(), memory()]
        const plan = planMemory(p, { alignment, scratchBytes: scratchBytesOf(p) })
        shared += p.nodes.filter((node) =>
          node.inplace.some(([i, o]) => overlap(plan.locations[node.inputs[i]], plan.locations[node.outputs[o]])),
        ).length
        expect(runInArena(p, plan, inputs, planned)).toEqual(runNaively(p, inputs, naive))
        expect(planned).toEqual(naive)
        // Weights are never written.
        expect(planned.w).toEqual(memory().w)
      }),
      { numRuns: 300, seed: 2 },
    )
    // In-place reuse did happen.
    expect(shared).toBeGreaterThan(100)
  })

  it('with a boundary nothing lies across a multiple of it, and results stay the same', () => {
    const inputs = [
      new Float32Array(20).fill(1),
      new Float32Array(20).fill(2),
      Float32Array.of(3),
      Float32Array.of(7, 9),
    ]
    const memory = () => ({ w: new Float32Array(20).fill(0.5), grad: new Float32Array(20) })
    // A little more than the largest block.
    const boundary = 2 * rounded(80)
    let several = 0
    fc.assert(
      fc.property(program, (p) => {
        const plan = planMemory(p, { alignment, boundary, scratchBytes: scratchBytesOf(p) })
        if (plan.arenaBytes > boundary) several++
        const blocks = plan.locations.flatMap((at) => ('bound' in at ? [] : [[at.offset, at.bytes]]))
        for (const [offset, bytes] of [...blocks, ...plan.scratch.map((offset) => [offset, 40])])
          expect(Math.floor(offset / boundary)).toBe(Math.floor((offset + bytes - 1) / boundary))
        const [planned, naive] = [memory(), memory()]
        expect(runInArena(p, plan, inputs, planned)).toEqual(runNaively(p, inputs, naive))
        expect(planned).toEqual(naive)
      }),
      { numRuns: 200, seed: 3 },
    )
    expect(several).toBeGreaterThan(100)
  })

  it('needs two blocks for a chain, however long', () => {
    const g = new Graph()
    let x = g.input('x', { dtype: 'f32', shape: [256] })
    for (let i = 0; i < 10; i++) x = scale(g, x, 2)
    g.output('y', x)
    expect(planMemory(toProgram(g, 'chain')).arenaBytes).toBe(2 * 1024)
  })
})
