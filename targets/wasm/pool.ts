import type { Worker } from 'node:worker_threads'
import { DeviceError } from '../../sdk/errors.ts'
import type { Call } from './lower/types.ts'
import { controlBase } from './memory.ts'
import { startWorker } from './node.ts'

type Reply = { ready: true } | { done: number; aborted: boolean } | { error: string; kernel: string }

/** What runs call lists: worker threads over a shared memory, or the caller's thread. One run at a time. */
export interface Engine {
  readonly threads: number
  /** The system's ids of the worker threads; empty when the caller's thread computes. */
  readonly threadIds: readonly number[]
  load(id: number, calls: readonly Call[]): void
  unload(id: number): void
  /** true when it was left early because of `abort`. Rejects with DeviceError when a kernel traps or a worker dies. */
  run(id: number): Promise<boolean>
  abort(): void
  close(): Promise<void>
}

const abortFlag = 192 / 4

/** T worker threads in lockstep (worker.mjs). Idle workers do not keep the process alive. */
export class WorkerPool implements Engine {
  readonly threads: number
  private readonly workers: Worker[]
  private readonly control: Int32Array
  private running: { resolve: (aborted: boolean) => void; reject: (error: Error) => void } | null = null
  private failure: DeviceError | null = null

  private constructor(workers: Worker[], memory: WebAssembly.Memory) {
    this.workers = workers
    this.threads = workers.length
    this.control = new Int32Array(memory.buffer, controlBase, 64)
  }

  static async start(module: WebAssembly.Module, memory: WebAssembly.Memory, threads: number): Promise<WorkerPool> {
    const workers = Array.from({ length: threads }, startWorker)
    const pool = new WorkerPool(workers, memory)
    const ready = workers.map(
      (worker, thread) =>
        new Promise<void>((resolve, reject) => {
          worker.on('message', (reply: Reply) => {
            if ('ready' in reply) resolve()
            else if ('done' in reply) pool.finish(reply.aborted)
            else {
              const failure = pool.fail(
                `${reply.kernel ? `kernel ${reply.kernel}` : 'a worker'} failed: ${reply.error}`,
              )
              reject(failure)
            }
          })
          worker.on('error', (error) => reject(pool.fail(`a worker died: ${error}`)))
          worker.on('exit', (code) => reject(pool.fail(`a worker exited with code ${code}`)))
          worker.postMessage({ module, memory, control: controlBase, thread, threads })
        }),
    )
    try {
      await Promise.all(ready)
    } catch (error) {
      await Promise.allSettled(ready)
      throw error
    }
    for (const worker of workers) worker.unref()
    return pool
  }

  get threadIds(): readonly number[] {
    return this.workers.map((worker) => worker.threadId)
  }

  load(id: number, calls: readonly Call[]): void {
    this.check()
    for (const worker of this.workers) worker.postMessage({ load: id, calls })
  }

  unload(id: number): void {
    if (!this.failure) for (const worker of this.workers) worker.postMessage({ unload: id })
  }

  run(id: number): Promise<boolean> {
    this.check()
    Atomics.store(this.control, abortFlag, 0)
    return new Promise((resolve, reject) => {
      this.running = { resolve, reject }
      for (const worker of this.workers) {
        worker.ref()
        worker.postMessage({ run: id })
      }
    })
  }

  abort(): void {
    Atomics.store(this.control, abortFlag, 1)
  }

  async close(): Promise<void> {
    this.fail('the target is closed')
    await Promise.all(this.workers.map((worker) => worker.terminate()))
  }

  private check(): void {
    if (this.failure) throw this.failure
  }

  private finish(aborted: boolean): void {
    for (const worker of this.workers) worker.unref()
    this.running?.resolve(aborted)
    this.running = null
  }

  /** The first failure counts: the other threads wait at a barrier that nobody completes, so all are ended. */
  private fail(reason: string): DeviceError {
    if (this.failure) return this.failure
    this.failure = new DeviceError(`wasm: ${reason}`)
    this.running?.reject(this.failure)
    this.running = null
    for (const worker of this.workers) void worker.terminate()
    return this.failure
  }
}
