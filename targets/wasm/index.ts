import { byteLength, describe, type TensorType } from '../../sdk/dtype.ts'
import { DeviceError, OptionError, ShapeError } from '../../sdk/errors.ts'
import { bindings, type MemoryPlan, type Program, planMemory } from '../../sdk/graph/program.ts'
import type { Buffer, DeviceInfo, Executable, RunInputs, RunOptions, RunOutputs, Target } from '../../sdk/target.ts'
import { findHost } from './host.ts'
import { InlineEngine } from './inline.ts'
import { lowering, scratch } from './lower/index.ts'
import type { Argument, Call } from './lower/types.ts'
import { Heap } from './memory.ts'
import { type Engine, WorkerPool } from './pool.ts'

export interface WasmOptions {
  /** Compute threads; the caller's thread is not one of them. Default: the cores, 8 at most. */
  readonly threads?: number
  /** false: one thread, the caller's own; default: where memory cannot be shared, in a page that is not cross-origin isolated. */
  readonly shared?: boolean
}

/**
 * The WebAssembly target: SIMD kernels on worker threads over one shared memory. Results do not depend on the number
 * of threads. Throws DeviceError when the kernels are not built or a worker does not start.
 */
export async function wasmTarget({ threads, shared }: WasmOptions = {}): Promise<Target> {
  if (threads !== undefined && !(Number.isInteger(threads) && threads >= 1 && threads <= 64))
    throw new OptionError(`threads: ${threads}; give a whole number from 1 to 64`)
  if (shared === false && threads !== undefined && threads !== 1)
    throw new OptionError(`threads: ${threads} needs shared memory; leave threads out, or shared`)
  const host = await findHost()
  const single = shared === false ? null : host.whySingle()
  const sharing = shared ?? single === null
  const heap = new Heap(sharing)
  const module = await host.compileKernels(sharing)
  const engine = sharing
    ? await WorkerPool.start(host, module, heap.memory, threads ?? host.defaultThreads())
    : new InlineEngine(module, heap.memory)
  const features = sharing ? ['simd128', 'threads'] : ['simd128', ...(single === null ? [] : [single])]
  return new WasmTarget(heap, engine, { description: host.processorName(), features })
}

class WasmBuffer implements Buffer {
  readonly name: string
  readonly type: TensorType
  readonly bytes: number
  readonly ptr: number
  freed = false
  constructor(name: string, type: TensorType, bytes: number, ptr: number) {
    this.name = name
    this.type = type
    this.bytes = bytes
    this.ptr = ptr
  }
}

interface Compiled {
  readonly id: number
  readonly program: Program
  readonly memory: MemoryPlan
  readonly bound: Readonly<Record<string, WasmBuffer>>
  /** Arena address that the loaded calls were made for, or -1. */
  loadedAt: number
  freed: boolean
}

/** Bytes of any view. */
const bytesOf = (view: ArrayBufferView): Uint8Array => new Uint8Array(view.buffer, view.byteOffset, view.byteLength)

const isView = (value: ArrayBufferView | Buffer): value is ArrayBufferView => ArrayBuffer.isView(value)

class WasmTarget implements Target {
  readonly name = 'wasm'
  readonly info: DeviceInfo
  private readonly heap: Heap
  private readonly engine: Engine
  /**
   * Scratch of all programs: they run one after the other and keep nothing in it between runs, so one region of the
   * largest program's size serves them all.
   */
  private arena = { ptr: 0, bytes: 0 }
  private readonly programs = new Set<Compiled>()
  private nextId = 1
  private tail: Promise<unknown> = Promise.resolve()
  private queued = 0
  private closed: Promise<void> | null = null

  constructor(heap: Heap, engine: Engine, info: Pick<DeviceInfo, 'description' | 'features'>) {
    this.heap = heap
    this.engine = engine
    this.info = { ...info, threads: engine.threads, memoryLimit: heap.limit }
  }

  supports(op: string, _inputs: readonly TensorType[], _attrs: unknown): true | string {
    return Object.hasOwn(lowering, op) ? true : `wasm has no kernel for ${op}`
  }

  create(type: TensorType, name: string): Buffer {
    this.checkOpen()
    const bytes = byteLength(type)
    return new WasmBuffer(
      name,
      { dtype: type.dtype, shape: [...type.shape] },
      bytes,
      this.heap.allocateZeroed(bytes, name),
    )
  }

  write(buffer: Buffer, data: ArrayBufferView, byteOffset = 0): void | Promise<void> {
    this.checkOpen()
    const target = this.own(buffer)
    this.checkRange(target, byteOffset, data.byteLength)
    const put = (bytes: Uint8Array) => this.heap.bytes(target.ptr + byteOffset, bytes.length).set(bytes)
    if (this.queued === 0) return put(bytesOf(data))
    const copy = bytesOf(data).slice()
    return this.enqueue(() => put(copy))
  }

  async read(buffer: Buffer, byteOffset = 0, bytes = buffer.bytes - byteOffset): Promise<ArrayBuffer> {
    this.checkOpen()
    const source = this.own(buffer)
    this.checkRange(source, byteOffset, bytes)
    return this.enqueue(() => this.copyOut(source.ptr + byteOffset, bytes))
  }

  /** The bytes are given back once the runs asked for before are done. Freeing twice does nothing. */
  free(buffer: Buffer): void {
    if (!(buffer instanceof WasmBuffer) || buffer.freed) return
    buffer.freed = true
    this.whenIdle(() => this.heap.free(buffer.ptr))
  }

  async compile(program: Program, bound: Readonly<Record<string, Buffer>>): Promise<Executable> {
    this.checkOpen()
    this.checkOps(program)
    const buffers = this.checkBound(program, bound)
    const memory = this.plan(program)
    const compiled: Compiled = { id: this.nextId++, program, memory, bound: buffers, loadedAt: -1, freed: false }
    await this.enqueue(() => {
      this.resizeArena(Math.max(this.arena.bytes, memory.arenaBytes), program.name)
      this.programs.add(compiled)
    })
    return {
      memory,
      run: (inputs, options) => this.run(compiled, inputs, options),
      free: () => this.release(compiled),
    }
  }

  scratchBytes(programs: readonly Program[]): number {
    return Math.max(0, ...programs.map((program) => this.plan(program).arenaBytes))
  }

  private plan(program: Program): MemoryPlan {
    return planMemory(program, {
      scratchBytes: (node, p) => {
        const types = {
          inputs: node.inputs.map((id) => p.tensors[id]),
          outputs: node.outputs.map((id) => p.tensors[id]),
          attrs: node.attrs,
        }
        return scratch[node.op]?.(types, this.engine.threads) ?? 0
      },
    })
  }

  /** Ends the workers; runs under way reject with DeviceError. */
  close(): Promise<void> {
    this.closed ??= this.engine.close()
    return this.closed
  }

  private async run(
    compiled: Compiled,
    inputs: RunInputs,
    { keep = [], signal }: RunOptions = {},
  ): Promise<RunOutputs> {
    this.checkOpen()
    const { program } = compiled
    if (compiled.freed) throw new DeviceError(`program ${program.name}: run after free`)
    signal?.throwIfAborted()
    for (const name of keep)
      if (!Object.hasOwn(program.outputs, name))
        throw new ShapeError(`program ${program.name}: no output ${name} to keep`)
    const given = this.checkInputs(program, inputs)
    return this.enqueue(async () => {
      signal?.throwIfAborted()
      this.checkOpen()
      this.prepare(compiled)
      for (const [name, value] of given) {
        const { ptr } = this.locate(compiled, program.tensors.find((t) => t.kind === 'input' && t.name === name)!.id)
        const bytes = value instanceof WasmBuffer ? this.heap.bytes(value.ptr, value.bytes) : value
        this.heap.bytes(ptr, bytes.length).set(bytes)
      }
      const abort = () => this.engine.abort()
      const running = this.engine.run(compiled.id)
      signal?.addEventListener('abort', abort)
      try {
        if (await running) throw signal?.reason ?? new DeviceError(`program ${program.name}: aborted`)
      } finally {
        signal?.removeEventListener('abort', abort)
      }
      return this.collect(compiled, new Set(keep))
    })
  }

  private collect(compiled: Compiled, keep: ReadonlySet<string>): RunOutputs {
    const results: RunOutputs = {}
    const kept: Buffer[] = []
    try {
      for (const [name, id] of Object.entries(compiled.program.outputs)) {
        const { ptr, dtype, shape } = this.locate(compiled, id)
        const bytes = byteLength({ dtype, shape })
        if (keep.has(name)) {
          const buffer = this.create({ dtype, shape }, name) as WasmBuffer
          kept.push(buffer)
          this.heap.bytes(buffer.ptr, bytes).set(this.heap.bytes(ptr, bytes))
          results[name] = buffer
        } else {
          const copy = this.copyOut(ptr, bytes)
          results[name] =
            dtype === 'f32' ? new Float32Array(copy) : dtype === 'i32' ? new Int32Array(copy) : new Uint8Array(copy)
        }
      }
    } catch (error) {
      for (const buffer of kept) this.free(buffer)
      throw error
    }
    return results
  }

  private release(compiled: Compiled): void {
    if (compiled.freed) return
    compiled.freed = true
    this.whenIdle(() => {
      this.programs.delete(compiled)
      this.engine.unload(compiled.id)
      const largest = Math.max(0, ...[...this.programs].map((other) => other.memory.arenaBytes))
      if (largest < this.arena.bytes) this.resizeArena(largest, 'arena')
    })
  }

  /** Loads the calls, anew when the arena has moved. */
  private prepare(compiled: Compiled): void {
    if (compiled.loadedAt === this.arena.ptr) return
    const { program, memory } = compiled
    const calls: Call[] = program.nodes.flatMap((node, n) =>
      lowering[node.op]({
        inputs: node.inputs.map((id) => this.locate(compiled, id)),
        outputs: node.outputs.map((id) => this.locate(compiled, id)),
        attrs: node.attrs,
        scratch: memory.scratch[n] < 0 ? 0 : this.arena.ptr + memory.scratch[n],
        threads: this.engine.threads,
      }),
    )
    this.engine.load(compiled.id, calls)
    compiled.loadedAt = this.arena.ptr
  }

  private locate(compiled: Compiled, id: number): Argument {
    const { dtype, shape } = compiled.program.tensors[id]
    const at = compiled.memory.locations[id]
    return { dtype, shape, ptr: 'bound' in at ? compiled.bound[at.bound].ptr : this.arena.ptr + at.offset }
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

  private checkOps(program: Program): void {
    const reasons = new Set<string>()
    for (const node of program.nodes) {
      const types = node.inputs.map((id) => program.tensors[id])
      const answer = this.supports(node.op, types, node.attrs)
      if (answer !== true) reasons.add(answer)
    }
    if (reasons.size > 0) throw new DeviceError(`program ${program.name}: ${[...reasons].join('; ')}`)
  }

  private checkBound(program: Program, bound: Readonly<Record<string, Buffer>>): Record<string, WasmBuffer> {
    const buffers: Record<string, WasmBuffer> = {}
    for (const kind of ['weight', 'state'] as const)
      for (const [name, type] of bindings(program, kind)) {
        const buffer = bound[name]
        if (!buffer) throw new ShapeError(`program ${program.name}: no buffer bound for ${kind} ${name}`)
        buffers[name] = this.own(buffer)
        if (describe(buffer.type) !== describe(type))
          throw new ShapeError(
            `program ${program.name}: ${kind} ${name} is ${describe(type)}, the bound buffer ${describe(buffer.type)}`,
          )
      }
    return buffers
  }

  /** Views are copied now: the caller may change them while the run waits for its turn. */
  private checkInputs(program: Program, inputs: RunInputs): Map<string, Uint8Array | WasmBuffer> {
    const wanted = bindings(program, 'input')
    for (const name of Object.keys(inputs))
      if (!wanted.has(name)) throw new ShapeError(`program ${program.name}: unknown input ${name}`)
    const given = new Map<string, Uint8Array | WasmBuffer>()
    for (const [name, type] of wanted) {
      const value = inputs[name]
      if (value === undefined)
        throw new ShapeError(`program ${program.name}: input ${name} ${describe(type)} is missing`)
      const bytes = isView(value) ? value.byteLength : value.bytes
      if (bytes !== byteLength(type))
        throw new ShapeError(`program ${program.name}: input ${name} is ${describe(type)}, given ${bytes} bytes`)
      given.set(name, isView(value) ? bytesOf(value).slice() : this.own(value))
    }
    return given
  }

  private checkRange(buffer: Buffer, byteOffset: number, bytes: number): void {
    if (!(byteOffset >= 0 && bytes >= 0 && byteOffset + bytes <= buffer.bytes))
      throw new ShapeError(`${buffer.name}: bytes ${byteOffset} to ${byteOffset + bytes} of ${buffer.bytes}`)
  }

  private own(buffer: Buffer): WasmBuffer {
    if (!(buffer instanceof WasmBuffer)) throw new DeviceError(`${buffer.name}: a buffer of another target`)
    if (buffer.freed) throw new DeviceError(`${buffer.name}: used after free`)
    return buffer
  }

  private checkOpen(): void {
    if (this.closed) throw new DeviceError('wasm: the target is closed')
  }

  private copyOut(ptr: number, bytes: number): ArrayBuffer {
    const copy = new Uint8Array(bytes)
    copy.set(this.heap.bytes(ptr, bytes))
    return copy.buffer
  }

  /** One after the other, in the order of the calls. */
  private enqueue<T>(task: () => T | Promise<T>): Promise<T> {
    this.queued++
    const result = this.tail.then(task).finally(() => {
      this.queued--
    })
    this.tail = result.catch(() => {})
    return result
  }

  private whenIdle(task: () => void): void {
    if (this.queued === 0) task()
    else void this.enqueue(task).catch(() => {})
  }
}
