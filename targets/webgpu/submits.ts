import { type Shared, uniformAlignment } from './arena.ts'
import type { Dispatch } from './compile.ts'
import type { Profiler } from './profiler.ts'
import { type GroupRange, gridOf } from './shader.ts'
import { longestSubmit } from './work.ts'

/** Dispatches of one submit, so that none keeps the GPU for too long. */
export const mostDispatches = 64

/** How long an adapter takes for nothing. */
export class Latency {
  private readonly device: GPUDevice
  private seconds: number | null = null

  constructor(device: GPUDevice) {
    this.device = device
  }

  /** Seconds from a submit of nothing to its end. */
  async find(): Promise<number> {
    if (this.seconds !== null) return this.seconds
    const { queue } = this.device
    let best = Number.POSITIVE_INFINITY
    for (let attempt = 0; attempt < 3; attempt++) {
      await queue.onSubmittedWorkDone()
      const start = performance.now()
      queue.submit([this.device.createCommandEncoder().finish()])
      await queue.onSubmittedWorkDone()
      best = Math.min(best, (performance.now() - start) / 1000)
    }
    this.seconds = best
    return best
  }
}

/**
 * Dispatches and copies of one run, in their order. A submit has at most 64 dispatches, fewer where they would take too long together;
 * a dispatch that takes too long alone goes in pieces. `check` throws where the run is to end: it is asked before each submit, and
 * `isAwaited` waits for each, so that not much is under way then.
 */
export class Submits {
  private readonly device: GPUDevice
  private readonly label: string
  private readonly shared: Shared
  private readonly profiler: Profiler | null
  private readonly latency: Latency
  private readonly check: () => void
  private readonly isAwaited: boolean
  private encoder: GPUCommandEncoder | null = null
  private pass: GPUComputePassEncoder | null = null
  /** Of the submit that is being made: its dispatches, with shares of their groups, and seconds. */
  private dispatches: { dispatch: Dispatch; share: number }[] = []
  private seconds = 0

  constructor(
    device: GPUDevice,
    label: string,
    shared: Shared,
    tools: { profiler: Profiler | null; latency: Latency; check: () => void; isAwaited: boolean },
  ) {
    this.device = device
    this.label = label
    this.shared = shared
    this.profiler = tools.profiler
    this.latency = tools.latency
    this.check = tools.check
    this.isAwaited = tools.isAwaited
  }

  copy(from: GPUBuffer, fromOffset: number, to: GPUBuffer, toOffset: number, bytes: number): void {
    this.endPass()
    this.encoder ??= this.device.createCommandEncoder({ label: this.label })
    this.encoder.copyBufferToBuffer(from, fromOffset, to, toOffset, bytes)
  }

  /** The program's dispatch i. */
  async add(dispatch: Dispatch, group: GPUBindGroup, i: number): Promise<void> {
    const { pace, work } = dispatch
    const own = pace.estimate(work.cost)
    if (own > longestSubmit || pace.isUnknown(work.cost)) {
      await this.flush()
      await this.addPieces(dispatch, group, i)
      return
    }
    if (this.dispatches.length === mostDispatches || this.seconds + own > longestSubmit) await this.flush()
    this.encode(dispatch, group, i, dispatch.size, 1)
    this.seconds += own
  }

  /** Submits what there is. */
  async flush(): Promise<void> {
    this.check()
    if (!this.encoder) return
    this.endPass()
    const { encoder, dispatches, profiler } = this
    ;[this.encoder, this.dispatches, this.seconds] = [null, [], 0]
    if (dispatches.length > 0) profiler?.resolve(encoder, dispatches.length)
    this.device.queue.submit([encoder.finish()])
    if (dispatches.length > 0)
      await profiler?.add(dispatches.map(({ dispatch: { label, work }, share }) => ({ label, work, share })))
    if (this.isAwaited) await this.idle()
  }

  /** One dispatch, in ranges of its workgroups; timed. */
  private async addPieces(dispatch: Dispatch, group: GPUBindGroup, i: number): Promise<void> {
    const { groups, pace, work } = dispatch
    const writeHead = (range: GroupRange) => {
      const { size, head } = gridOf(range, this.device.limits.maxComputeWorkgroupsPerDimension)
      this.device.queue.writeBuffer(this.shared.params!, i * uniformAlignment, head)
      return size
    }
    try {
      for (let first = 0, end: number; first < groups; first = end) {
        const fitting = Math.floor((groups * longestSubmit) / pace.estimate(work.cost))
        end = Math.min(groups, first + Math.max(1, fitting))
        const share = (end - first) / groups
        // Pieces as well: a pace that was taken in a bad moment must not stay.
        const timed = !this.profiler && (share < 1 || pace.isUnknown(share * work.cost))
        const latency = timed ? await this.latency.find() : 0
        if (timed) await this.idle()
        const start = performance.now()
        this.encode(dispatch, group, i, writeHead({ first, end }), share)
        await this.flush()
        if (!timed) continue
        await this.idle()
        pace.learn(share * work.cost, Math.max(0, (performance.now() - start) / 1000 - latency))
      }
    } finally {
      writeHead({ first: 0, end: groups })
    }
  }

  private encode(dispatch: Dispatch, group: GPUBindGroup, i: number, size: readonly [number, number], share: number) {
    this.encoder ??= this.device.createCommandEncoder({ label: this.label })
    this.pass ??= this.encoder.beginComputePass(this.profiler?.pass(this.dispatches.length))
    this.pass.setPipeline(dispatch.pipeline)
    this.pass.setBindGroup(0, group, [i * uniformAlignment])
    this.pass.dispatchWorkgroups(...size)
    this.dispatches.push({ dispatch, share })
    // Each is timed alone.
    if (this.profiler) this.endPass()
  }

  private endPass(): void {
    this.pass?.end()
    this.pass = null
  }

  private async idle(): Promise<void> {
    await this.device.queue.onSubmittedWorkDone()
  }
}
