import type { Kernel } from '../../kernels-wgsl/kernel.ts'
import { byteLength, describe, type TensorType } from '../../sdk/dtype.ts'
import { DeviceError, MemoryError, ShapeError } from '../../sdk/errors.ts'
import { bindings, type MemoryPlan, type Program, planMemory } from '../../sdk/graph/program.ts'
import type { Buffer, DeviceInfo, Executable, RunInputs, RunOptions, RunOutputs, Target } from '../../sdk/target.ts'
import { type Part, WebGpuBuffer } from './buffer.ts'
import { type Dispatch, lowering, type Place, scratch } from './lower.ts'
import { type Binding, paramBytes, shaderOf } from './shader.ts'

/** Dispatches of one submit, so that none keeps the GPU for too long. */
const submitted = 64
/** The flags of the WebGPU standard: Node has no globals for them. */
const usage = { mapRead: 1, copySource: 4, copyTarget: 8, uniform: 64, storage: 128 } as const
const [mapForReading, computeStage] = [1, 4]
/** Bytes: what the default limits promise. */
const uniformAlignment = 256

const align = (bytes: number, unit: number): number => Math.ceil(bytes / unit) * unit
const bytesOf = (view: ArrayBufferView): Uint8Array => new Uint8Array(view.buffer, view.byteOffset, view.byteLength)
const isView = (value: ArrayBufferView | Buffer): value is ArrayBufferView => ArrayBuffer.isView(value)

interface Step {
  readonly pipeline: GPUComputePipeline
  readonly layout: GPUBindGroupLayout
  readonly buffers: readonly GPUBuffer[]
  readonly groups: readonly [number, number]
}

interface Compiled {
  readonly program: Program
  readonly memory: MemoryPlan
  readonly steps: readonly Step[]
  /** The numbers of all steps, at multiples of `uniformAlignment`. */
  readonly params: GPUBuffer
  groups: { readonly arena: GPUBuffer; readonly all: readonly GPUBindGroup[] } | null
  freed: boolean
}

interface Pipeline {
  readonly pipeline: GPUComputePipeline
  readonly layout: GPUBindGroupLayout
}

/** One device; RecoveringTarget goes on with another when it is lost. */
export class WebGpuTarget implements Target {
  readonly name = 'webgpu'
  readonly info: DeviceInfo
  private readonly device: GPUDevice
  private readonly pipelines = new Map<string, Promise<Pipeline>>()
  private readonly programs = new Set<Compiled>()
  /** Scratch of all programs: they run one after the other and keep nothing in it. */
  private arena: GPUBuffer
  private tail: Promise<unknown> = Promise.resolve()
  private closed = false
  /** Why the device is gone; null while it is there. */
  lost: string | null = null

  constructor(device: GPUDevice, description: string) {
    this.device = device
    this.info = {
      description,
      threads: 0,
      memoryLimit: device.limits.maxBufferSize,
      features: [...device.features].filter((name) => ['shader-f16', 'subgroups', 'timestamp-query'].includes(name)),
    }
    this.arena = this.allocate(256, 'arena')
    void device.lost.then(({ message, reason }) => {
      if (!this.closed) this.lost = `the device was lost (${message || reason})`
    })
  }

  supports(op: string, _inputs: readonly TensorType[], _attrs: unknown): true | string {
    return Object.hasOwn(lowering, op) ? true : `webgpu has no kernel for ${op}`
  }

  create(type: TensorType, name: string): Buffer {
    this.checkOpen()
    const bytes = byteLength(type)
    const limit = this.device.limits.maxStorageBufferBindingSize
    if (bytes <= limit) {
      const gpu = this.allocate(bytes, name)
      return new WebGpuBuffer(name, type, [{ gpu, first: 0, rows: type.shape[0] ?? 1 }])
    }
    const [all] = type.shape
    const rowBytes = bytes / all
    // A multiple of 64 rows is a multiple of 4 bytes in every type.
    const most = Math.floor(limit / rowBytes / 64) * 64
    if (most === 0)
      throw new MemoryError(`${name}: a row of ${rowBytes} bytes is more than one binding holds (${limit})`)
    const parts = Array.from({ length: Math.ceil(all / most) }, (_, i): Part => {
      const rows = Math.min(most, all - i * most)
      return { gpu: this.allocate(rows * rowBytes, `${name} part ${i}`), first: i * most, rows }
    })
    return new WebGpuBuffer(name, type, parts)
  }

  write(buffer: Buffer, data: ArrayBufferView, byteOffset = 0): void {
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
      this.device.queue.writeBuffer(part.gpu, at, padded as Uint8Array<ArrayBuffer>)
    }
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
      const result = new Uint8Array(bytes)
      for (const [part, from, to] of this.spans(own, byteOffset, bytes)) {
        const at = byteOffset + from - part.first * own.rowBytes
        const start = Math.floor(at / 4) * 4
        const [copy] = await this.readBack([[part.gpu, start, align(at + to - from - start, 4)]])
        result.set(new Uint8Array(copy, at - start, to - from), from)
      }
      return result.buffer
    })
  }

  free(buffer: Buffer): void {
    if (!(buffer instanceof WebGpuBuffer) || buffer.freed) return
    buffer.freed = true
    void this.enqueue(async () => {
      for (const { gpu } of buffer.parts) gpu.destroy()
    }).catch(() => {})
  }

  async compile(given: Program, bound: Readonly<Record<string, Buffer>>): Promise<Executable> {
    this.checkOpen()
    this.checkOps(given)
    const buffers = this.checkBound(given, bound)
    // Kernels read what they have not overwritten yet in any order: nothing is done in place.
    const program = { ...given, nodes: given.nodes.map((node) => ({ ...node, inplace: [] })) }
    const memory = planMemory(program, {
      alignment: 256,
      scratchBytes: (node, p) =>
        scratch[node.op]?.({
          inputs: node.inputs.map((id) => p.tensors[id]),
          outputs: node.outputs.map((id) => p.tensors[id]),
          attrs: node.attrs,
        }) ?? 0,
    })
    const limit = Math.min(this.device.limits.maxStorageBufferBindingSize, this.device.limits.maxBufferSize)
    if (memory.arenaBytes > limit)
      throw new MemoryError(
        `program ${program.name}: ${(memory.arenaBytes / 1e6).toFixed(0)} MB of scratch, this adapter binds ${(limit / 1e6).toFixed(0)} MB at most: use a smaller batch or shorter rows`,
      )
    const locate = (id: number): Place => {
      const { dtype, shape } = program.tensors[id]
      const at = memory.locations[id]
      if ('bound' in at) return { dtype, shape, buffer: buffers[at.bound], part: 0, offset: 0 }
      return { dtype, shape, buffer: null, part: 0, offset: at.offset / 4 }
    }
    const dispatches = program.nodes.flatMap((node, n) =>
      lowering[node.op]({
        inputs: node.inputs.map(locate),
        outputs: node.outputs.map(locate),
        attrs: node.attrs,
        scratch: { dtype: 'f32', shape: [], buffer: null, part: 0, offset: Math.max(0, memory.scratch[n]) / 4 },
      }),
    )
    const words = new Uint32Array(Math.max(1, dispatches.length) * (uniformAlignment / 4))
    const steps = await Promise.all(dispatches.map((dispatch, i) => this.prepare(dispatch, words, i)))
    const params = this.device.createBuffer({
      label: `numbers of ${program.name}`,
      size: words.byteLength,
      usage: usage.uniform | usage.copyTarget,
    })
    this.device.queue.writeBuffer(params, 0, words)
    const compiled: Compiled = { program, memory, steps, params, groups: null, freed: false }
    await this.enqueue(async () => {
      if (this.arena.size < memory.arenaBytes) {
        this.arena.destroy()
        this.arena = this.allocate(memory.arenaBytes, `scratch of program ${program.name}`)
      }
      this.programs.add(compiled)
    })
    return {
      memory,
      run: (inputs, options) => this.run(compiled, inputs, options),
      free: () => this.release(compiled),
    }
  }

  async close(): Promise<void> {
    if (this.closed) return
    this.closed = true
    await this.tail.catch(() => {})
    this.device.destroy()
  }

  /** The pipeline of a dispatch, its buffers, and its numbers at place i of `words`. */
  private async prepare({ kernel, args, params, groups }: Dispatch, words: Uint32Array, i: number): Promise<Step> {
    const buffers: GPUBuffer[] = []
    const where = args.map(({ buffer, part, dtype }): Binding => {
      if (!buffer) return { dtype, buffer: -1 }
      const { gpu } = buffer.parts[part]
      if (!buffers.includes(gpu)) buffers.push(gpu)
      return { dtype, buffer: buffers.indexOf(gpu) }
    })
    const most = this.device.limits.maxComputeWorkgroupsPerDimension
    const x = Math.max(1, Math.min(groups, most))
    const offsets = args.map(({ offset }) => offset)
    words.set(paramBytes(kernel, groups, x, offsets, params), i * (uniformAlignment / 4))
    const { pipeline, layout } = await this.pipeline(kernel, where)
    return { pipeline, layout, buffers, groups: [x, Math.ceil(Math.max(1, groups) / x)] }
  }

  private pipeline(kernel: Kernel, where: readonly Binding[]): Promise<Pipeline> {
    const key = `${kernel.name} ${where.map(({ dtype, buffer }) => `${buffer}${buffer < 0 ? '' : dtype}`).join(' ')}`
    let made = this.pipelines.get(key)
    if (!made) {
      made = this.makePipeline(kernel, where, key)
      this.pipelines.set(key, made)
      made.catch(() => this.pipelines.delete(key))
    }
    return made
  }

  private async makePipeline(kernel: Kernel, where: readonly Binding[], label: string): Promise<Pipeline> {
    const { code, written } = shaderOf(kernel, where)
    const { device } = this
    const entry = (binding: number, buffer: GPUBufferBindingLayout) => ({
      binding,
      visibility: computeStage,
      buffer,
    })
    const layout = device.createBindGroupLayout({
      entries: [
        entry(0, { type: 'storage' }),
        entry(1, { type: 'uniform', hasDynamicOffset: true }),
        ...written.map((out, b) => entry(b + 2, { type: out ? 'storage' : 'read-only-storage' })),
      ],
    })
    try {
      const module = device.createShaderModule({ label, code })
      const pipeline = await device.createComputePipelineAsync({
        label,
        layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
        compute: { module, entryPoint: 'main' },
      })
      return { pipeline, layout }
    } catch (cause) {
      throw new DeviceError(`webgpu: kernel ${label} does not compile: ${(cause as Error).message}`, { cause })
    }
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
      const { queue } = this.device
      const encoder = this.device.createCommandEncoder()
      for (const [id, value] of given) {
        const at = (compiled.memory.locations[id] as { offset: number }).offset
        if (value instanceof WebGpuBuffer)
          encoder.copyBufferToBuffer(value.parts[0].gpu, 0, this.arena, at, align(value.bytes, 4))
        else queue.writeBuffer(this.arena, at, value as Uint8Array<ArrayBuffer>)
      }
      queue.submit([encoder.finish()])
      const groups = this.bindGroups(compiled)
      for (let first = 0; first < compiled.steps.length; first += submitted) {
        signal?.throwIfAborted()
        this.submit(compiled, groups, first)
        if (signal) await queue.onSubmittedWorkDone()
      }
      return this.collect(compiled, new Set(keep))
    })
  }

  private submit(compiled: Compiled, groups: readonly GPUBindGroup[], first: number): void {
    const encoder = this.device.createCommandEncoder({ label: compiled.program.name })
    const pass = encoder.beginComputePass()
    for (let i = first; i < Math.min(first + submitted, compiled.steps.length); i++) {
      const { pipeline, groups: size } = compiled.steps[i]
      pass.setPipeline(pipeline)
      pass.setBindGroup(0, groups[i], [i * uniformAlignment])
      pass.dispatchWorkgroups(...size)
    }
    pass.end()
    this.device.queue.submit([encoder.finish()])
  }

  private bindGroups(compiled: Compiled): readonly GPUBindGroup[] {
    if (compiled.groups?.arena === this.arena) return compiled.groups.all
    const all = compiled.steps.map(({ layout, buffers }) =>
      this.device.createBindGroup({
        layout,
        entries: [
          { binding: 0, resource: { buffer: this.arena } },
          { binding: 1, resource: { buffer: compiled.params, size: uniformAlignment } },
          ...buffers.map((buffer, b) => ({ binding: b + 2, resource: { buffer } })),
        ],
      }),
    )
    compiled.groups = { arena: this.arena, all }
    return all
  }

  private async collect(compiled: Compiled, keep: ReadonlySet<string>): Promise<RunOutputs> {
    const { program, memory } = compiled
    const results: RunOutputs = {}
    const wanted: { name: string; dtype: string; bytes: number; source: readonly [GPUBuffer, number, number] }[] = []
    for (const [name, id] of Object.entries(program.outputs)) {
      const { dtype, shape } = program.tensors[id]
      const bytes = byteLength({ dtype, shape })
      const at = memory.locations[id]
      if ('bound' in at) throw new ShapeError(`program ${program.name}: output ${name} is state: read its buffer`)
      if (keep.has(name)) {
        const buffer = this.create({ dtype, shape }, name) as WebGpuBuffer
        const encoder = this.device.createCommandEncoder()
        encoder.copyBufferToBuffer(this.arena, at.offset, buffer.parts[0].gpu, 0, align(bytes, 4))
        this.device.queue.submit([encoder.finish()])
        results[name] = buffer
      } else wanted.push({ name, dtype, bytes, source: [this.arena, at.offset, align(bytes, 4)] })
    }
    const copies = await this.readBack(wanted.map(({ source }) => source))
    for (const [i, { name, dtype, bytes }] of wanted.entries()) {
      const copy = copies[i].byteLength === bytes ? copies[i] : copies[i].slice(0, bytes)
      results[name] =
        dtype === 'f32' ? new Float32Array(copy) : dtype === 'i32' ? new Int32Array(copy) : new Uint8Array(copy)
    }
    return results
  }

  /** Copies of ranges of GPU buffers, through one buffer that the host can read. */
  private async readBack(ranges: readonly (readonly [GPUBuffer, number, number])[]): Promise<ArrayBuffer[]> {
    const total = ranges.reduce((sum, [, , bytes]) => sum + bytes, 0)
    if (total === 0) {
      await this.device.queue.onSubmittedWorkDone()
      return []
    }
    const staging = this.device.createBuffer({ size: total, usage: usage.mapRead | usage.copyTarget })
    const encoder = this.device.createCommandEncoder()
    let at = 0
    for (const [buffer, offset, bytes] of ranges) {
      encoder.copyBufferToBuffer(buffer, offset, staging, at, bytes)
      at += bytes
    }
    this.device.queue.submit([encoder.finish()])
    try {
      await staging.mapAsync(mapForReading)
    } catch (cause) {
      throw new DeviceError(`webgpu: the device was lost or closed: ${(cause as Error).message}`, { cause })
    }
    const mapped = staging.getMappedRange()
    at = 0
    const copies = ranges.map(([, , bytes]) => {
      const copy = mapped.slice(at, at + bytes)
      at += bytes
      return copy
    })
    staging.unmap()
    staging.destroy()
    return copies
  }

  private release(compiled: Compiled): void {
    if (compiled.freed) return
    compiled.freed = true
    void this.enqueue(async () => {
      this.programs.delete(compiled)
      compiled.params.destroy()
      const largest = Math.max(256, ...[...this.programs].map(({ memory }) => memory.arenaBytes))
      if (largest >= this.arena.size) return
      this.arena.destroy()
      this.arena = this.allocate(largest, 'arena')
    }).catch(() => {})
  }

  private allocate(bytes: number, label: string): GPUBuffer {
    const size = Math.max(256, align(bytes, 4))
    const { maxBufferSize } = this.device.limits
    if (size > maxBufferSize)
      throw new MemoryError(
        `${label}: ${(size / 1e6).toFixed(0)} MB, a buffer of this adapter has ${(maxBufferSize / 1e6).toFixed(0)} MB at most`,
      )
    return this.device.createBuffer({ label, size, usage: usage.storage | usage.copySource | usage.copyTarget })
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
