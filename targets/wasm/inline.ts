import { DeviceError } from '../../sdk/errors.ts'
import type { Kernels } from './kernels.ts'
import type { Call } from './lower/types.ts'
import type { Engine, Move, Steps } from './pool.ts'

/** How long the caller's thread is held before its other work gets a turn, in milliseconds. */
const slice = 20

/** The fallback without shared memory: one thread, the caller's own. */
export class InlineEngine implements Engine {
  readonly threads = 1
  private readonly kernels: Kernels['call']
  private readonly programs = new Map<number, readonly Call[]>()
  private aborted = false
  private failure: DeviceError | null = null

  constructor(kernels: Kernels['call']) {
    this.kernels = kernels
  }

  load(id: number, calls: readonly Call[]): void {
    if (this.failure) throw this.failure
    this.programs.set(id, calls)
  }

  unload(id: number): void {
    this.programs.delete(id)
  }

  async run(id: number, { steps, before, after }: Steps): Promise<boolean> {
    if (this.failure) throw this.failure
    this.aborted = false
    let turn = performance.now()
    for (let step = 0; step < steps; step++) {
      this.move(before, step)
      for (const [name, ...args] of this.programs.get(id)!) {
        if (performance.now() - turn > slice) {
          await new Promise((resolve) => setTimeout(resolve))
          turn = performance.now()
          if (this.failure) throw this.failure
        }
        if (this.aborted) return true
        try {
          this.kernels[name](...args, 0, 1)
        } catch (cause) {
          this.failure = new DeviceError(`wasm: kernel ${name} failed: ${cause}`, { cause })
          throw this.failure
        }
      }
      this.move(after, step)
    }
    return false
  }

  private move(moves: readonly Move[], step: number): void {
    for (const { to, toStride, from, fromStride, bytes } of moves)
      this.kernels.move(to + step * toStride, from + step * fromStride, bytes)
  }

  abort(): void {
    this.aborted = true
  }

  async close(): Promise<void> {
    this.failure ??= new DeviceError('wasm: the target is closed')
  }
}
