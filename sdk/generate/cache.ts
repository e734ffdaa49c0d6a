import type { TensorType } from '../dtype.ts'
import type { Graph } from '../graph/graph.ts'
import { cacheName } from '../model/decoder.ts'
import type { Model } from '../model/model.ts'
import { Programs } from '../model/programs.ts'
import type { Buffer, Executable } from '../target.ts'

/** Capacities come in buckets, so that a growing chat recompiles rarely. */
const capacityFor = (positions: number): number => {
  let capacity = 256
  while (capacity < positions) capacity *= 2
  return capacity
}

/** Keys and values of S sequences, [S, capacity, G*D] for each layer, and the Programs that are bound to them. */
export class KeyValueCache {
  readonly slots: number
  private readonly model: Model
  private buffers: Record<string, Buffer> = {}
  private readonly programs: Programs
  capacity = 0

  constructor(model: Model, slots: number) {
    this.model = model
    this.slots = slots
    this.programs = new Programs(model)
  }

  get type(): TensorType {
    const { numKeyValueHeads, headDim } = this.model.config
    return { dtype: 'f32', shape: [this.slots, this.capacity, numKeyValueHeads * headDim] }
  }

  /** Makes room for `positions` a slot; what is cached stays. */
  async reserve(positions: number): Promise<void> {
    if (positions <= this.capacity) return
    const old = { buffers: this.buffers, bytes: this.capacity * this.type.shape[2] * 4 }
    this.programs.clear()
    this.capacity = Math.min(capacityFor(positions), this.model.config.maxPositionEmbeddings)
    const bytes = this.capacity * this.type.shape[2] * 4
    this.buffers = {}
    for (let layer = 0; layer < this.model.config.numHiddenLayers; layer++)
      for (const part of ['k', 'v'] as const) {
        const name = cacheName(part, layer)
        this.buffers[name] = this.model.target.create(this.type, name)
        if (!old.buffers[name]) continue
        for (let slot = 0; slot < this.slots; slot++) {
          const kept = await this.model.target.read(old.buffers[name], slot * old.bytes, old.bytes)
          await this.model.target.write(this.buffers[name], new Uint8Array(kept), slot * bytes)
        }
        this.model.target.free(old.buffers[name])
      }
  }

  /** The Program under `key`, compiled at the first call and again after the adapters' shapes changed. */
  program(key: string, build: (g: Graph) => void): Promise<Executable> {
    return this.programs.get(key, build, this.buffers)
  }

  free(): void {
    this.programs.clear()
    for (const buffer of Object.values(this.buffers)) this.model.target.free(buffer)
    this.buffers = {}
    this.capacity = 0
  }
}
