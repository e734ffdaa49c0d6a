import { bytesOf } from '../sdk/bytes.ts'
import { byteLength, type TensorType } from '../sdk/dtype.ts'
import { DeviceError } from '../sdk/errors.ts'
import type { MemoryPlan, Program } from '../sdk/graph/program.ts'
import type {
  Buffer,
  DeviceInfo,
  Executable,
  FileBlocks,
  KernelProfile,
  RunInputs,
  RunOptions,
  Target,
} from '../sdk/target.ts'
import { checkBound, checkOps, checkRange, inputTensors, type Job, jobOf, outputsOf } from './checks.ts'
import { freeBuffer, memoryOf, OwnedBuffer } from './owned-buffer.ts'
import { Queue } from './queue.ts'

/**
 * What one target adds to the queue and the checks that all of them share: memory, compiling, dispatch. But for `allocate` and
 * `scratchBytes` its methods are called from the queue, never two at a time; what they are given is checked.
 */
export interface Executor<Memory, Compiled extends { readonly memory: MemoryPlan }> {
  readonly name: Target['name']
  readonly info: DeviceInfo
  supports(op: string, inputs: readonly TensorType[], attrs: unknown): true | string
  /** Zero-filled. Throws MemoryError, or the next await of this executor does. */
  allocate(type: TensorType, name: string): Memory
  release(memory: Memory): void
  /** As a target's; `write` is told which. */
  readonly conversions?: readonly string[]
  /** Has taken the bytes when it returns, settled or not. */
  write(memory: Memory, byteOffset: number, bytes: Uint8Array<ArrayBuffer>, conversion?: string): void | Promise<void>
  read(memory: Memory, byteOffset: number, bytes: number): ArrayBuffer | Promise<ArrayBuffer>
  scratchBytes(programs: readonly Program[]): number
  compile(program: Program, bound: Readonly<Record<string, Memory>>): Compiled | Promise<Compiled>
  unload(compiled: Compiled): void | Promise<void>
  /** Bytes of the collected outputs, of all steps one after the other. */
  run(compiled: Compiled, job: Job): Promise<ArrayBuffer[]>
  profile?(work: () => Promise<unknown>): Promise<KernelProfile[]>
  /** Called at once, whatever runs; `idle` settles when nothing does any more. */
  close(idle: Promise<void>): Promise<void>
}

/** A Target over an executor: ownership, checks, one thing after another, outputs by name. */
export class QueuedTarget<Memory, Compiled extends { readonly memory: MemoryPlan }> implements Target {
  readonly name: Target['name']
  readonly info: DeviceInfo
  readonly profile: Target['profile']
  readonly conversions: Target['conversions']
  private readonly executor: Executor<Memory, Compiled>
  private readonly queue = new Queue()
  private closed: Promise<void> | null = null

  constructor(executor: Executor<Memory, Compiled>) {
    this.name = executor.name
    this.info = executor.info
    this.conversions = executor.conversions
    this.executor = executor
    this.profile = executor.profile && ((work) => executor.profile!(work))
  }

  supports(op: string, inputs: readonly TensorType[], attrs: unknown): true | string {
    return this.executor.supports(op, inputs, attrs)
  }

  create(type: TensorType, name: string): Buffer {
    this.checkOpen()
    return new OwnedBuffer(name, type, this.executor.allocate(type, name), this)
  }

  write(buffer: Buffer, data: ArrayBufferView, byteOffset = 0, blocks?: FileBlocks): void | Promise<void> {
    this.checkOpen()
    const memory = this.own(buffer)
    const { dtype } = buffer.type
    const elements = blocks && (data.byteLength / blocks.bytes) * blocks.elements
    checkRange(buffer, byteOffset, elements === undefined ? data.byteLength : byteLength({ dtype, shape: [elements] }))
    const conversion = blocks && `${blocks.type}_${dtype}`
    if (this.queue.isIdle) {
      const settled = this.executor.write(memory, byteOffset, bytesOf(data), conversion)
      return settled && this.queue.add(() => settled)
    }
    const copy = bytesOf(data).slice()
    return this.queue.add(() => this.executor.write(memory, byteOffset, copy, conversion))
  }

  async read(buffer: Buffer, byteOffset = 0, bytes = buffer.bytes - byteOffset): Promise<ArrayBuffer> {
    this.checkOpen()
    const memory = this.own(buffer)
    checkRange(buffer, byteOffset, bytes)
    return this.queue.add(() => this.executor.read(memory, byteOffset, bytes))
  }

  free(buffer: Buffer): void {
    freeBuffer<Memory>(buffer, this, (memory) => this.queue.whenIdle(() => this.executor.release(memory)))
  }

  async compile(program: Program, bound: Readonly<Record<string, Buffer>>): Promise<Executable> {
    this.checkOpen()
    checkOps(program, (...args) => this.supports(...args))
    checkBound(program, bound)
    const memories = Object.fromEntries(Object.entries(bound).map(([name, buffer]) => [name, this.own(buffer)]))
    const compiled = await this.queue.add(() => {
      this.checkOpen()
      return this.executor.compile(program, memories)
    })
    const wanted = inputTensors(program)
    let freed = false
    return {
      memory: compiled.memory,
      run: async (inputs: RunInputs, options: RunOptions = {}) => {
        this.checkOpen()
        if (freed) throw new DeviceError(`program ${program.name}: run after free`)
        options.signal?.throwIfAborted()
        const job = jobOf(program, wanted, inputs, options)
        return this.queue.add(async () => {
          options.signal?.throwIfAborted()
          this.checkOpen()
          return outputsOf(job, await this.executor.run(compiled, job))
        })
      },
      free: () => {
        if (freed) return
        freed = true
        // Never at once: what it gives back may take a while, and nothing may run meanwhile.
        void this.queue.add(() => this.executor.unload(compiled)).catch(() => {})
      },
    }
  }

  async scratchBytes(programs: readonly Program[]): Promise<number> {
    return this.executor.scratchBytes(programs)
  }

  /** Runs under way reject with DeviceError. */
  close(): Promise<void> {
    this.closed ??= this.executor.close(this.queue.idle())
    return this.closed
  }

  private own(buffer: Buffer): Memory {
    return memoryOf(buffer, this)
  }

  private checkOpen(): void {
    if (this.closed) throw new DeviceError(`${this.name}: the target is closed`)
  }
}
