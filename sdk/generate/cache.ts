import { megabytes } from '../bytes.ts'
import { elementCount, sameShape, type TensorType } from '../dtype.ts'
import { MemoryError } from '../errors.ts'
import type { Graph } from '../graph/graph.ts'
import { cacheName } from '../model/decoder.ts'
import type { Model } from '../model/model.ts'
import { type CacheDType, cacheBytes, type Precision } from '../model/precision.ts'
import { Programs } from '../model/programs.ts'
import type { Activations } from '../ops/index.ts'
import type { Buffer, Executable } from '../target.ts'

/** Capacities come in buckets, so that a growing chat recompiles rarely: powers of two, long ones in steps of a half between. */
const capacityFor = (positions: number): number => {
  let capacity = 256
  while (capacity < positions) capacity *= 2
  return capacity > 4096 && 0.75 * capacity >= positions ? 0.75 * capacity : capacity
}

/** Heads of all slots, or slots of the sampler's counts: what grows at its end. */
const rowsOf = ({ shape }: TensorType): number => elementCount(shape.slice(0, Math.max(1, shape.length - 2)))

/** State of the sampler, i32 [slots, vocabulary]: how often tokens were drawn (sdk/ops/sample.ts). */
export const countsName = 'cache/counts'

/** Keys and values of S sequences, [S, G, capacity, D] for each layer, and the Programs that are bound to them. Both S and capacity grow. */
export class KeyValueCache {
  slots: number
  capacity = 0
  /** Of the products of its Programs. */
  readonly activations: Activations
  private readonly model: Model
  private readonly dtype: CacheDType
  private readonly target: Model['target']
  private readonly programs: Programs
  private buffers: Record<string, Buffer> = {}

  constructor(model: Model, slots = 0, { cacheDType = 'f32', exactActivations = false }: Precision = {}) {
    this.model = model
    this.slots = slots
    this.dtype = cacheDType
    this.activations = exactActivations ? 'f32' : 'int8'
    this.target = model.target
    this.programs = new Programs(model)
  }

  get type(): TensorType {
    const { numKeyValueHeads, headDim } = this.model.config
    return { dtype: this.dtype, shape: [this.slots, numKeyValueHeads, this.capacity, headDim] }
  }

  get countsType(): TensorType {
    return { dtype: 'i32', shape: [this.slots, this.model.config.vocabSize] }
  }

  /** Whether its memory went away with a lost device. */
  get isLost(): boolean {
    return this.target !== this.model.target
  }

  /**
   * Makes room for `positions` in each of so many slots; what is cached stays.
   *
   * @throws MemoryError where there is not so much memory: all is as before
   */
  async reserve(positions: number, slots = this.slots): Promise<void> {
    if (positions <= this.capacity && slots <= this.slots) return
    const before = [this.slots, this.capacity] as const
    const wanted = Math.min(capacityFor(positions), this.model.config.maxPositionEmbeddings)
    const after = [Math.max(slots, this.slots), Math.max(this.capacity, wanted)] as const
    this.checkMemory(...after)
    try {
      await this.resize(...after)
    } catch (error) {
      if (error instanceof MemoryError) await this.resize(...before)
      throw error
    }
  }

  private async resize(slots: number, capacity: number): Promise<void> {
    this.programs.clear()
    ;[this.slots, this.capacity] = [slots, capacity]
    for (let layer = 0; layer < this.model.config.numHiddenLayers; layer++)
      for (const part of ['k', 'v'] as const) await this.move(cacheName(part, layer), this.type)
    if (this.buffers[countsName]) await this.move(countsName, this.countsType)
  }

  /** The forecast, before anything is allocated. */
  private checkMemory(slots: number, capacity: number): void {
    const { name, info } = this.target
    const cache = cacheBytes(this.model.config, slots, capacity, this.dtype)
    if (cache + this.model.weightBytes <= info.memoryLimit) return
    throw new MemoryError(
      `the key/value cache of ${slots} slots with ${capacity} positions needs ${megabytes(cache)} in ${this.dtype}, the weights ${megabytes(this.model.weightBytes)}, and ${name} has ${megabytes(info.memoryLimit)} (shorten the prompt, answer fewer at once, or use cacheDType: 'f16')`,
    )
  }

  /** A buffer of another shape in place of one, with what both have room for; none where it has no elements. */
  private async move(name: string, type: TensorType): Promise<void> {
    const old = this.buffers[name]
    if (old && sameShape(old.type.shape, type.shape)) return
    if (elementCount(type.shape) > 0) this.buffers[name] = await this.filled(this.target.create(type, name), old)
    else delete this.buffers[name]
    if (old) this.target.free(old)
  }

  private async filled(made: Buffer, old: Buffer | undefined): Promise<Buffer> {
    try {
      // Memory that could not be had is known once something was written.
      await this.target.write(made, new Uint8Array(4))
      if (!old) return made
      const kept = await this.target.read(old)
      const [before, after] = [old, made].map(({ bytes, type }) => bytes / rowsOf(type))
      for (let row = 0; row < Math.min(rowsOf(old.type), rowsOf(made.type)); row++)
        await this.target.write(made, new Uint8Array(kept, row * before, Math.min(before, after)), row * after)
      return made
    } catch (error) {
      this.target.free(made)
      throw error
    }
  }

  /** Writes what the sampler is to know of the sequence in a slot, i32[V]. */
  async writeCounts(slot: number, counts: Int32Array): Promise<void> {
    this.buffers[countsName] ??= this.target.create(this.countsType, countsName)
    await this.target.write(this.buffers[countsName], counts, slot * counts.byteLength)
  }

  /** The Program under `key`, compiled at the first call and again after the adapters' shapes changed. */
  program(key: string, build: (g: Graph) => void): Promise<Executable> {
    return this.programs.get(key, build, this.buffers)
  }

  free(): void {
    this.programs.clear()
    for (const buffer of Object.values(this.buffers)) this.target.free(buffer)
    this.buffers = {}
    ;[this.slots, this.capacity] = [0, 0]
  }
}
