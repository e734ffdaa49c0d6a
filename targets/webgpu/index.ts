import { byteLength, describe, type TensorType } from '../../sdk/dtype.ts'
import { DeviceError, MemoryError, ShapeError } from '../../sdk/errors.ts'
import { bindings, type MemoryPlan, type Program } from '../../sdk/graph/program.ts'
import type {
  Buffer,
  CompileProgress,
  DeviceInfo,
  Executable,
  KernelProfile,
  RunInputs,
  RunOptions,
  RunOutputs,
  Target,
} from '../../sdk/target.ts'
import { cut, type Part, WebGpuBuffer } from './buffer.ts'
import { type Dispatch, lowering } from './lower.ts'
import { align, DeviceMemory, type Range, stagingBytes, usage } from './memory.ts'
import { type Pipeline, Pipelines } from './pipelines.ts'
import { planProgram } from './plan.ts'
import { Profiler } from './profiler.ts'
import { type Binding, type GroupRange, gridOf, paramBytes } from './shader.ts'
import { longestSubmit, type Work, workOf } from './work.ts'

/** Dispatches of one submit, so that none keeps the GPU for too long. */
const submitted = 64
/** Bytes: what the default limits promise. */
const uniformAlignment = 256

const bytesOf = (view: ArrayBufferView): Uint8Array => new Uint8Array(view.buffer, view.byteOffset, view.byteLength)
const isView = (value: ArrayBufferView | Buffer): value is ArrayBufferView => ArrayBuffer.isView(value)

interface Step extends Pipeline {
  /** A number: one of the arena's buffers. */
  readonly buffers: readonly (GPUBuffer | number)[]
  readonly groups: number
  /** Of all workgroups. */
  readonly size: readonly [x: number, y: number]
  readonly work: Work
}

interface Compiled {
  readonly program: Program
  readonly memory: MemoryPlan
  readonly steps: readonly Step[]
  /** The numbers of all steps, at multiples of `uniformAlignment`. */
  readonly words: Uint32Array<ArrayBuffer>
  groups: { readonly shared: Shared; readonly all: readonly GPUBindGroup[] } | null
  freed: boolean
}

/** What all programs use: they run one after the other, and keep nothing in it. */
interface Shared {
  /** Scratch; all buffers but the last are as large as they may be. */
  readonly arena: readonly GPUBuffer[]
  readonly arenaBytes: number
  /** The numbers of the program that runs. */
  readonly params: GPUBuffer | null
}
const nothing: Shared = { arena: [], arenaBytes: 0, params: null }

/** What a WebGpuTarget is told of its adapter. */
export interface AdapterFacts {
  readonly description: string
  readonly memoryLimit: number
  /** Bytes that a buffer has at most; default: what the device allows. */
  readonly bufferBytes?: number
  readonly onCompile?: (progress: CompileProgress) => void
}

/** One device; RecoveringTarget goes on with another when it is lost. */
export class WebGpuTarget implements Target {
  readonly name = 'webgpu'
  readonly info: DeviceInfo
  private readonly device: GPUDevice
  private readonly memory: DeviceMemory
  private readonly pipelines: Pipelines
  private readonly onCompile: (progress: CompileProgress) => void
  /** Bytes of a buffer that kernels read or write, at most. */
  private readonly limit: number
  private readonly programs = new Set<Compiled>()
  private shared = nothing
  /** Whose numbers are in the shared params. */
  private loaded: Compiled | null = null
  private profiler: Profiler | null = null
  /** Seconds from a submit of nothing to its end. */
  private latency: number | null = null
  private tail: Promise<unknown> = Promise.resolve()
  private closed = false
  /** What WebGPU complained of outside of every error scope. */
  private fault: string | null = null
  /** Why the device is gone; null while it is there. */
  lost: string | null = null

  constructor(device: GPUDevice, { description, memoryLimit, bufferBytes, onCompile = () => {} }: AdapterFacts) {
    this.device = device
    this.memory = new DeviceMemory(device)
    this.pipelines = new Pipelines(device)
    this.onCompile = onCompile
    const { maxStorageBufferBindingSize, maxBufferSize } = device.limits
    this.limit = 256 * Math.floor(Math.min(maxStorageBufferBindingSize, maxBufferSize, bufferBytes ?? Infinity) / 256)
    this.info = {
      description,
      threads: 0,
      memoryLimit,
      features: [...device.features].filter((name) => ['shader-f16', 'subgroups', 'timestamp-query'].includes(name)),
    }
    void device.lost.then(({ message, reason }) => {
      if (!this.closed) this.lost = `the device was lost (${message || reason})`
    })
    device.addEventListener('uncapturederror', (event) => {
      this.fault ??= (event as GPUUncapturedErrorEvent).error.message
    })
  }

  supports(op: string, _inputs: readonly TensorType[], _attrs: unknown): true | string {
    return Object.hasOwn(lowering, op) ? true : `webgpu has no kernel for ${op}`
  }

  create(type: TensorType, name: string): Buffer {
    this.checkOpen()
    const rowBytes = byteLength(type) / (type.shape[0] ?? 1)
    const rows = cut(type, name, this.limit)
    const parts = rows.map((part, i): Part => {
      const label = rows.length === 1 ? name : `${name}, part ${i + 1} of ${rows.length}`
      return { ...part, gpu: this.memory.allocate(part.rows * rowBytes, label) }
    })
    return new WebGpuBuffer(name, type, parts)
  }

  /** A promise where it is not known yet whether the buffer could be had. */
  write(buffer: Buffer, data: ArrayBufferView, byteOffset = 0): void | Promise<void> {
    this.checkOpen()
    const own = this.own(buffer)
    this.checkRange(own, byteOffset, data.byteLength)
    const bytes = bytesOf(data)
    for (const [part, from, to] of this.spans(own, byteOffset, bytes.length)) {
      const piece = bytes.subarray(from, to)
      const at = byteOffset + from - part.first * own.rowBytes
      if (at % 4 !== 0) throw new ShapeError(`${own.name}: a write at byte ${byteOffset}, which is no multiple of 4`)
      const padded = piece.length % 4 === 0 ? piece : new Uint8Array(align(piece.length, 4))
      if (padded !== piece) padded.set(piece)
      this.memory.write(part.gpu, at, padded as Uint8Array<ArrayBuffer>)
    }
    if (this.memory.isUnsettled) return this.memory.settled()
  }

  /** Throws ShapeError for a write past the end. */
  checkWrite(buffer: Buffer, byteOffset: number, bytes: number): void {
    this.checkOpen()
    this.checkRange(this.own(buffer), byteOffset, bytes)
  }

  /** For tests. */
  loseDevice(): void {
    this.device.destroy()
  }

  /** Until it is known whether the device is lost, after something failed. */
  async settled(): Promise<void> {
    await Promise.race([this.device.lost, new Promise((resolve) => setTimeout(resolve, 100))])
  }

  async read(buffer: Buffer, byteOffset = 0, bytes = buffer.bytes - byteOffset): Promise<ArrayBuffer> {
    this.checkOpen()
    const own = this.own(buffer)
    this.checkRange(own, byteOffset, bytes)
    return this.enqueue(async () => {
      await this.memory.settled()
      const result = new Uint8Array(bytes)
      for (const [part, from, to] of this.spans(own, byteOffset, bytes)) {
        const at = byteOffset + from - part.first * own.rowBytes
        const start = Math.floor(at / 4) * 4
        const [copy] = await this.memory.read([[part.gpu, start, align(at + to - from - start, 4)]])
        if (bytes === copy.byteLength) return copy
        result.set(new Uint8Array(copy, at - start, to - from), from)
      }
      return result.buffer
    })
  }

  free(buffer: Buffer): void {
    if (!(buffer instanceof WebGpuBuffer) || buffer.freed) return
    buffer.freed = true
    void this.enqueue(async () => {
      for (const { gpu } of buffer.parts) this.memory.free(gpu)
    }).catch(() => {})
  }

  async compile(given: Program, bound: Readonly<Record<string, Buffer>>): Promise<Executable> {
    this.checkOpen()
    this.checkOps(given)
    const buffers = this.checkBound(given, bound)
    const { program, memory, dispatches } = planProgram(given, this.limit, buffers)
    const words = new Uint32Array(paramsBytes(dispatches.length) / 4)
    const steps = await this.prepare(program, dispatches, words)
    const compiled: Compiled = { program, memory, steps, words, groups: null, freed: false }
    await this.enqueue(async () => {
      await this.memory.settled()
      await this.makeRoom(compiled)
      this.programs.add(compiled)
    })
    return {
      memory,
      run: (inputs, options) => this.run(compiled, inputs, options),
      free: () => this.release(compiled),
    }
  }

  scratchBytes(programs: readonly Program[]): number {
    const plans = programs.map((program) => planProgram(program, this.limit))
    const arena = Math.max(0, ...plans.map(({ memory }) => memory.arenaBytes))
    return arena + Math.max(0, ...plans.map(({ dispatches }) => paramsBytes(dispatches.length))) + stagingBytes
  }

  async profile(work: () => Promise<unknown>): Promise<KernelProfile[]> {
    if (!this.device.features.has('timestamp-query'))
      throw new DeviceError(`webgpu: ${this.info.description} has no timestamp-query: its kernels cannot be timed`)
    const profiler = new Profiler(this.device, this.memory, submitted)
    this.profiler = profiler
    try {
      await work()
    } finally {
      this.profiler = null
    }
    return this.enqueue(async () => profiler.end())
  }

  async close(): Promise<void> {
    if (this.closed) return
    this.closed = true
    await this.tail.catch(() => {})
    this.device.destroy()
  }

  /** The pipelines of dispatches, their buffers, and their numbers into `words`. */
  private async prepare(program: Program, dispatches: readonly Dispatch[], words: Uint32Array): Promise<Step[]> {
    const most = this.device.limits.maxStorageBuffersPerShaderStage
    const places = dispatches.map(({ kernel, args, params, groups }, i) => {
      const buffers: (GPUBuffer | number)[] = []
      const where = args.map(({ buffer, part, dtype }): Binding => {
        const own = buffer ? buffer.parts[part].gpu : part
        if (!buffers.includes(own)) buffers.push(own)
        return { dtype, buffer: buffers.indexOf(own), arena: buffer === null }
      })
      if (buffers.length > most)
        throw new MemoryError(
          `program ${program.name}: ${kernel.name} would read and write ${buffers.length} buffers, this adapter binds ${most} at most: use a smaller batch or shorter rows`,
        )
      const { size, head } = this.grid({ first: 0, end: groups })
      const offsets = args.map(({ offset }) => offset)
      words.set(paramBytes(kernel, head, offsets, params), i * (uniformAlignment / 4))
      return { buffers, where, groups, size }
    })
    const wanted = new Set<Promise<Pipeline>>()
    const pipelines = dispatches.map(({ kernel }, i) => {
      const isNew = !this.pipelines.has(kernel, places[i].where)
      const pipeline = this.pipelines.get(kernel, places[i].where)
      if (isNew) wanted.add(pipeline)
      return pipeline
    })
    let done = 0
    const tell = () => this.onCompile({ program: program.name, pipelines: done++, totalPipelines: wanted.size })
    if (wanted.size > 0) tell()
    for (const pipeline of wanted) pipeline.then(tell, () => {})
    const made = await Promise.all(pipelines)
    return dispatches.map((dispatch, i) => ({ ...made[i], ...places[i], work: workOf(dispatch) }))
  }

  private grid(range: GroupRange): ReturnType<typeof gridOf> {
    return gridOf(range, this.device.limits.maxComputeWorkgroupsPerDimension)
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
      if (this.memory.isUnsettled) await this.memory.settled()
      await this.makeRoom(compiled)
      if (this.loaded !== compiled) this.device.queue.writeBuffer(this.shared.params!, 0, compiled.words)
      this.loaded = compiled
      const encoder = this.device.createCommandEncoder()
      for (const [id, value] of given) {
        const [buffer, at] = this.inArena(compiled, id)
        if (value instanceof WebGpuBuffer)
          encoder.copyBufferToBuffer(value.parts[0].gpu, 0, buffer, at, align(value.bytes, 4))
        else this.device.queue.writeBuffer(buffer, at, value as Uint8Array<ArrayBuffer>)
      }
      this.device.queue.submit([encoder.finish()])
      await this.submitAll(compiled, signal)
      const outputs = await this.collect(compiled, new Set(keep))
      if (this.fault !== null && this.lost === null) {
        const { fault } = this
        this.fault = null
        throw new DeviceError(`webgpu: program ${program.name}: ${fault}`)
      }
      return outputs
    })
  }

  /** At most 64 dispatches a submit, fewer where they would take too long together; one that takes too long alone in pieces. */
  private async submitAll(compiled: Compiled, signal?: AbortSignal): Promise<void> {
    const { steps } = compiled
    let [from, seconds] = [0, 0]
    const submitTo = async (end: number) => {
      signal?.throwIfAborted()
      if (from < end) await this.submit(compiled, from, end)
      if (signal && from < end) await this.idle()
      ;[from, seconds] = [end, 0]
    }
    for (const [i, { pace, work }] of steps.entries()) {
      const own = pace.estimate(work.cost)
      if (own > longestSubmit || pace.isUnknown(work.cost)) {
        await submitTo(i)
        await this.submitPieces(compiled, i, signal)
        from = i + 1
        continue
      }
      if (i - from === submitted || seconds + own > longestSubmit) await submitTo(i)
      seconds += own
    }
    await submitTo(steps.length)
  }

  /** One dispatch, in ranges of its workgroups; timed. */
  private async submitPieces(compiled: Compiled, i: number, signal?: AbortSignal): Promise<void> {
    const { groups, pace, work } = compiled.steps[i]
    const writeHead = (range: GroupRange) => {
      const { size, head } = this.grid(range)
      this.device.queue.writeBuffer(this.shared.params!, i * uniformAlignment, head)
      return size
    }
    try {
      for (let first = 0, end: number; first < groups; first = end) {
        signal?.throwIfAborted()
        const fitting = Math.floor((groups * longestSubmit) / pace.estimate(work.cost))
        end = Math.min(groups, first + Math.max(1, fitting))
        const share = (end - first) / groups
        // Pieces as well: a pace that was taken in a bad moment must not stay.
        const timed = !this.profiler && (share < 1 || pace.isUnknown(share * work.cost))
        if (timed) this.latency ??= await this.findLatency()
        if (timed) await this.idle()
        const start = performance.now()
        await this.submit(compiled, i, i + 1, writeHead({ first, end }), share)
        if (timed || signal) await this.idle()
        if (timed) pace.learn(share * work.cost, Math.max(0, (performance.now() - start) / 1000 - this.latency!))
      }
    } finally {
      writeHead({ first: 0, end: groups })
    }
  }

  private idle(): Promise<void> {
    return this.device.queue.onSubmittedWorkDone()
  }

  private async findLatency(): Promise<number> {
    let best = Number.POSITIVE_INFINITY
    for (let attempt = 0; attempt < 3; attempt++) {
      await this.idle()
      const start = performance.now()
      this.device.queue.submit([this.device.createCommandEncoder().finish()])
      await this.idle()
      best = Math.min(best, (performance.now() - start) / 1000)
    }
    return best
  }

  /** Steps `from` to `end`; a single one of another size than its whole where it goes in pieces. */
  private async submit(
    compiled: Compiled,
    from: number,
    end: number,
    size?: readonly [number, number],
    share = 1,
  ): Promise<void> {
    const groups = this.bindGroups(compiled)
    const steps = compiled.steps.slice(from, end)
    const { profiler } = this
    const encoder = this.device.createCommandEncoder({ label: compiled.program.name })
    let pass: GPUComputePassEncoder | null = null
    for (const [at, step] of steps.entries()) {
      pass ??= encoder.beginComputePass(profiler?.pass(at))
      pass.setPipeline(step.pipeline)
      pass.setBindGroup(0, groups[from + at], [(from + at) * uniformAlignment])
      pass.dispatchWorkgroups(...(size ?? step.size))
      if (!profiler) continue
      pass.end()
      pass = null
    }
    pass?.end()
    profiler?.resolve(encoder, steps.length)
    this.device.queue.submit([encoder.finish()])
    await profiler?.add(steps.map(({ label, work }) => ({ label, work, share })))
  }

  private bindGroups(compiled: Compiled): readonly GPUBindGroup[] {
    const { shared } = this
    if (compiled.groups?.shared === shared) return compiled.groups.all
    const all = compiled.steps.map(({ layout, buffers }) =>
      this.device.createBindGroup({
        layout,
        entries: [
          { binding: 0, resource: { buffer: shared.params!, size: uniformAlignment } },
          ...buffers.map((buffer, b) => {
            const own = typeof buffer === 'number' ? shared.arena[buffer] : buffer
            return { binding: b + 1, resource: { buffer: own } }
          }),
        ],
      }),
    )
    compiled.groups = { shared, all }
    return all
  }

  private async makeRoom({ memory, words }: Compiled): Promise<void> {
    const { arenaBytes, params } = this.shared
    if (arenaBytes < memory.arenaBytes || (params?.size ?? 0) < words.byteLength)
      await this.resize(Math.max(arenaBytes, memory.arenaBytes), Math.max(params?.size ?? 0, words.byteLength))
  }

  /** Gives what is shared so many bytes. What it had goes first: it holds nothing, and both together might not fit. */
  private async resize(arenaBytes: number, paramsBytes: number): Promise<void> {
    const { shared, memory, limit } = this
    const sizes = Array.from({ length: Math.ceil(arenaBytes / limit) }, (_, i) =>
      Math.min(limit, arenaBytes - i * limit),
    )
    const fits = (buffer: GPUBuffer | null | undefined, size: number | undefined) => buffer?.size === size
    const all = [...shared.arena.map((buffer, i) => [buffer, sizes[i]] as const), [shared.params, paramsBytes] as const]
    for (const [buffer, size] of all) if (buffer && !fits(buffer, size)) memory.free(buffer)
    ;[this.shared, this.loaded] = [nothing, null]
    const arena = sizes.map((size, i) =>
      fits(shared.arena[i], size) ? shared.arena[i] : memory.allocate(size, 'scratch of programs'),
    )
    const params = fits(shared.params, paramsBytes)
      ? shared.params
      : paramsBytes === 0
        ? null
        : memory.allocate(paramsBytes, 'numbers of programs', usage.uniform | usage.copyTarget)
    try {
      await memory.settled()
    } catch (error) {
      for (const buffer of [...arena, ...(params ? [params] : [])]) memory.free(buffer)
      throw error
    }
    this.shared = { arena, arenaBytes, params }
  }

  /** The buffer of a tensor in the arena, and its first byte there. */
  private inArena({ memory }: Compiled, id: number): [buffer: GPUBuffer, offset: number] {
    const { offset } = memory.locations[id] as { offset: number }
    return [this.shared.arena[Math.floor(offset / this.limit)], offset % this.limit]
  }

  private async collect(compiled: Compiled, keep: ReadonlySet<string>): Promise<RunOutputs> {
    const { program, memory } = compiled
    const results: RunOutputs = {}
    const wanted: { name: string; dtype: string; bytes: number; source: Range }[] = []
    for (const [name, id] of Object.entries(program.outputs)) {
      const { dtype, shape } = program.tensors[id]
      const bytes = byteLength({ dtype, shape })
      if ('bound' in memory.locations[id])
        throw new ShapeError(`program ${program.name}: output ${name} is state: read its buffer`)
      const [own, at] = this.inArena(compiled, id)
      if (keep.has(name)) {
        const buffer = this.create({ dtype, shape }, name) as WebGpuBuffer
        const encoder = this.device.createCommandEncoder()
        encoder.copyBufferToBuffer(own, at, buffer.parts[0].gpu, 0, align(bytes, 4))
        this.device.queue.submit([encoder.finish()])
        results[name] = buffer
      } else wanted.push({ name, dtype, bytes, source: [own, at, align(bytes, 4)] })
    }
    const copies = await this.memory.read(wanted.map(({ source }) => source))
    for (const [i, { name, dtype, bytes }] of wanted.entries()) {
      const copy = copies[i].byteLength === bytes ? copies[i] : copies[i].slice(0, bytes)
      results[name] =
        dtype === 'f32' ? new Float32Array(copy) : dtype === 'i32' ? new Int32Array(copy) : new Uint8Array(copy)
    }
    return results
  }

  private release(compiled: Compiled): void {
    if (compiled.freed) return
    compiled.freed = true
    void this.enqueue(async () => {
      this.programs.delete(compiled)
      if (this.loaded === compiled) this.loaded = null
      const left = [...this.programs]
      const arena = Math.max(0, ...left.map(({ memory }) => memory.arenaBytes))
      const params = Math.max(0, ...left.map(({ words }) => words.byteLength))
      if (arena < this.shared.arenaBytes || params < (this.shared.params?.size ?? 0)) await this.resize(arena, params)
    }).catch(() => {})
  }

  /** Parts of a buffer that a range of its bytes touches, with the range's own bytes there. */
  private spans(buffer: WebGpuBuffer, offset: number, bytes: number): [Part, number, number][] {
    if (buffer.parts.length === 1) return [[buffer.parts[0], 0, bytes]]
    return buffer.parts.flatMap((part): [Part, number, number][] => {
      const start = part.first * buffer.rowBytes
      const from = Math.max(offset, start)
      const to = Math.min(offset + bytes, start + part.rows * buffer.rowBytes)
      return from < to ? [[part, from - offset, to - offset]] : []
    })
  }

  private checkOps(program: Program): void {
    const reasons = new Set<string>()
    for (const node of program.nodes) {
      const answer = this.supports(
        node.op,
        node.inputs.map((id) => program.tensors[id]),
        node.attrs,
      )
      if (answer !== true) reasons.add(answer)
    }
    if (reasons.size > 0) throw new DeviceError(`program ${program.name}: ${[...reasons].join('; ')}`)
  }

  private checkBound(program: Program, bound: Readonly<Record<string, Buffer>>): Record<string, WebGpuBuffer> {
    const buffers: Record<string, WebGpuBuffer> = {}
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

  /** By tensor id. Views are copied now: the caller may change them while the run waits for its turn. */
  private checkInputs(program: Program, inputs: RunInputs): Map<number, Uint8Array | WebGpuBuffer> {
    const wanted = new Map(program.tensors.filter((t) => t.kind === 'input').map((t) => [t.name, t]))
    for (const name of Object.keys(inputs))
      if (!wanted.has(name)) throw new ShapeError(`program ${program.name}: unknown input ${name}`)
    const given = new Map<number, Uint8Array | WebGpuBuffer>()
    for (const [name, t] of wanted) {
      const value = inputs[name]
      if (value === undefined) throw new ShapeError(`program ${program.name}: input ${name} ${describe(t)} is missing`)
      const bytes = isView(value) ? value.byteLength : value.bytes
      if (bytes !== byteLength(t))
        throw new ShapeError(`program ${program.name}: input ${name} is ${describe(t)}, given ${bytes} bytes`)
      given.set(t.id, isView(value) ? bytesOf(value).slice() : this.own(value))
    }
    return given
  }

  private checkRange(buffer: WebGpuBuffer, byteOffset: number, bytes: number): void {
    if (!(byteOffset >= 0 && bytes >= 0 && byteOffset + bytes <= buffer.bytes))
      throw new ShapeError(`${buffer.name}: bytes ${byteOffset} to ${byteOffset + bytes} of ${buffer.bytes}`)
  }

  private own(buffer: Buffer): WebGpuBuffer {
    if (!(buffer instanceof WebGpuBuffer)) throw new DeviceError(`${buffer.name}: a buffer of another target`)
    if (buffer.freed) throw new DeviceError(`${buffer.name}: used after free`)
    return buffer
  }

  private checkOpen(): void {
    if (this.closed) throw new DeviceError('webgpu: the target is closed')
  }

  /** One after the other, in the order of the calls. */
  private enqueue<T>(task: () => Promise<T>): Promise<T> {
    const result = this.tail.then(task)
    this.tail = result.catch(() => {})
    return result
  }
}

/** Bytes of the numbers of so many dispatches. */
const paramsBytes = (dispatches: number): number => Math.max(1, dispatches) * uniformAlignment
