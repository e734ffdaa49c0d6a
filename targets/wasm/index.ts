import { byteLength, type TensorType } from '../../sdk/dtype.ts'
import { DeviceError, OptionError } from '../../sdk/errors.ts'
import { type MemoryPlan, type Program, planMemory } from '../../sdk/graph/program.ts'
import type { DeviceInfo, Target, WasmBuild } from '../../sdk/target.ts'
import type { Job } from '../checks.ts'
import { lowerNode } from '../lowering.ts'
import { type Executor, QueuedTarget } from '../queued-target.ts'
import { checkThreads } from '../threads.ts'
import { findHost } from './host.ts'
import { InlineEngine } from './inline.ts'
import { type Kernels, openKernels, timeQuads } from './kernels.ts'
import { lowering } from './lower/index.ts'
import { roundOnce } from './lower/matrix.ts'
import type { Lowered, Host as LowerHost } from './lower/types.ts'
import { Heap } from './memory.ts'
import { type Engine, type Move, WorkerPool } from './pool.ts'

export interface WasmOptions {
  /** Compute threads; the caller's thread is not one of them. Default: the cores, 8 at most. */
  readonly threads?: number
  /** false: one thread, the caller's own; default: where memory cannot be shared, in a page that is not cross-origin isolated. */
  readonly shared?: boolean
  /** Kernels with relaxed SIMD, or without; default: with it where the engine computes it rightly. Last bits may differ. */
  readonly build?: WasmBuild
}

/**
 * The WebAssembly target: SIMD kernels on worker threads over one shared memory. Results do not depend on the number
 * of threads. Throws DeviceError when the kernels are not built or cannot run, or a worker does not start.
 */
export async function wasmTarget({ threads, shared, build: asked }: WasmOptions = {}): Promise<Target> {
  if (threads !== undefined) checkThreads(threads, 'threads')
  if (shared === false && threads !== undefined && threads !== 1)
    throw new OptionError(`threads: ${threads} needs shared memory; leave threads out, or shared`)
  const host = await findHost()
  const single = shared === false ? null : host.whySingle()
  const sharing = shared ?? single === null
  const heap = new Heap(sharing)
  const { module, kernels, build } = await openKernels(host, heap, sharing, asked)
  const at = heap.allocate(48, 'timing')
  const quadsAreFast = build === 'relaxed' ? timeQuads(kernels, at) : () => false
  const engine = sharing
    ? await WorkerPool.start(host, module, heap.memory, threads ?? host.defaultThreads())
    : new InlineEngine(kernels.call)
  const quads = quadsAreFast()
  heap.free(at)
  const simd = build === 'relaxed' ? 'relaxed-simd' : 'simd128'
  const features = sharing ? [simd, 'threads'] : [simd, ...(single === null ? [] : [single])]
  return new QueuedTarget(
    new WasmExecutor(heap, engine, { ...kernels, quads }, { description: host.processorName(), features }),
  )
}

type TimedKernels = Kernels & Pick<LowerHost, 'quads'>

/** Memory of a weight or state: its address. */
interface Region {
  ptr: number
}

interface Compiled {
  readonly id: number
  readonly program: Program
  readonly memory: MemoryPlan
  /** By node. */
  readonly lowered: readonly Lowered[]
  readonly bound: Readonly<Record<string, Region>>
  /** Arena address that the loaded calls were made for, or -1. */
  loadedAt: number
}

class WasmExecutor implements Executor<Region, Compiled> {
  readonly name = 'wasm'
  readonly info: DeviceInfo
  /** Each a kernel of that name. */
  readonly conversions = ['Q5_0_q8', 'Q4_K_q4a', 'Q6_K_q8']
  private readonly heap: Heap
  private readonly engine: Engine
  private readonly kernels: TimedKernels
  /**
   * Scratch of all programs: they run one after the other and keep nothing in it between runs, so one region of the
   * largest program's size serves them all.
   */
  private arena = { ptr: 0, bytes: 0 }
  private readonly programs = new Set<Compiled>()
  private nextId = 1

  constructor(heap: Heap, engine: Engine, kernels: TimedKernels, info: Pick<DeviceInfo, 'description' | 'features'>) {
    this.heap = heap
    this.engine = engine
    this.kernels = kernels
    this.info = { ...info, threads: engine.threads, memoryLimit: heap.limit }
  }

  supports(op: string): true | string {
    return Object.hasOwn(lowering, op) ? true : `wasm has no kernel for ${op}`
  }

  allocate(type: TensorType, name: string): Region {
    return { ptr: this.heap.allocateZeroed(byteLength(type), name) }
  }

  release({ ptr }: Region): void {
    this.heap.free(ptr)
  }

  write({ ptr }: Region, byteOffset: number, bytes: Uint8Array, conversion?: string): void {
    const from = conversion ? this.heap.allocate(bytes.length, conversion) : ptr + byteOffset
    this.heap.bytes(from, bytes.length).set(bytes)
    if (!conversion) return
    this.kernels.call[conversion](from, ptr + byteOffset, bytes.length)
    this.heap.free(from)
  }

  read({ ptr }: Region, byteOffset: number, bytes: number): ArrayBuffer {
    return this.copyOut(ptr + byteOffset, bytes)
  }

  compile(program: Program, bound: Readonly<Record<string, Region>>): Compiled {
    const compiled = { id: this.nextId++, program, bound, loadedAt: -1, ...this.plan(program) }
    this.resizeArena(Math.max(this.arena.bytes, compiled.memory.arenaBytes), program.name)
    this.programs.add(compiled)
    return compiled
  }

  unload(compiled: Compiled): void {
    this.programs.delete(compiled)
    this.engine.unload(compiled.id)
    const largest = Math.max(0, ...[...this.programs].map(({ memory }) => memory.arenaBytes))
    if (largest < this.arena.bytes) this.resizeArena(largest, 'arena')
  }

  scratchBytes(programs: readonly Program[]): number {
    return Math.max(0, ...programs.map((program) => this.plan(program).memory.arenaBytes))
  }

  /** Ends the workers; runs under way reject with DeviceError. */
  close(): Promise<void> {
    return this.engine.close()
  }

  async run(compiled: Compiled, job: Job): Promise<ArrayBuffer[]> {
    this.prepare(compiled)
    const { program } = compiled
    const { steps, signal } = job
    const staged: number[] = []
    const stage = (bytes: number, what: string): number => {
      staged.push(this.heap.allocate(bytes, `${what} of ${steps} steps of program ${program.name}`))
      return staged.at(-1)!
    }
    try {
      // With several steps all inputs wait outside of the arena, where a step may have overwritten them: a slice each, the same, or
      // what was carried. Outputs are put together there as well.
      const before: Move[] = []
      const after: Move[] = []
      const waiting = new Map<number, number>()
      for (const { tensor, bytes, isSliced } of job.inputs) {
        const [to, size] = [this.locate(compiled, tensor.id), byteLength(tensor)]
        const from = steps > 1 ? stage(bytes.length, tensor.name) : to
        this.heap.bytes(from, bytes.length).set(bytes)
        waiting.set(tensor.id, from)
        if (steps > 1) before.push({ to, toStride: 0, from, fromStride: isSliced ? size : 0, bytes: size })
      }
      const outputs = job.collect.map(({ name, tensor }) => {
        const [from, bytes] = [this.locate(compiled, tensor.id), byteLength(tensor)]
        const to = steps > 1 ? stage(steps * bytes, name) : from
        if (steps > 1) after.push({ to, toStride: bytes, from, fromStride: 0, bytes })
        return { ptr: to, bytes: steps * bytes }
      })
      for (const { from, to } of job.carry) {
        const bytes = byteLength(from)
        after.push({ to: waiting.get(to.id)!, toStride: 0, from: this.locate(compiled, from.id), fromStride: 0, bytes })
      }
      const abort = () => this.engine.abort()
      const running = this.engine.run(compiled.id, { steps, before, after })
      signal?.addEventListener('abort', abort)
      try {
        if (await running) throw signal?.reason ?? new DeviceError(`program ${program.name}: aborted`)
      } finally {
        signal?.removeEventListener('abort', abort)
      }
      return outputs.map(({ ptr, bytes }) => this.copyOut(ptr, bytes))
    } finally {
      for (const ptr of staged) this.heap.free(ptr)
    }
  }

  private plan(program: Program): Pick<Compiled, 'memory' | 'lowered'> {
    const host = { threads: this.engine.threads, ...this.kernels }
    const lowered = program.nodes.map((node) => lowerNode(lowering, node, program, host))
    return { lowered, memory: planMemory(program, { scratchBytes: lowered.map((node) => node.scratchBytes) }) }
  }

  /** Loads the calls, anew when the arena has moved. */
  private prepare(compiled: Compiled): void {
    if (compiled.loadedAt === this.arena.ptr) return
    const { program, memory, lowered } = compiled
    const locate = (id: number) => this.locate(compiled, id)
    const calls = program.nodes.flatMap(({ inputs, outputs }, n) =>
      lowered[n].calls({
        inputs: inputs.map(locate),
        outputs: outputs.map(locate),
        scratch: memory.scratch[n] < 0 ? 0 : this.arena.ptr + memory.scratch[n],
      }),
    )
    this.engine.load(compiled.id, roundOnce(calls))
    compiled.loadedAt = this.arena.ptr
  }

  /** A tensor's address. */
  private locate({ memory, bound }: Compiled, id: number): number {
    const at = memory.locations[id]
    return 'bound' in at ? bound[at.bound].ptr : this.arena.ptr + at.offset
  }

  /** The old region goes first: it holds nothing, and both together might not fit. */
  private resizeArena(bytes: number, name: string): void {
    if (bytes === this.arena.bytes) return
    const before = this.arena.bytes
    this.heap.free(this.arena.ptr)
    this.arena = { ptr: 0, bytes: 0 }
    if (bytes === 0) return
    try {
      this.arena = { ptr: this.heap.allocate(bytes, `scratch of program ${name}`), bytes }
    } catch (error) {
      if (before > 0 && before < bytes) this.arena = { ptr: this.heap.allocate(before, 'arena'), bytes: before }
      throw error
    }
  }

  private copyOut(ptr: number, bytes: number): ArrayBuffer {
    const copy = new Uint8Array(bytes)
    copy.set(this.heap.bytes(ptr, bytes))
    return copy.buffer
  }
}
