import { execFile } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { promisify } from 'node:util'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { DeviceError, MemoryError, OptionError, ShapeError } from '../../sdk/errors.ts'
import { Graph } from '../../sdk/graph/graph.ts'
import { type Program, toProgram } from '../../sdk/graph/program.ts'
import { add, scale } from '../../sdk/ops/index.ts'
import { linear } from '../../sdk/ops/linear.ts'
import { linearBackBias } from '../../sdk/ops/linear-back.ts'
import type { Buffer, Target } from '../../sdk/target.ts'
import { wasmTarget } from '../../targets/wasm/index.ts'
import { controlBase, Heap } from '../../targets/wasm/memory.ts'
import * as node from '../../targets/wasm/node.ts'
import { WorkerPool } from '../../targets/wasm/pool.ts'

const open: Target[] = []
afterEach(async () => {
  await Promise.all(open.splice(0).map((target) => target.close()))
})

async function start(options?: Parameters<typeof wasmTarget>[0]): Promise<Target> {
  const target = await wasmTarget(options)
  open.push(target)
  return target
}

const f32 = (...shape: number[]) => ({ dtype: 'f32', shape }) as const

/** y = x·wᵀ, `depth` times over: w is the identity's double, so y = 2^depth x. */
function chain(n: number, width: number, depth: number): Program {
  const g = new Graph()
  const w = g.weight('w', f32(width, width))
  let x = g.input('x', f32(n, width))
  for (let d = 0; d < depth; d++) x = linear(g, x, w)
  g.output('y', x)
  return toProgram(g, 'chain')
}

function doubling(target: Target, width: number): Buffer {
  const w = target.create(f32(width, width), 'w')
  const data = new Float32Array(width * width)
  for (let i = 0; i < width; i++) data[i * width + i] = 2
  void target.write(w, data)
  return w
}

const filled = (n: number, value: number) => new Float32Array(n).fill(value)

describe.each([{ threads: 1 }, { threads: 2 }, { shared: false }])('runs on %o', (options) => {
  it('carries out queued runs in order, with the inputs, writes and frees of the time of the call', async () => {
    const target = await start(options)
    const w = doubling(target, 32)
    const executable = await target.compile(chain(5, 32, 3), { w })
    const x = filled(5 * 32, 1)
    const first = executable.run({ x })
    x.fill(3)
    const second = executable.run({ x })
    const nothing = new Float32Array(32 * 32)
    const written = target.write(w, nothing)
    nothing.fill(7)
    const third = executable.run({ x })
    const after = target.read(w)
    target.free(w)
    expect(target.create(f32(32, 32), 'taken while runs wait').bytes).toBe(4096)
    expect((await first).y).toEqual(filled(5 * 32, 8))
    expect((await second).y).toEqual(filled(5 * 32, 24))
    await written
    expect((await third).y).toEqual(filled(5 * 32, 0))
    expect(new Float32Array(await after)).toEqual(new Float32Array(32 * 32))
  })

  it('takes several steps: sliced inputs, what is carried, what is collected, state; to the bits of single runs', async () => {
    const target = await start(options)
    const g = new Graph()
    const x = g.input('x', f32(5, 32))
    const y = linear(g, add(g, x, g.input('more', f32(5, 32))), g.weight('w', f32(32, 32)))
    g.output('y', y)
    g.output('z', scale(g, y, 2))
    linearBackBias(g, y, g.state('sums', f32(32)))
    const program = toProgram(g, 'steps')
    const numbers = (n: number, f: number) => Float32Array.from({ length: n }, (_, i) => Math.sin(i * f))
    const steps = 7
    const [w, first, more] = [numbers(1024, 1.7), numbers(160, 0.3), numbers(steps * 160, 0.9)]
    const bind = () => {
      const bound = { w: target.create(f32(32, 32), 'w'), sums: target.create(f32(32), 'sums') }
      void target.write(bound.w, w)
      return bound
    }
    const [one, many] = [bind(), bind()]
    const single = await target.compile(program, one)
    const wanted: Float32Array[] = []
    let carried = first
    for (let s = 0; s < steps; s++) {
      const out = await single.run({ x: carried, more: more.subarray(s * 160, (s + 1) * 160) })
      carried = out.y as Float32Array<ArrayBuffer>
      wanted.push(out.z as Float32Array)
    }
    const all = await target.compile(program, many)
    const out = await all.run({ x: first, more }, { steps, carry: { x: 'y' }, collect: ['z'] })
    expect(Object.keys(out)).toEqual(['z'])
    expect(out.z).toEqual(Float32Array.from(wanted.flatMap((part) => [...part])))
    expect(await target.read(many.sums)).toEqual(await target.read(one.sums))
    // An input of one step is the same in each.
    const same = await all.run({ x: first, more: more.subarray(0, 160) }, { steps: 2, collect: ['y'] })
    expect(same.y.slice(0, 160)).toEqual(same.y.slice(160))
    await expect(all.run({ x: first, more }, { steps: 0 })).rejects.toThrow(/steps is 0, not a positive integer/)
    await expect(all.run({ x: first, more }, { steps: 6 })).rejects.toThrow(/input more .* given 4480 bytes/)
    await expect(all.run({ x: first, more }, { steps, carry: { x: 'q' } })).rejects.toThrow(/no output q/)
    await expect(all.run({ x: first, more }, { steps, carry: { more: 'y' } })).rejects.toThrow(
      /more is given for every step/,
    )
    await expect(all.run({ x: first, more }, { steps, collect: ['v'] })).rejects.toThrow(/no output v/)
  })

  it('is left between two steps, and a kernel that traps in one of them ends it', async () => {
    const target = await start(options)
    const executable = await target.compile(chain(512, 512, 4), { w: target.create(f32(512, 512), 'w') })
    const x = filled(512 * 512, 0)
    const controller = new AbortController()
    const begun = performance.now()
    setTimeout(() => controller.abort(new Error('enough')), 50)
    const running = executable.run({ x }, { steps: 2000, collect: [], carry: { x: 'y' }, signal: controller.signal })
    await expect(running).rejects.toThrow('enough')
    expect(performance.now() - begun).toBeLessThan(5000)
    const short = await target.compile(chain(5, 32, 1), { w: doubling(target, 32) })
    const { y } = await short.run({ x: filled(160, 1) }, { steps: 3, carry: { x: 'y' } })
    expect([y[0], y[160], y[479]]).toEqual([2, 4, 8])
  })

  it('shares one scratch region among programs, which may move as larger ones come and go', async () => {
    const target = await start(options)
    const w = doubling(target, 32)
    const small = await target.compile(chain(5, 32, 2), { w })
    const large = await target.compile(chain(5000, 32, 2), { w })
    expect(large.memory.arenaBytes).toBeGreaterThan(small.memory.arenaBytes)
    expect((await small.run({ x: filled(160, 1) })).y).toEqual(filled(160, 4))
    expect((await large.run({ x: filled(160_000, 1) })).y).toEqual(filled(160_000, 4))
    large.free()
    large.free()
    expect((await small.run({ x: filled(160, 2) })).y).toEqual(filled(160, 8))
    await expect(large.run({ x: filled(160_000, 1) })).rejects.toThrow(/run after free/)
  })

  it('leaves an aborted run between nodes, and runs on afterwards', async () => {
    const target = await start(options)
    // Ten seconds of work or more.
    const executable = await target.compile(chain(512, 512, 4000), { w: target.create(f32(512, 512), 'w') })
    const x = filled(512 * 512, 0)
    const controller = new AbortController()
    const begun = performance.now()
    const running = executable.run({ x }, { signal: controller.signal })
    const waiting = executable.run({ x }, { signal: controller.signal })
    const reason = new Error('enough')
    setTimeout(() => controller.abort(reason), 50)
    await expect(running).rejects.toBe(reason)
    await expect(waiting).rejects.toBe(reason)
    await expect(executable.run({ x }, { signal: controller.signal })).rejects.toBe(reason)
    expect(performance.now() - begun).toBeLessThan(5000)
    const short = await target.compile(chain(5, 32, 1), { w: doubling(target, 32) })
    expect((await short.run({ x: filled(160, 1) })).y).toEqual(filled(160, 2))
  })

  it('closes: runs under way reject, later calls throw, twice is once', async () => {
    const target = await start(options)
    const executable = await target.compile(chain(512, 512, 400), { w: target.create(f32(512, 512), 'w') })
    const x = filled(512 * 512, 0)
    const running = expect(executable.run({ x })).rejects.toThrow(DeviceError)
    const waiting = expect(executable.run({ x })).rejects.toThrow(/the target is closed/)
    await new Promise((resolve) => setTimeout(resolve, 20))
    await Promise.all([target.close(), target.close()])
    await running
    await waiting
    expect(() => target.create(f32(1), 'late')).toThrow(DeviceError)
    await expect(executable.run({ x })).rejects.toThrow(DeviceError)
    await target.close()
  })

  it('rejects every pending run when a kernel traps, and is unusable from then on', async () => {
    const target = await start(options)
    const w = doubling(target, 32)
    const executable = await target.compile(chain(5, 32, 1), { w })
    // Past the end of the memory.
    ;(w as unknown as { memory: { ptr: number } }).memory.ptr = 2 ** 32 - 65536
    const runs = [1, 2, 3].map(() => executable.run({ x: filled(160, 1) }))
    for (const run of await Promise.allSettled(runs)) {
      expect(run.status).toBe('rejected')
      expect((run as PromiseRejectedResult).reason).toBeInstanceOf(DeviceError)
      expect(String((run as PromiseRejectedResult).reason)).toMatch(/kernel linear failed: .*out of bounds/)
    }
    await expect(executable.run({ x: filled(160, 1) })).rejects.toThrow(DeviceError)
  })

  it('names what does not fit', async () => {
    const target = await start(options)
    const w = doubling(target, 32)
    const program = chain(5, 32, 1)
    await expect(target.compile(program, {})).rejects.toThrow(/no buffer bound for weight w/)
    await expect(target.compile(program, { w: target.create(f32(32, 8), 'w') })).rejects.toThrow(ShapeError)
    const executable = await target.compile(program, { w })
    await expect(executable.run({})).rejects.toThrow(/input x f32\[5, 32\] is missing/)
    await expect(executable.run({ x: filled(3, 0) })).rejects.toThrow(ShapeError)
    await expect(executable.run({ x: filled(160, 0), z: filled(1, 0) })).rejects.toThrow(/unknown input z/)
    expect(() => target.write(w, filled(32 * 32, 0), 4)).toThrow(ShapeError)
    target.free(w)
    target.free(w)
    await expect(target.read(w)).rejects.toThrow(/used after free/)
  })

  it('names all unsupported ops at once', async () => {
    const target = await start(options)
    const program = chain(5, 32, 2)
    const strange = { ...program, nodes: program.nodes.map((node, n) => ({ ...node, op: `strange${n}` })) }
    await expect(target.compile(strange, { w: doubling(target, 32) })).rejects.toThrow(/strange0.*strange1/)
  })
})

describe('the number of threads', () => {
  afterEach(() => vi.unstubAllEnvs())

  it('is HALFLING_THREADS where nothing else is asked for', async () => {
    vi.stubEnv('HALFLING_THREADS', '3')
    expect((await start()).info.threads).toBe(3)
    expect((await start({ threads: 2 })).info.threads).toBe(2)
    vi.stubEnv('HALFLING_THREADS', '')
    expect((await start()).info.threads).toBe(Math.min(8, availableParallelism()))
    for (const wrong of ['0', '2.5', 'all', '65']) {
      vi.stubEnv('HALFLING_THREADS', wrong)
      await expect(start()).rejects.toThrow(/^HALFLING_THREADS: .*give a whole number from 1 to 64$/)
    }
  })
})

describe('memory', () => {
  it('says which buffer does not fit, what it takes and what is in use', async () => {
    const target = await start({ threads: 1 })
    target.create(f32(2 ** 20), 'weights')
    expect(() => target.create(f32(2 ** 30), 'too large')).toThrow(MemoryError)
    expect(() => target.create(f32(2 ** 30), 'too large')).toThrow(/too large: 4096\.0 MiB asked for, 4\.0 MiB of 4096/)
    const w = target.create(f32(2 ** 14, 32), 'w')
    const g = new Graph()
    g.output('y', linear(g, g.input('x', f32(2 ** 17, 32)), g.weight('w', w.type as ReturnType<typeof f32>)))
    await expect(target.compile(toProgram(g, 'head'), { w })).rejects.toThrow(/scratch of program head: 8208\.\d MiB/)
    // Nothing was lost.
    const small = await target.compile(chain(5, 32, 1), { w: doubling(target, 32) })
    expect((await small.run({ x: filled(160, 1) })).y).toEqual(filled(160, 2))
  })

  it('computes with addresses above 2 GiB', async () => {
    const target = await start({ threads: 2 })
    target.create(f32(2 ** 29 + 2 ** 27), 'never touched')
    const w = doubling(target, 32)
    expect((w as unknown as { memory: { ptr: number } }).memory.ptr).toBeGreaterThan(2 ** 31)
    const executable = await target.compile(chain(9, 32, 2), { w })
    expect((await executable.run({ x: filled(288, 1) })).y).toEqual(filled(288, 4))
    const one = await target.compile(chain(1, 32, 2), { w })
    expect((await one.run({ x: filled(32, 1) })).y).toEqual(filled(32, 4))
  })

  it('reuses what was freed, merges neighbours and zeroes what was used', () => {
    const heap = new Heap(false)
    const [a, b, c] = ['a', 'b', 'c'].map((name) => heap.allocateZeroed(1000, name))
    expect([a, b, c].every((ptr) => ptr % 64 === 0)).toBe(true)
    expect(heap.used).toBe(3 * 1024)
    heap.bytes(a, 3 * 1024).fill(255)
    heap.free(a)
    heap.free(c)
    heap.free(b)
    heap.free(b)
    expect(heap.used).toBe(0)
    const all = heap.allocateZeroed(3 * 1024, 'all')
    expect(all).toBe(a)
    expect(heap.bytes(all, 3 * 1024).every((v) => v === 0)).toBe(true)
  })

  it('takes the smallest gap that fits, and never hands out the same bytes twice', () => {
    const heap = new Heap(false)
    const held = new Map<number, number>()
    let state = 1
    const random = (n: number) => {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0
      return Math.floor((state / 2 ** 32) * n)
    }
    for (let step = 0; step < 2000; step++) {
      if (held.size > 20 || (held.size > 0 && random(2) === 0)) {
        const ptr = [...held.keys()][random(held.size)]
        heap.free(ptr)
        held.delete(ptr)
        continue
      }
      const bytes = 1 + random(20_000)
      const ptr = heap.allocate(bytes, 'x')
      for (const [other, size] of held) expect(ptr + bytes <= other || other + size <= ptr).toBe(true)
      expect(ptr + bytes).toBeLessThanOrEqual(heap.memory.buffer.byteLength)
      held.set(ptr, bytes)
    }
    for (const ptr of held.keys()) heap.free(ptr)
    expect(heap.used).toBe(0)
    // All of it is one gap again: what was used fits once more without growing.
    const { byteLength } = heap.memory.buffer
    heap.allocate(byteLength - controlBase - 65536, 'everything')
    expect(heap.memory.buffer.byteLength).toBe(byteLength)
  })
})

/** A run of one step. */
const once = { steps: 1, before: [], after: [] }

describe('worker threads', () => {
  const pools: WorkerPool[] = []
  afterEach(async () => {
    await Promise.all(pools.splice(0).map((pool) => pool.close()))
  })

  async function pool(threads: number) {
    const heap = new Heap(true)
    let started = 0
    const startThread: typeof node.startThread = (...told) => {
      started++
      return node.startThread(...told)
    }
    const host = { ...node, startThread }
    const workers = await WorkerPool.start(host, await node.compileKernels('kernels'), heap.memory, threads)
    pools.push(workers)
    return { heap, workers, started }
  }

  /** Column sums: each thread makes its own columns only. */
  const sums = (heap: Heap, to: number, columns: number) => {
    const from = heap.allocateZeroed(4 * columns, 'a')
    heap.bytes(from, 4 * columns).set(new Uint8Array(filled(columns, 5).buffer))
    return ['columnSums', from, 0, to, 0, 1, columns] as const
  }

  it.each([1, 2, 3])('computes on %i threads beside the caller, meeting after every call', async (threads) => {
    const { heap, workers, started } = await pool(threads)
    expect(started).toBe(threads)
    const to = heap.allocateZeroed(400, 'sums')
    const call = sums(heap, to, 100)
    workers.load(1, [call, call, call])
    expect(await workers.run(1, once)).toBe(false)
    expect(new Float32Array(heap.memory.buffer, to, 100)).toEqual(filled(100, 5))
    // One barrier before the first call and one after each: all threads arrived at all of them.
    const control = new Int32Array(heap.memory.buffer, controlBase, 64)
    expect([control[0], control[16]]).toEqual([0, 4])
  })

  it('ends when one thread traps while the others wait for it', async () => {
    const { heap, workers } = await pool(2)
    // The first thread's 16 columns are the last ones of the memory, the second's lie past its end.
    const to = heap.memory.buffer.byteLength - 64
    workers.load(1, [sums(heap, to, 32)])
    await expect(workers.run(1, once)).rejects.toThrow(/kernel columnSums failed: .*out of bounds/)
    expect(() => workers.run(1, once)).toThrow(DeviceError)
  })

  it('rejects the run when a worker dies', async () => {
    const { heap, workers } = await pool(2)
    const call = sums(heap, heap.allocate(4 << 16, 'sums'), 1 << 16)
    workers.load(
      1,
      Array.from({ length: 20_000 }, () => call),
    )
    const running = expect(workers.run(1, once)).rejects.toThrow(/a worker exited/)
    await (workers as unknown as { workers: { end(): Promise<number> }[] }).workers[1].end()
    await running
  })

  it('refuses a kernel that does not exist', async () => {
    const { workers } = await pool(1)
    workers.load(1, [['nonsense', 1]])
    await expect(workers.run(1, once)).rejects.toThrow(/no kernel nonsense/)
  })

  it('lets the process end while idle, and keeps it alive during a run', async () => {
    const script = `
      import { wasmTarget } from './targets/wasm/index.ts'
      import { Graph } from './sdk/graph/graph.ts'
      import { toProgram } from './sdk/graph/program.ts'
      import { linear } from './sdk/ops/linear.ts'
      const target = await wasmTarget({ threads: 2 })
      const g = new Graph()
      const type = { dtype: 'f32', shape: [64, 64] }
      g.output('y', linear(g, g.input('x', type), g.input('w', type)))
      const executable = await target.compile(toProgram(g, 'p'), {})
      const ones = new Float32Array(4096).fill(1)
      executable.run({ x: ones, w: ones }).then(({ y }) => console.log('sum', y.reduce((a, b) => a + b)))`
    const folder = new URL('../..', import.meta.url)
    const { stdout } = await promisify(execFile)(
      process.execPath,
      ['--import', 'tsx', '--input-type=module', '-e', script],
      { cwd: folder, timeout: 30_000 },
    )
    expect(stdout.trim()).toBe(`sum ${64 ** 3}`)
  })
})

it('refuses options that make no sense', async () => {
  await expect(wasmTarget({ threads: 0 })).rejects.toThrow(OptionError)
  await expect(wasmTarget({ threads: 1.5 })).rejects.toThrow(OptionError)
  await expect(wasmTarget({ threads: 2, shared: false })).rejects.toThrow(OptionError)
})

it('says what it is', async () => {
  const target = await start({ threads: 2, build: 'plain' })
  expect(target.info).toMatchObject({ threads: 2, memoryLimit: 2 ** 32, features: ['simd128', 'threads'] })
  expect(target.info.description.length).toBeGreaterThan(0)
})

/** Node 20 lets them pass with a flag only. */
const knowsRelaxed = Number(process.versions.node.split('.')[0]) >= 22

it('takes the relaxed build where it computes rightly, and says why it cannot', async () => {
  expect((await start()).info.features[0]).toBe(knowsRelaxed ? 'relaxed-simd' : 'simd128')
  const asked = start({ build: 'relaxed', shared: false })
  if (knowsRelaxed) expect((await asked).info.features).toEqual(['relaxed-simd'])
  else
    await expect(asked).rejects.toThrow(
      new DeviceError('wasm: this engine does not know relaxed SIMD; leave the build out, or ask for the plain one'),
    )
})

it.skipIf(knowsRelaxed)('does not trust relaxed SIMD because it validates: Node 20 computes it wrongly', async () => {
  const script = `import('./targets/wasm/index.ts').then(({ wasmTarget }) => wasmTarget({ build: 'relaxed' })).catch((error) => console.log(error.message))`
  const flags = ['--experimental-wasm-relaxed-simd', '--import', 'tsx', '-e', script]
  const { stdout } = await promisify(execFile)(process.execPath, flags)
  expect(stdout).toMatch(/^wasm: this engine computes relaxed SIMD wrongly;/)
})

it('hands out the newest state', async () => {
  const target = await start({ threads: 2 })
  const g = new Graph()
  g.output('grad', linearBackBias(g, g.input('dy', f32(3, 5)), g.state('grad', f32(5))))
  const grad = target.create(f32(5), 'grad')
  const executable = await target.compile(toProgram(g, 'state'), { grad })
  await executable.run({ dy: filled(15, 1) })
  expect((await executable.run({ dy: filled(15, 1) })).grad).toEqual(filled(5, 6))
})
