import { DeviceError, DeviceLostError } from '../../sdk/errors.ts'
import { type Answer, type Call, locksOf, revived } from './wire.ts'

interface Waiting {
  resolve(value: unknown): void
  reject(error: Error): void
}

/** Calls of a page to a Worker, in their order; answers come in any order. */
export class WorkerCalls {
  private readonly worker: Worker
  private readonly waiting = new Map<number, Waiting>()
  private calls = 0
  private heard = false
  /** Why there is no answer any more. */
  over: Error | null = null

  constructor(worker: Worker, onEvent: (event: unknown) => void = () => {}) {
    this.worker = worker
    worker.addEventListener('message', ({ data }: MessageEvent<Answer>) => {
      this.heard = true
      if ('event' in data) return onEvent(data.event)
      const call = this.waiting.get(data.id)
      this.waiting.delete(data.id)
      if ('error' in data) call?.reject(revived(data.error))
      else call?.resolve(data.value)
    })
    worker.addEventListener('error', (event) => {
      event.preventDefault()
      const why = event.message || 'its script cannot be loaded'
      if (this.heard) this.end(new DeviceLostError(`the device's Worker died: ${why}`))
      else this.end(new DeviceError(`the device's Worker does not start: ${why}`))
    })
  }

  /** Takes notice when the Worker lets go of its lock: no event tells of one that was ended. */
  watch(lock: string): void {
    // Absent on insecure origins.
    void locksOf(globalThis)
      ?.request(lock, () => this.end(new DeviceLostError("the device's Worker has ended")))
      .catch(() => {})
  }

  /** The answer to a call, or the signal's reason where it was aborted meanwhile. */
  async call<T>(
    method: string,
    args: readonly unknown[] = [],
    transfer: Transferable[] = [],
    signal?: AbortSignal,
  ): Promise<T> {
    if (this.over) throw this.over
    const id = ++this.calls
    const abort = () => this.send({ method: 'abort', args: [id] })
    signal?.addEventListener('abort', abort)
    try {
      return await new Promise<T>((resolve, reject) => {
        this.waiting.set(id, { resolve: resolve as Waiting['resolve'], reject })
        this.send({ id, method, args }, transfer)
      })
    } catch (error) {
      throw signal?.aborted ? signal.reason : error
    } finally {
      signal?.removeEventListener('abort', abort)
    }
  }

  /** A call without an answer. */
  send(call: Call, transfer: Transferable[] = []): void {
    if (!this.over) this.worker.postMessage(call, transfer)
  }

  /** Ends the Worker, at once and whatever runs; what waits and what is still asked rejects with `why`. */
  end(why: Error): void {
    if (this.over) return
    this.over = why
    this.worker.terminate()
    for (const { reject } of this.waiting.values()) reject(why)
    this.waiting.clear()
  }
}
