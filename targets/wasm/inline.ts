import { DeviceError } from '../../sdk/errors.ts'
import type { Call } from './lower/types.ts'
import type { Engine } from './pool.ts'

/** How long the caller's thread is held before its other work gets a turn, in milliseconds. */
const slice = 20

/** The fallback without shared memory: one thread, the caller's own. */
export class InlineEngine implements Engine {
  readonly threads = 1
  readonly threadIds = []
  private readonly kernels: Record<string, (...args: number[]) => void>
  private readonly programs = new Map<number, readonly Call[]>()
  private aborted = false
  private failure: DeviceError | null = null

  constructor(module: WebAssembly.Module, memory: WebAssembly.Memory) {
    const abort = () => {
      throw new Error('kernel assertion')
    }
    const instance = new WebAssembly.Instance(module, { env: { memory, abort } })
    this.kernels = instance.exports as Record<string, (...args: number[]) => void>
  }

  load(id: number, calls: readonly Call[]): void {
    if (this.failure) throw this.failure
    this.programs.set(id, calls)
  }

  unload(id: number): void {
    this.programs.delete(id)
  }

  async run(id: number): Promise<boolean> {
    if (this.failure) throw this.failure
    this.aborted = false
    let turn = performance.now()
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
    return false
  }

  abort(): void {
    this.aborted = true
  }

  async close(): Promise<void> {
    this.failure ??= new DeviceError('wasm: the target is closed')
  }
}
