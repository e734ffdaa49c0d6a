import { megabytes } from '../bytes.ts'
import { byteLength, describe, type FloatDType, type TensorType } from '../dtype.ts'
import { DeviceLostError, MemoryError, OptionError } from '../errors.ts'
import type { StoredTensor } from '../formats/safetensors.ts'
import { convertedChunks, layoutOf, storedChunks } from '../formats/stored.ts'
import { Graph } from '../graph/graph.ts'
import { bindings, toProgram } from '../graph/program.ts'
import type { Buffer, Executable, Target } from '../target.ts'
import { type Adapter, adapterBuffers, sameStructure, structureOf, withNumbers } from './adapter.ts'
import type { ModelConfig, Rope } from './config.ts'
import type { AdapterStructure, DecoderContext } from './decoder.ts'
import { surviving } from './lost.ts'
import { merged } from './merge.ts'
import { embeddingName, findWeights } from './names.ts'
import { ropeTable } from './rope.ts'
import { roundedAgain, weightDType } from './weight-dtype.ts'

/** Told after each piece of a tensor that is loaded. */
export interface LoadProgress {
  /** The tensor's. */
  readonly name: string
  /** Bytes on the device so far; of `totalBytes` in all. */
  readonly loadedBytes: number
  readonly totalBytes: number
}

/** How weights are loaded. */
export interface ModelOptions {
  /** How weights lie in memory; default `auto`. Training of the full model needs f32. */
  readonly dtype?: 'auto' | FloatDType
  readonly onProgress?: (progress: LoadProgress) => void
  /** Told what of the weights is rounded though the files have it quantized already. Default console.warn. */
  readonly onWarning?: (message: string) => void
  /** Looked at after each piece; loading throws the signal's reason. */
  readonly signal?: AbortSignal
}

/** Where a lost device's successor and its weights come from. */
export interface ModelSourceAgain {
  openTarget(): Promise<Target>
  /** The same tensors as at first. */
  openTensors(): Promise<ReadonlyMap<string, StoredTensor>>
  /** Told when another device has taken over. */
  onDeviceLost?(): void
}

/** Tries to go on with another device, one after the other, before giving up. */
const attempts = 3

/** Weights, state and adapters of one decoder on one target, bound to Programs by name. */
export class Model {
  readonly config: ModelConfig
  /** null: a lost device is the end of it. */
  again: ModelSourceAgain | null = null
  /** While it trains the trainer alone goes on after a lost device: it knows what the adapter was. */
  isTraining = false
  private device: Target
  private recovering: Promise<void> | null = null
  /** Types of the base weights by name. */
  readonly weights = new Map<string, TensorType & { readonly dtype: FloatDType }>()
  /** Adapters on the host, by name; the numbers of an active one are in its slot's buffers. */
  readonly adapters = new Map<string, Adapter>()
  private slots: { names: readonly string[]; structure: AdapterStructure }[] = []
  private readonly buffers = new Map<string, Buffer>()
  /** Of the layers, those that differ. */
  private readonly ropes: readonly Rope[]
  /** Rotary tables that programs ask for, by name: constants, made when the first of them is compiled. */
  private readonly ropeTables = new Map<string, Rope>()
  /** Positions that the tables of new programs have: those of the longest program so far, in buckets. */
  private positions = 256
  /** Grows whenever buffers that programs are bound to go away. */
  version = 0
  /** Grows whenever weights or adapters get other numbers: what was computed with the old ones is stale. */
  numbersVersion = 0

  private constructor(target: Target, config: ModelConfig) {
    this.device = target
    this.config = config
    this.ropes = [...new Set(config.layers.flatMap(({ rope }) => rope ?? []))]
  }

  /** Another one after the device was lost. */
  get target(): Target {
    return this.device
  }

  get weightBytes(): number {
    return [...this.weights.values()].reduce((sum, type) => sum + byteLength(type), 0)
  }

  /**
   * Loads every weight of the config from `tensors` onto the target, converting to the wanted dtype.
   *
   * @param file named in errors
   * @throws FormatError for a missing or misshapen tensor, MemoryError when the target cannot hold them
   */
  static async load(
    target: Target,
    config: ModelConfig,
    tensors: ReadonlyMap<string, StoredTensor>,
    file: string,
    { dtype = 'auto', onProgress, onWarning = console.warn, signal }: ModelOptions = {},
  ): Promise<Model> {
    const model = new Model(target, config)
    const weights = findWeights(config, tensors, file)
    const rounded = roundedAgain(weights, dtype)
    if (rounded) onWarning(`${file}: ${rounded}; without dtype its own types are kept`)
    for (const [name, stored] of weights)
      model.weights.set(name, { dtype: weightDType(name, stored, dtype), shape: stored.shape })
    const totalBytes = model.weightBytes
    if (totalBytes > target.info.memoryLimit)
      throw new MemoryError(
        `${file}: weights need ${megabytes(totalBytes)}, ${target.name} has ${megabytes(target.info.memoryLimit)} (load as q8 or q4)`,
      )
    try {
      await model.readWeights(tensors, (name, loadedBytes) => {
        onProgress?.({ name, loadedBytes, totalBytes })
        signal?.throwIfAborted()
      })
      return model
    } catch (error) {
      model.free()
      throw error
    }
  }

  /** Writes every weight to the target, a piece at a time: blocks that it does not take itself are converted here. */
  private async readWeights(
    tensors: ReadonlyMap<string, StoredTensor>,
    onPiece: (name: string, loadedBytes: number) => void,
  ): Promise<void> {
    let loadedBytes = 0
    for (const [name, type] of this.weights) {
      const { dtype } = type
      const stored = tensors.get(name)!
      const buffer = this.buffer(name, type)
      const isTaken = this.target.conversions?.includes(`${stored.dtype}_${dtype}`)
      const blocks = isTaken ? { type: stored.dtype, ...layoutOf(stored.dtype) } : undefined
      let at = 0
      for await (const bytes of blocks ? storedChunks(stored) : convertedChunks(stored, dtype)) {
        await this.target.write(buffer, bytes, at, blocks)
        const written = blocks
          ? byteLength({ dtype, shape: [(bytes.length / blocks.bytes) * blocks.elements] })
          : bytes.length
        at += written
        loadedBytes += written
        onPiece(name, loadedBytes)
      }
    }
  }

  /**
   * After `error` on `device`: opens another device, reads the weights again and puts the adapters there as the host has them. What
   * else was on the device is gone. Throws the error where it is no DeviceLostError, or nothing can be done about it.
   */
  async recover(error: unknown, device: Target): Promise<void> {
    if (!(error instanceof DeviceLostError) || !this.again) throw error
    // Others were faster.
    if (this.device !== device && !this.recovering) return
    this.recovering ??= this.reopen(this.again, error).finally(() => {
      this.recovering = null
    })
    await this.recovering
  }

  private async reopen(again: ModelSourceAgain, error: DeviceLostError): Promise<void> {
    let last: unknown = error
    for (let attempt = 0; attempt < attempts; attempt++)
      try {
        void this.device.close().catch(() => {})
        this.device = await again.openTarget()
        this.buffers.clear()
        this.version++
        this.numbersVersion++
        await this.readWeights(await again.openTensors(), () => {})
        await this.writeSlots()
        again.onDeviceLost?.()
        return
      } catch (cause) {
        last = cause
        if (!(cause instanceof DeviceLostError)) break
      }
    throw new DeviceLostError(`${error.message}; going on with another device failed: ${(last as Error).message}`, {
      cause: last,
    })
  }

  /** The buffer bound under a name; created zero-filled at the first call. */
  buffer(name: string, type: TensorType): Buffer {
    const known = this.buffers.get(name)
    if (known) {
      if (describe(known.type) !== describe(type))
        throw new OptionError(`${name}: bound as ${describe(known.type)}, asked for as ${describe(type)}`)
      return known
    }
    const made = this.target.create(type, name)
    this.buffers.set(name, made)
    return made
  }

  release(name: string): void {
    const known = this.buffers.get(name)
    if (!known) return
    this.target.free(known)
    this.buffers.delete(name)
    this.version++
  }

  /** What the decoder's graph needs to know now: the active adapters, none of them trainable. */
  context(): DecoderContext {
    return {
      config: this.config,
      weights: this.weights,
      trainable: new Set(),
      adapters: this.slots.map((slot) => slot.structure),
      ropeTable: (rope, positions) => this.ropeTable(rope, positions),
    }
  }

  private ropeTable(rope: Rope, positions: number): { name: string; type: TensorType } {
    while (this.positions < positions) this.positions *= 2
    const rows = Math.min(this.positions, this.config.maxPositionEmbeddings)
    const name = `rope/${this.ropes.indexOf(rope)}/${rows}`
    this.ropeTables.set(name, rope)
    return { name, type: { dtype: 'f32', shape: [rows, this.config.headDim] } }
  }

  /** Compiles what `build` appends. `bound` overrides the model's own buffers (a KV cache). */
  async compile(
    name: string,
    build: (g: Graph) => void,
    bound: Readonly<Record<string, Buffer>> = {},
  ): Promise<Executable> {
    const g = new Graph()
    build(g)
    const program = toProgram(g, name)
    const all: Record<string, Buffer> = {}
    const tables: string[] = []
    for (const kind of ['weight', 'state'] as const)
      for (const [key, type] of bindings(program, kind)) {
        if (this.ropeTables.has(key) && !this.buffers.has(key)) tables.push(key)
        all[key] = bound[key] ?? this.buffer(key, type)
      }
    const { target } = this
    try {
      for (const key of tables) await target.write(all[key], ropeTable(this.ropeTables.get(key)!, all[key].type))
      return await target.compile(program, all)
    } catch (error) {
      for (const key of tables) this.release(key)
      throw error
    }
  }

  readFloats(name: string): Promise<Float32Array> {
    return surviving(this, async () => {
      const buffer = this.buffers.get(name)
      if (!buffer) throw new OptionError(`${name}: the model is closed, or was never given it`)
      return new Float32Array(await this.target.read(buffer))
    })
  }

  get activeAdapters(): readonly string[] {
    return this.slots.flatMap(({ names }) => (names.length === 1 ? names : []))
  }

  /** Adapters that rows choose from, by their index here. */
  get adaptersByRow(): readonly string[] {
    return this.slots.find(({ names }) => names.length > 1)?.names ?? []
  }

  /** Makes the named adapters active, in this order; an empty list disables all. Same shapes: buffers are written, nothing recompiles. */
  setAdapters(names: readonly string[]): Promise<void> {
    return this.fillSlots(names.map((name) => [name]))
  }

  /**
   * Makes adapters ready that each row of a batch chooses from, in place of those that are active for all rows. Throws OptionError for
   * fewer than two, and for DoRA and modules_to_save.
   */
  async setAdaptersByRow(names: readonly string[]): Promise<void> {
    if (names.length < 2)
      throw new OptionError(`adapters by row: ${names.length} given, give two or more, or setAdapters`)
    await this.fillSlots([names])
  }

  private async fillSlots(all: readonly (readonly string[])[]): Promise<void> {
    for (const name of all.flat())
      if (!this.adapters.has(name))
        throw new OptionError(
          `adapter "${name}" is not loaded (loaded: ${[...this.adapters.keys()].join(', ') || 'none'})`,
        )
    await this.pullAdapters()
    const wanted = all.map((names, slot) => ({ names, structure: structureOf(this.named(names), slot) }))
    const changed = (slot: number) =>
      !this.slots[slot] || !wanted[slot] || !sameStructure(this.slots[slot].structure, wanted[slot].structure)
    for (let slot = 0; slot < this.slots.length; slot++)
      if (changed(slot))
        for (const name of [...this.buffers.keys()])
          if (name.startsWith(`${this.slots[slot].structure.prefix}/`)) this.release(name)
    if (this.slots.length !== wanted.length) this.version++
    this.slots = wanted
    await surviving(this, () => this.writeSlots())
  }

  /** Swaps the numbers of a loaded adapter for others of the same shapes, on the host and in its slot. */
  async replaceAdapter(adapter: Adapter): Promise<void> {
    const slot = this.slots.find((s) => s.names.includes(adapter.name))
    const others = this.named(slot?.names ?? []).filter(({ name }) => name !== adapter.name)
    if (slot && !sameStructure(slot.structure, structureOf([adapter, ...others], 0)))
      throw new OptionError(
        `adapter "${adapter.name}": the new numbers have other shapes (was it made with other ranks or targets?)`,
      )
    this.adapters.set(adapter.name, adapter)
    if (slot) await surviving(this, () => this.writeSlot(slot))
  }

  /** Brings the numbers of the active adapters back to the host (they may have been trained). */
  async pullAdapters(): Promise<void> {
    for (const { names, structure } of this.slots) {
      if (names.length > 1) continue
      const adapter = this.adapters.get(names[0])!
      const numbers = new Map<string, Float32Array>()
      for (const key of adapterBuffers([adapter], structure, this.shapes()).keys())
        numbers.set(key, await this.readFloats(`${structure.prefix}/${key}`))
      this.adapters.set(
        adapter.name,
        withNumbers(adapter, (key) => numbers.get(key)!),
      )
    }
  }

  private named(names: readonly string[]): Adapter[] {
    return names.map((name) => this.adapters.get(name)!)
  }

  private async writeSlots(): Promise<void> {
    for (const slot of this.slots) await this.writeSlot(slot)
  }

  private async writeSlot({ names, structure }: Model['slots'][number]): Promise<void> {
    this.numbersVersion++
    for (const [key, { shape, data }] of adapterBuffers(this.named(names), structure, this.shapes()))
      await this.target.write(this.buffer(`${structure.prefix}/${key}`, { dtype: 'f32', shape }), data)
    const { shape } = this.weights.get(embeddingName)!
    for (const name of structure.frozen)
      await this.target.write(
        this.buffer(`${structure.prefix}/${name}`, { dtype: 'f32', shape }),
        await merged(this, name),
      )
  }

  private shapes(): Map<string, readonly number[]> {
    return new Map([...this.weights].map(([name, type]) => [name, type.shape]))
  }

  free(): void {
    for (const name of [...this.buffers.keys()]) this.release(name)
  }
}
