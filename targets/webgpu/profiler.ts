import type { KernelProfile } from '../../sdk/target.ts'
import { type DeviceMemory, usage } from './memory.ts'
import type { Work } from './work.ts'

/** Sums up what timestamps say of each kernel. Each dispatch is a pass of its own meanwhile. */
export class Profiler {
  readonly set: GPUQuerySet
  private readonly memory: DeviceMemory
  private readonly resolved: GPUBuffer
  private readonly kernels = new Map<string, { -readonly [K in keyof KernelProfile]: KernelProfile[K] }>()

  /** `most`: dispatches of one submit. */
  constructor(device: GPUDevice, memory: DeviceMemory, most: number) {
    this.memory = memory
    this.set = device.createQuerySet({ type: 'timestamp', count: 2 * most })
    this.resolved = memory.allocate(16 * most, 'timestamps', usage.query | usage.copySource)
  }

  /** The pass of the submit's dispatch i. */
  pass(i: number): GPUComputePassDescriptor {
    const [beginningOfPassWriteIndex, endOfPassWriteIndex] = [2 * i, 2 * i + 1]
    return { timestampWrites: { querySet: this.set, beginningOfPassWriteIndex, endOfPassWriteIndex } }
  }

  resolve(encoder: GPUCommandEncoder, dispatches: number): void {
    encoder.resolveQuerySet(this.set, 0, 2 * dispatches, this.resolved, 0)
  }

  /** After the submit. `share`: of the dispatch's groups. */
  async add(dispatches: readonly { readonly label: string; readonly work: Work; readonly share: number }[]) {
    const [bytes] = await this.memory.read([[this.resolved, 0, 16 * dispatches.length]])
    const times = new BigUint64Array(bytes)
    for (const [i, { label, work, share }] of dispatches.entries()) {
      let sum = this.kernels.get(label)
      if (!sum) {
        const operations = work.operations === null ? null : 0
        sum = { kernel: label, calls: 0, milliseconds: 0, bytes: 0, operations }
        this.kernels.set(label, sum)
      }
      sum.calls += share
      sum.milliseconds += Number(times[2 * i + 1] - times[2 * i]) / 1e6
      sum.bytes += share * work.bytes
      if (sum.operations !== null) sum.operations += share * (work.operations ?? 0)
    }
  }

  /** The slowest first. */
  end(): KernelProfile[] {
    this.set.destroy()
    this.memory.free(this.resolved)
    const all = [...this.kernels.values()].map((sum) => ({ ...sum, calls: Math.round(sum.calls) }))
    return all.sort((a, b) => b.milliseconds - a.milliseconds)
  }
}
