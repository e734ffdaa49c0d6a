import { byteLength, type TensorType } from '../../sdk/dtype.ts'
import { DeviceError, ShapeError } from '../../sdk/errors.ts'
import type { Program } from '../../sdk/graph/program.ts'
import type { CompileProgress, DeviceInfo, KernelProfile, Target } from '../../sdk/target.ts'
import type { Job } from '../checks.ts'
import { type Executor, QueuedTarget } from '../queued-target.ts'
import { Arena, paramsBytes } from './arena.ts'
import { cut, spansOf, type TensorMemory } from './buffer.ts'
import { type Compiled, compileProgram } from './compile.ts'
import { Faults } from './faults.ts'
import { lowering } from './lower/index.ts'
import { align, DeviceMemory, stagingBytes } from './memory.ts'
import { Pipelines } from './pipelines.ts'
import { planProgram } from './plan.ts'
import { Profiler } from './profiler.ts'
import { runProgram } from './run.ts'
import { Latency, mostDispatches, Submits } from './submits.ts'

/** What a target is told of its adapter. */
export interface AdapterFacts {
  readonly description: string
  readonly memoryLimit: number
  readonly onCompile?: (progress: CompileProgress) => void
}

/** A target on this device, which it closes. */
export const webGpuTarget = (device: GPUDevice, facts: AdapterFacts): Target =>
  new QueuedTarget(new WebGpuExecutor(device, facts))

class WebGpuExecutor implements Executor<TensorMemory, Compiled> {
  readonly name = 'webgpu'
  readonly info: DeviceInfo
  private readonly device: GPUDevice
  private readonly faults: Faults
  private readonly memory: DeviceMemory
  private readonly pipelines: Pipelines
  private readonly arena: Arena
  private readonly latency: Latency
  private readonly onCompile: (progress: CompileProgress) => void
  /** Bytes of a buffer that kernels read or write, at most. */
  private readonly limit: number
  private profiler: Profiler | null = null

  constructor(device: GPUDevice, { description, memoryLimit, onCompile = () => {} }: AdapterFacts) {
    const { maxStorageBufferBindingSize, maxBufferSize } = device.limits
    this.device = device
    this.limit = 256 * Math.floor(Math.min(maxStorageBufferBindingSize, maxBufferSize) / 256)
    this.faults = new Faults(device)
    this.memory = new DeviceMemory(device)
    this.pipelines = new Pipelines(device)
    this.arena = new Arena(this.memory, this.limit)
    this.latency = new Latency(device)
    this.onCompile = onCompile
    const features = ['shader-f16', 'subgroups', 'timestamp-query'].filter((name) => device.features.has(name))
    this.info = { description, threads: 0, memoryLimit, features }
  }

  supports(op: string): true | string {
    return Object.hasOwn(lowering, op) ? true : `webgpu has no kernel for ${op}`
  }

  allocate(type: TensorType, name: string): TensorMemory {
    const rowBytes = byteLength(type) / (type.shape[0] ?? 1)
    const rows = cut(type, name, this.limit)
    const parts = rows.map((part, i) => {
      const label = rows.length === 1 ? name : `${name}, part ${i + 1} of ${rows.length}`
      return { ...part, gpu: this.memory.allocate(part.rows * rowBytes, label) }
    })
    return { name, type, parts }
  }

  release({ parts }: TensorMemory): void {
    for (const { gpu } of parts) this.memory.free(gpu)
  }

  /** A promise where it is not known yet whether the memory could be had. */
  write(memory: TensorMemory, byteOffset: number, bytes: Uint8Array<ArrayBuffer>): void | Promise<void> {
    if (this.faults.isLost) return this.faults.guard(() => {})
    for (const { part, at, from, to } of spansOf(memory, byteOffset, bytes.length)) {
      if (at % 4 !== 0) throw new ShapeError(`${memory.name}: a write at byte ${byteOffset}, which is no multiple of 4`)
      const piece = bytes.subarray(from, to)
      const padded = piece.length % 4 === 0 ? piece : new Uint8Array(align(piece.length, 4))
      if (padded !== piece) padded.set(piece)
      this.memory.write(part.gpu, at, padded)
    }
    if (this.memory.isUnsettled) return this.faults.guard(() => this.memory.settled())
  }

  read(memory: TensorMemory, byteOffset: number, bytes: number): Promise<ArrayBuffer> {
    return this.faults.guard(async () => {
      await this.memory.settled()
      const spans = spansOf(memory, byteOffset, bytes).map((span) => ({ ...span, start: Math.floor(span.at / 4) * 4 }))
      const copies = await this.memory.read(
        spans.map(({ part, at, from, to, start }) => [part.gpu, start, align(at + to - from - start, 4)]),
      )
      if (copies.length === 1 && copies[0].byteLength === bytes) return copies[0]
      const result = new Uint8Array(bytes)
      for (const [i, { at, from, to, start }] of spans.entries())
        result.set(new Uint8Array(copies[i], at - start, to - from), from)
      return result.buffer
    })
  }

  /** Of one step: what runs of several take besides is made by the first of them (run.ts). */
  scratchBytes(programs: readonly Program[]): number {
    const plans = programs.map((program) => planProgram(program, this.limit))
    const arena = Math.max(0, ...plans.map(({ memory }) => memory.arenaBytes))
    return arena + Math.max(0, ...plans.map(({ calls }) => paramsBytes(calls.length))) + stagingBytes
  }

  compile(program: Program, bound: Readonly<Record<string, TensorMemory>>): Promise<Compiled> {
    return this.faults.guard(async () => {
      const { device, pipelines, limit, onCompile } = this
      const compiled = await compileProgram(device, pipelines, program, bound, limit, onCompile)
      await this.memory.settled()
      await this.arena.add(compiled)
      return compiled
    })
  }

  unload(compiled: Compiled): Promise<void> {
    return this.faults.guard(async () => {
      if (compiled.steps) this.memory.free(compiled.steps)
      await this.arena.remove(compiled)
    })
  }

  run(compiled: Compiled, job: Job): Promise<ArrayBuffer[]> {
    return this.faults.guard(async () => {
      const { device, memory, arena, faults, profiler, latency } = this
      await memory.settled()
      await arena.load(compiled)
      const check = () => {
        job.signal?.throwIfAborted()
        faults.check()
      }
      const { name } = compiled.program
      const isAwaited = job.signal !== undefined
      const submits = new Submits(device, name, arena.shared, { profiler, latency, check, isAwaited })
      const outputs = await runProgram(device, memory, arena, compiled, job, submits)
      const complaint = faults.takeComplaint()
      if (complaint !== null) throw new DeviceError(`webgpu: program ${name}: ${complaint}`)
      return outputs
    })
  }

  /** `work` waits for what it runs. */
  async profile(work: () => Promise<unknown>): Promise<KernelProfile[]> {
    if (!this.device.features.has('timestamp-query'))
      throw new DeviceError(`webgpu: ${this.info.description} has no timestamp-query: its kernels cannot be timed`)
    const profiler = new Profiler(this.device, this.memory, mostDispatches)
    this.profiler = profiler
    try {
      await work()
    } finally {
      this.profiler = null
    }
    return profiler.end()
  }

  async close(idle: Promise<void>): Promise<void> {
    this.faults.close()
    await idle
    this.device.destroy()
  }
}
