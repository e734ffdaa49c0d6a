import type { TensorType } from '../../sdk/dtype.ts'
import { DeviceError } from '../../sdk/errors.ts'
import { bindings, type MemoryPlan, type Program } from '../../sdk/graph/program.ts'
import type {
  Buffer,
  DeviceInfo,
  Executable,
  KernelProfile,
  RunInputs,
  RunOptions,
  RunOutputs,
  Target,
} from '../../sdk/target.ts'
import type { WebGpuTarget } from './index.ts'

// A GPU goes away when a driver is updated, a laptop sleeps or another page hangs it. What was written to it is kept on the host,
// and what ran since the last copy of its state is remembered: on a new device all of it is done again, and nobody notices.

/** Tries to open another device, one after the other, before giving up. */
const attempts = 3
/** Runs that are done again at most; with much state, which is slow to copy, more. */
const fewestRuns = 32
const bytesARun = 2 ** 20

class Handle implements Buffer {
  readonly name: string
  readonly type: TensorType
  inner: Buffer
  /** Its bytes when the journal began; null: zeros. */
  host: Uint8Array | null = null
  /** Written by programs. */
  isState = false
  freed = false

  constructor(inner: Buffer) {
    this.name = inner.name
    this.type = inner.type
    this.inner = inner
  }

  get bytes(): number {
    return this.inner.bytes
  }
}

interface Loaded {
  readonly program: Program
  readonly bound: Readonly<Record<string, Handle>>
  inner: Executable
}

type Entry =
  | { readonly loaded: Loaded; readonly inputs: RunInputs }
  | { readonly handle: Handle; readonly data: Uint8Array; readonly offset: number }

/** A target that outlives its devices: `open` gives another one. */
export class RecoveringTarget implements Target {
  readonly name = 'webgpu'
  readonly info: DeviceInfo
  /** Devices that were lost so far. */
  losses = 0
  private target: WebGpuTarget
  private readonly open: () => Promise<WebGpuTarget>
  private readonly handles = new Set<Handle>()
  private readonly programs = new Set<Loaded>()
  private journal: Entry[] = []
  private tail: Promise<unknown> = Promise.resolve()

  constructor(target: WebGpuTarget, open: () => Promise<WebGpuTarget>) {
    this.target = target
    this.open = open
    this.info = target.info
  }

  supports(op: string, inputs: readonly TensorType[], attrs: unknown): true | string {
    return this.target.supports(op, inputs, attrs)
  }

  create(type: TensorType, name: string): Buffer {
    const handle = new Handle(this.target.create(type, name))
    this.handles.add(handle)
    return handle
  }

  write(buffer: Buffer, data: ArrayBufferView, byteOffset = 0): void | Promise<void> {
    const handle = this.own(buffer)
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice()
    this.target.checkWrite(handle.inner, byteOffset, bytes.length)
    return this.enqueue(async () => {
      if (handle.freed) return
      if (handle.isState && this.journal.length > 0) this.journal.push({ handle, data: bytes, offset: byteOffset })
      else {
        handle.host ??= new Uint8Array(handle.bytes)
        handle.host.set(bytes, byteOffset)
      }
      await this.target.write(handle.inner, bytes, byteOffset)
    })
  }

  read(buffer: Buffer, byteOffset = 0, bytes = buffer.bytes - byteOffset): Promise<ArrayBuffer> {
    const handle = this.own(buffer)
    return this.enqueue(() => this.surviving(() => this.target.read(handle.inner, byteOffset, bytes)))
  }

  free(buffer: Buffer): void {
    if (!(buffer instanceof Handle) || buffer.freed) return
    buffer.freed = true
    void this.enqueue(async () => {
      this.handles.delete(buffer)
      // What ran with it cannot be done again without it.
      if (buffer.isState && this.journal.length > 0) await this.copyState()
      buffer.host = null
      this.target.free(buffer.inner)
    }).catch(() => {})
  }

  async compile(program: Program, given: Readonly<Record<string, Buffer>>): Promise<Executable> {
    const bound = Object.fromEntries(Object.entries(given).map(([name, buffer]) => [name, this.own(buffer)]))
    const loaded = await this.enqueue(async () => {
      const inner = await this.surviving(() => this.target.compile(program, inners(bound)))
      const made: Loaded = { program, bound, inner }
      this.programs.add(made)
      for (const name of bindings(program, 'state').keys()) bound[name].isState = true
      return made
    })
    const memory: MemoryPlan = loaded.inner.memory
    return {
      memory,
      run: (inputs, options) => this.run(loaded, inputs, options),
      free: () => {
        void this.enqueue(async () => {
          if (!this.programs.delete(loaded)) return
          if (this.journal.some((entry) => 'loaded' in entry && entry.loaded === loaded)) await this.copyState()
          loaded.inner.free()
        }).catch(() => {})
      },
    }
  }

  scratchBytes(programs: readonly Program[]): number {
    return this.target.scratchBytes(programs)
  }

  async profile(work: () => Promise<unknown>): Promise<KernelProfile[]> {
    return this.target.profile(work)
  }

  async close(): Promise<void> {
    await this.target.close()
  }

  /** Ends the device under everything, as a driver does: for tests. */
  loseDevice(): void {
    this.target.loseDevice()
  }

  private run(loaded: Loaded, given: RunInputs, options?: RunOptions): Promise<RunOutputs> {
    if (options?.keep && options.keep.length > 0)
      return Promise.reject(new DeviceError('webgpu: outputs that stay on the device are not recovered: read them'))
    const inputs = Object.fromEntries(
      Object.entries(given).map(([name, value]) => [name, ArrayBuffer.isView(value) ? copyOf(value) : value]),
    )
    return this.enqueue(async () => {
      const outputs = await this.surviving(() => loaded.inner.run(this.inside(inputs), options))
      if (bindings(loaded.program, 'state').size > 0) {
        this.journal.push({ loaded, inputs })
        await this.keepShort()
      }
      return outputs
    })
  }

  /** Buffers among the inputs are handles of ours. */
  private inside(inputs: RunInputs): RunInputs {
    return Object.fromEntries(
      Object.entries(inputs).map(([name, value]) => [name, value instanceof Handle ? value.inner : value]),
    )
  }

  /** The journal goes once doing it again would cost more than copying the state to the host. */
  private async keepShort(): Promise<void> {
    const bytes = [...this.handles].reduce((sum, handle) => sum + (handle.isState ? handle.bytes : 0), 0)
    if (this.journal.length >= Math.max(fewestRuns, bytes / bytesARun)) await this.surviving(() => this.copyState())
  }

  private async copyState(): Promise<void> {
    const copies: [Handle, Uint8Array][] = []
    for (const handle of this.handles)
      if (handle.isState) copies.push([handle, new Uint8Array(await this.target.read(handle.inner))])
    // All or nothing: a device that is lost on the way leaves the journal as it was.
    if (this.target.lost !== null) throw new DeviceError(`webgpu: ${this.target.lost}`)
    for (const [handle, bytes] of copies) handle.host = bytes
    this.journal = []
  }

  /** Does a task, and again on another device when this one was lost under it. */
  private async surviving<T>(task: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      if (this.target.lost !== null) await this.recover()
      try {
        const result = await task()
        if (this.target.lost === null) return result
      } catch (error) {
        // The loss may be told a little later than what came of it.
        await this.target.settled()
        if (this.target.lost === null || attempt === attempts) throw error
      }
      if (attempt === attempts)
        throw new DeviceError(`webgpu: the device was lost ${attempts} times: ${this.target.lost}`)
    }
  }

  /** Weights, state, programs and everything since, on another device. */
  private async recover(): Promise<void> {
    this.losses++
    this.target = await this.open()
    for (const handle of this.handles) {
      handle.inner = this.target.create(handle.type, handle.name)
      if (handle.host) await this.target.write(handle.inner, handle.host)
    }
    // A program whose buffers are gone is about to go as well.
    for (const loaded of this.programs)
      if (Object.values(loaded.bound).some(({ freed }) => freed)) this.programs.delete(loaded)
    for (const loaded of this.programs) loaded.inner = await this.target.compile(loaded.program, inners(loaded.bound))
    for (const entry of this.journal)
      if ('loaded' in entry) await entry.loaded.inner.run(this.inside(entry.inputs))
      else await this.target.write(entry.handle.inner, entry.data, entry.offset)
  }

  private own(buffer: Buffer): Handle {
    if (!(buffer instanceof Handle)) throw new DeviceError(`${buffer.name}: a buffer of another target`)
    if (buffer.freed) throw new DeviceError(`${buffer.name}: used after free`)
    return buffer
  }

  private enqueue<T>(task: () => Promise<T>): Promise<T> {
    const result = this.tail.then(task)
    this.tail = result.catch(() => {})
    return result
  }
}

const inners = (bound: Readonly<Record<string, Handle>>): Record<string, Buffer> =>
  Object.fromEntries(Object.entries(bound).map(([name, handle]) => [name, handle.inner]))

const copyOf = (view: ArrayBufferView): ArrayBufferView =>
  new Uint8Array(view.buffer, view.byteOffset, view.byteLength).slice()
