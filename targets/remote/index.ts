import { bytesOf } from '../../sdk/bytes.ts'
import type { TensorType } from '../../sdk/dtype.ts'
import { DeviceError } from '../../sdk/errors.ts'
import type { MemoryPlan, Program } from '../../sdk/graph/program.ts'
import type {
  Buffer,
  CompileProgress,
  Executable,
  FileBlocks,
  KernelProfile,
  RunInputs,
  RunOptions,
  RunOutputs,
  Target,
} from '../../sdk/target.ts'
import { freeBuffer, memoryOf, OwnedBuffer } from '../owned-buffer.ts'
import { WorkerCalls } from './calls.ts'
import type { Opened } from './wire.ts'

/** What the Worker is asked to open. */
export interface RemoteOptions {
  readonly device?: string
  readonly threads?: number
  readonly build?: string
  readonly onCompile?: (progress: CompileProgress) => void
}

/**
 * A target in a Worker that runs `serveTarget` (serve.ts). Throws what opening it there throws, DeviceError when the Worker does not start.
 * A Worker that ends later is a lost device.
 */
export async function remoteTarget(worker: Worker, options: RemoteOptions = {}): Promise<Target> {
  const { onCompile = () => {}, ...asked } = options
  const calls = new WorkerCalls(worker, (event) => onCompile(event as CompileProgress))
  try {
    const lock = `halfling device ${crypto.randomUUID()}`
    const opened = await calls.call<Opened>('open', [asked, lock])
    calls.watch(lock)
    return new RemoteTarget(calls, opened)
  } catch (error) {
    calls.end(error as Error)
    throw error
  }
}

/** One question to such a Worker, which ends with the answer. */
export async function askWorker<T>(worker: Worker, method: string, ...args: readonly unknown[]): Promise<T> {
  const calls = new WorkerCalls(worker)
  try {
    return await calls.call<T>(method, args)
  } finally {
    calls.end(new DeviceError("the device's Worker has answered"))
  }
}

/** The page's side: ids for what lies in the Worker. Messages keep their order, so nothing waits for an answer but who asked. */
class RemoteTarget implements Target {
  readonly name: Target['name']
  readonly info: Target['info']
  readonly profile: Target['profile']
  readonly conversions: Target['conversions']
  private readonly calls: WorkerCalls
  private readonly ops: Opened['ops']
  private made = 0
  private closed: Promise<void> | null = null

  constructor(calls: WorkerCalls, { name, info, ops, profiles, conversions }: Opened) {
    this.name = name
    this.info = info
    this.conversions = conversions
    this.calls = calls
    this.ops = ops
    this.profile = profiles ? (work) => this.profiled(work) : undefined
  }

  /** By the op alone; `compile` asks the target itself. */
  supports(op: string): true | string {
    return Object.hasOwn(this.ops, op) ? this.ops[op] : `${this.name} has no op ${op}`
  }

  create(type: TensorType, name: string): Buffer {
    this.checkOpen()
    const buffer = new OwnedBuffer(name, type, ++this.made, this)
    this.calls.send({ method: 'create', args: [buffer.memory, buffer.type, name] })
    return buffer
  }

  write(buffer: Buffer, data: ArrayBufferView, byteOffset = 0, blocks?: FileBlocks): Promise<void> {
    const id = this.own(buffer)
    const copy = bytesOf(data).slice()
    return this.calls.call('write', [id, copy, byteOffset, blocks], [copy.buffer])
  }

  async read(buffer: Buffer, byteOffset = 0, bytes = buffer.bytes - byteOffset): Promise<ArrayBuffer> {
    const id = this.own(buffer)
    return this.calls.call('read', [id, byteOffset, bytes])
  }

  free(buffer: Buffer): void {
    freeBuffer<number>(buffer, this, (id) => this.calls.send({ method: 'free', args: [id] }))
  }

  async compile(program: Program, bound: Readonly<Record<string, Buffer>>): Promise<Executable> {
    const ids = Object.fromEntries(Object.entries(bound).map(([name, buffer]) => [name, this.own(buffer)]))
    const id = ++this.made
    const memory = await this.calls.call<MemoryPlan>('compile', [id, program, ids])
    let freed = false
    return {
      memory,
      run: async (inputs, options = {}) => {
        this.checkOpen()
        if (freed) throw new DeviceError(`program ${program.name}: run after free`)
        return this.run(id, inputs, options)
      },
      free: () => {
        if (!freed) this.calls.send({ method: 'unload', args: [id] })
        freed = true
      },
    }
  }

  private async run(id: number, inputs: RunInputs, { signal, ...options }: RunOptions): Promise<RunOutputs> {
    signal?.throwIfAborted()
    const copies = Object.entries(inputs).map(([name, view]) => [name, bytesOf(view).slice()] as const)
    const transfer = copies.map(([, copy]) => copy.buffer)
    return this.calls.call('run', [id, Object.fromEntries(copies), options], transfer, signal)
  }

  async scratchBytes(programs: readonly Program[]): Promise<number> {
    this.checkOpen()
    return this.calls.call('scratchBytes', [programs])
  }

  private async profiled(work: () => Promise<unknown>): Promise<KernelProfile[]> {
    this.checkOpen()
    await this.calls.call('profileBegin')
    try {
      await work()
    } catch (error) {
      await this.calls.call('profileEnd').catch(() => {})
      throw error
    }
    return this.calls.call('profileEnd')
  }

  /** Ends the Worker; runs under way reject with DeviceError. */
  close(): Promise<void> {
    this.closed ??= this.calls
      .call<void>('close')
      .catch(() => {})
      .finally(() => this.calls.end(new DeviceError(`${this.name}: the target is closed`)))
    return this.closed
  }

  private own(buffer: Buffer): number {
    this.checkOpen()
    return memoryOf(buffer, this)
  }

  private checkOpen(): void {
    if (this.closed) throw new DeviceError(`${this.name}: the target is closed`)
  }
}
