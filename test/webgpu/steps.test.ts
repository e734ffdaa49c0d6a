import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { byteLength, elementCount, type TensorType } from '../../sdk/dtype.ts'
import { Graph } from '../../sdk/graph/graph.ts'
import { type Program, toProgram } from '../../sdk/graph/program.ts'
import { add, attentionCached, embed, kvWrite, linear, sample, scale } from '../../sdk/ops/index.ts'
import type { Buffer, Executable, RunOutputs, Target } from '../../sdk/target.ts'
import { Pace } from '../../targets/webgpu/work.ts'
import { normals } from '../suite.ts'
import { useSwiftShader } from '../swiftshader.ts'
import { openGpu, type Watched, watch } from './gpu.ts'

const skip = useSwiftShader()
const f32 = (...shape: number[]): TensorType => ({ dtype: 'f32', shape })
const i32 = (...shape: number[]): TensorType => ({ dtype: 'i32', shape })

/** Sizes: rows, vocabulary, heads, head size, positions, steps. */
const [rows, vocabulary, heads, d, capacity, steps] = [3, 70, 2, 4, 16, 16]

/** A decoder of one layer that draws its own next ids, with a cache and counts of what was drawn. */
function decoder(): Program {
  const g = new Graph()
  const table = g.weight('table', f32(vocabulary, heads * d))
  const positions = g.input('positions', i32(rows))
  const x = embed(g, g.input('ids', i32(rows)), table)
  const cache = kvWrite(g, g.state('cache', f32(rows, heads, capacity, d)), x, positions)
  const y = attentionCached(g, x, cache, cache, positions, undefined, { scale: 0.5, window: 0 })
  const [next, logProb] = sample(
    g,
    linear(g, add(g, x, y), table),
    {
      temperature: g.input('temperature', f32(rows)),
      topK: g.input('topK', i32(rows)),
      topP: g.input('topP', f32(rows)),
      minP: g.input('minP', f32(rows)),
      uniform: g.input('uniform', f32(rows)),
      editRow: g.input('editRow', i32(1)),
      editId: g.input('editId', i32(1)),
      editBias: g.input('editBias', f32(1)),
    },
    { penalties: g.input('penalties', f32(rows, 3)), counts: g.state('counts', i32(rows, vocabulary)) },
  )
  g.output('next', next)
  g.output('logProb', logProb)
  g.output('hidden', y)
  return toProgram(g, 'decoder')
}

const perRow = <T>(of: (r: number) => T): T[] => Array.from({ length: rows }, (_, r) => of(r))
const fixed = {
  ids: Int32Array.from(perRow((r) => 5 + r)),
  temperature: Float32Array.from(perRow((r) => (r === 1 ? 0 : 2))),
  topK: Int32Array.from(perRow(() => 20)),
  topP: Float32Array.from(perRow(() => 0.95)),
  minP: new Float32Array(rows),
  editRow: Int32Array.of(2),
  editId: Int32Array.of(7),
  editBias: Float32Array.of(1.5),
  penalties: Float32Array.from(perRow(() => [1.3, 0.2, 0.1]).flat()),
}
const positions = Int32Array.from({ length: steps * rows }, (_, i) => Math.floor(i / rows))
const uniform = Float32Array.from({ length: steps * rows }, (_, i) => (i * 0.37) % 1)

describe.skipIf(skip)(`webgpu in runs of several steps${skip ? ` (${skip})` : ''}`, () => {
  let target: Target
  let device: GPUDevice
  let watched: Watched
  beforeEach(async () => {
    ;({ target, device } = await openGpu())
    watched = watch(device)
  })
  afterEach(async () => {
    vi.restoreAllMocks()
    await target.close()
  })

  /** Another one each time, so that its state is new. */
  async function compiled(): Promise<{ executable: Executable; bound: Record<string, Buffer> }> {
    const bound: Record<string, Buffer> = {}
    const types = {
      table: f32(vocabulary, heads * d),
      cache: f32(rows, heads, capacity, d),
      counts: i32(rows, vocabulary),
    }
    for (const [name, type] of Object.entries(types)) bound[name] = target.create(type, name)
    const random = normals('table')
    await target.write(
      bound.table,
      Float32Array.from({ length: elementCount(types.table.shape) }, () => 0.7 * random()),
    )
    return { executable: await target.compile(decoder(), bound), bound }
  }

  const stateOf = async (bound: Record<string, Buffer>) => [
    await target.read(bound.cache),
    await target.read(bound.counts),
  ]
  const carry = { ids: 'next' }
  /** No dispatch is timed, each is thought to take so long. */
  const pace = (seconds: number) => {
    vi.spyOn(Pace.prototype, 'isUnknown').mockReturnValue(false)
    vi.spyOn(Pace.prototype, 'estimate').mockReturnValue(seconds)
  }

  it('the same bits as step by step: what is sliced, carried, collected and kept in state', async () => {
    const single = await compiled()
    const outputs: RunOutputs[] = []
    let { ids } = fixed
    for (let s = 0; s < steps; s++) {
      const own = {
        positions: positions.slice(s * rows, (s + 1) * rows),
        uniform: uniform.slice(s * rows, (s + 1) * rows),
      }
      outputs.push(await single.executable.run({ ...fixed, ...own, ids }))
      ids = outputs[s].next as Int32Array<ArrayBuffer>
    }
    const several = await compiled()
    const got = await several.executable.run({ ...fixed, positions, uniform }, { steps, carry })
    for (const name of ['next', 'logProb', 'hidden'])
      expect([...got[name]], name).toEqual(outputs.flatMap((output) => [...output[name]]))
    expect(new Set(got.next).size).toBeGreaterThan(10)
    expect(await stateOf(several.bound)).toEqual(await stateOf(single.bound))
    // In parts: 3, 1 and 12 steps.
    const parts = await compiled()
    const next: number[] = []
    for (const [from, n] of [
      [0, 3],
      [3, 1],
      [4, 12],
    ]) {
      const part = <T extends Float32Array | Int32Array>(all: T) => all.slice(from * rows, (from + n) * rows)
      const given = { ...fixed, positions: part(positions), uniform: part(uniform) }
      if (from > 0) given.ids = Int32Array.from(next.slice(-rows))
      const result = await parts.executable.run(given, { steps: n, carry, collect: ['next'] })
      expect(Object.keys(result)).toEqual(['next'])
      next.push(...result.next)
    }
    expect(next).toEqual([...got.next])
    expect(await stateOf(parts.bound)).toEqual(await stateOf(single.bound))
  })

  it('outputs that change places with inputs', async () => {
    const g = new Graph()
    const [a, b] = [g.input('a', f32(5)), g.input('b', f32(5))]
    g.output('sum', add(g, scale(g, a, 0.5), b))
    g.output('half', scale(g, a, 0.5))
    const executable = await target.compile(toProgram(g, 'exchange'), {})
    const [x, y] = [Float32Array.of(1, 2, 3, 4, 5), Float32Array.of(5, 4, 3, 2, 1)]
    const got = await executable.run({ a: x, b: y }, { steps: 9, carry: { a: 'sum', b: 'half' } })
    let [p, q] = [x, y]
    for (let s = 0; s < 9; s++) {
      ;[p, q] = [p.map((v, i) => 0.5 * v + q[i]), p.map((v) => 0.5 * v)]
      expect(got.sum.slice(5 * s, 5 * s + 5)).toEqual(p)
      expect(got.half.slice(5 * s, 5 * s + 5)).toEqual(q)
    }
  })

  it('few submits, one reading back, and memory that goes with the program', async () => {
    const { executable, bound } = await compiled()
    pace(1e-4)
    const one = { positions: positions.slice(0, rows), uniform: uniform.slice(0, rows) }
    await executable.run({ ...fixed, ...one })
    const [dispatches] = watched.submits.splice(0)
    expect(watched.readbacks).toBe(1)
    // What was forecast is of one step.
    const weights = Object.values(bound).reduce((sum, { type }) => sum + byteLength(type), 0)
    expect(watched.live.bytes).toBe(weights + (await target.scratchBytes([decoder()])))
    const submit = vi.spyOn(device.queue, 'submit')
    const before = watched.live.bytes
    await executable.run({ ...fixed, positions, uniform }, { steps, carry, collect: ['next', 'logProb'] })
    expect(watched.submits).toEqual([64, 64, 16 * dispatches - 128].filter((n) => n > 0))
    expect(submit).toHaveBeenCalledTimes(watched.submits.length + 1)
    expect(watched.readbacks).toBe(2)
    expect(watched.live.bytes - before).toBeGreaterThan(0)
    expect(watched.live.bytes - before).toBeLessThan(10_000)
    const kept = watched.live.bytes
    await executable.run({ ...fixed, positions, uniform }, { steps, carry, collect: ['next', 'logProb'] })
    expect(watched.live.bytes).toBe(kept)
    executable.free()
    for (const buffer of Object.values(bound)) target.free(buffer)
    await vi.waitFor(() => expect(watched.live.bytes).toBe(4 * 2 ** 20))
  })

  it('ends between submits when it is aborted, and what comes after is right', async () => {
    const { executable } = await compiled()
    // One dispatch a submit.
    pace(0.15)
    const controller = new AbortController()
    const submit = device.queue.submit.bind(device.queue)
    device.queue.submit = (commands) => {
      submit(commands)
      if (watched.submits.length === 20) controller.abort(new Error('enough'))
    }
    const run = executable.run({ ...fixed, positions, uniform }, { steps, carry, signal: controller.signal })
    await expect(run).rejects.toThrow('enough')
    expect(watched.submits).toEqual(Array(20).fill(1))
    const other = await compiled()
    const whole = await other.executable.run({ ...fixed, positions, uniform }, { steps, carry })
    const again = await compiled()
    expect(await again.executable.run({ ...fixed, positions, uniform }, { steps, carry })).toEqual(whole)
  })
})
