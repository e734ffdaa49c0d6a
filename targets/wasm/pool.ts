import { DeviceError } from '../../sdk/errors.ts'
import type { Host, Thread } from './host.ts'
import type { Call } from './lower/types.ts'
import { controlBase } from './memory.ts'

/** What worker.mjs says. */
export type WorkerReply = { ready: true } | { done: number; aborted: boolean } | { error: string; kernel: string }

/** Bytes that are copied between two steps: at step s from `from + s * fromStride` to `to + s * toStride`. */
export interface Move {
  readonly to: number
  readonly toStride: number
  readonly from: number
  readonly fromStride: number
  readonly bytes: number
}

/** A program's calls, so many times over; moves are carried out in their order. */
export interface Steps {
  readonly steps: number
  readonly before: readonly Move[]
  readonly after: readonly Move[]
}

/** What runs call lists: worker threads over a shared memory, or the caller's thread. One run at a time. */
export interface Engine {
  readonly threads: number
  load(id: number, calls: readonly Call[]): void
  unload(id: number): void
  /** true when it was left early because of `abort`. Rejects with DeviceError when a kernel traps or a worker dies. */
  run(id: number, steps: Steps): Promise<boolean>
  abort(): void
  close(): Promise<void>
}

const abortFlag = 192 / 4

/** T worker threads in lockstep (worker.mjs). Idle workers do not keep the process alive. */
export class WorkerPool implements Engine {
  readonly threads: number
  private workers: readonly Thread[] = []
  private readonly control: Int32Array
  private running: { resolve: (aborted: boolean) => void; reject: (error: Error) => void } | null = null
  private failure: DeviceError | null = null

  private constructor(memory: WebAssembly.Memory, threads: number) {
    this.threads = threads
    this.control = new Int32Array(memory.buffer, controlBase, 64)
  }

  static async start(
    host: Host,
    module: WebAssembly.Module,
    memory: WebAssembly.Memory,
    threads: number,
  ): Promise<WorkerPool> {
    const pool = new WorkerPool(memory, threads)
    await new Promise<void>((resolve, reject) => {
      let ready = 0
      const onReply = (reply: WorkerReply) => {
        if ('ready' in reply) {
          if (++ready === threads) resolve()
        } else if ('done' in reply) pool.finish(reply.aborted)
        else reject(pool.fail(`${reply.kernel ? `kernel ${reply.kernel}` : 'a worker'} failed: ${reply.error}`))
      }
      const onEnd = (reason: string) => reject(pool.fail(reason))
      pool.workers = Array.from({ length: threads }, () => host.startThread(onReply, onEnd))
      for (const [thread, worker] of pool.workers.entries())
        worker.post({ module, memory, control: controlBase, thread, threads })
    })
    for (const worker of pool.workers) worker.hold(false)
    return pool
  }

  load(id: number, calls: readonly Call[]): void {
    this.check()
    for (const worker of this.workers) worker.post({ load: id, calls })
  }

  unload(id: number): void {
    if (!this.failure) for (const worker of this.workers) worker.post({ unload: id })
  }

  run(id: number, steps: Steps): Promise<boolean> {
    this.check()
    Atomics.store(this.control, abortFlag, 0)
    return new Promise((resolve, reject) => {
      this.running = { resolve, reject }
      for (const worker of this.workers) {
        worker.hold(true)
        worker.post({ run: id, ...steps })
      }
    })
  }

  abort(): void {
    Atomics.store(this.control, abortFlag, 1)
  }

  async close(): Promise<void> {
    this.fail('the target is closed')
    await Promise.all(this.workers.map((worker) => worker.end()))
  }

  private check(): void {
    if (this.failure) throw this.failure
  }

  private finish(aborted: boolean): void {
    for (const worker of this.workers) worker.hold(false)
    this.running?.resolve(aborted)
    this.running = null
  }

  /** The first failure counts: the other threads wait at a barrier that nobody completes, so all are ended. */
  private fail(reason: string): DeviceError {
    if (this.failure) return this.failure
    this.failure = new DeviceError(`wasm: ${reason}`)
    this.running?.reject(this.failure)
    this.running = null
    for (const worker of this.workers) void worker.end()
    return this.failure
  }
}
