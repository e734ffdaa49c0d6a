import { byteLength, type DType, describe, type TensorType } from '../dtype.ts'
import { MemoryError, OptionError } from '../errors.ts'
import type { StoredTensor } from '../formats/safetensors.ts'
import { readAs, storedDType } from '../formats/stored.ts'
import { Graph } from '../graph/graph.ts'
import { bindings, type Program, toProgram } from '../graph/program.ts'
import type { Buffer, Executable, Target } from '../target.ts'
import { type Adapter, adapterBuffers, sameStructure, structureOf, withNumbers } from './adapter.ts'
import type { ModelConfig } from './config.ts'
import { type AdapterStructure, type DecoderContext, ropeName } from './decoder.ts'
import { findWeights } from './names.ts'
import { ropeTable } from './rope.ts'

/** `auto` keeps what the file has; q8 and q4 apply to the matrices (q4 keeps the vocabulary table at q8, as llama.cpp does). */
export const weightDTypes = ['auto', 'f32', 'f16', 'bf16', 'q8', 'q4'] as const satisfies ('auto' | DType)[]
export type WeightDType = (typeof weightDTypes)[number]

/** Told after each tensor that is loaded. */
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
  readonly dtype?: WeightDType
  readonly onProgress?: (progress: LoadProgress) => void
  /** Looked at between tensors; loading throws the signal's reason. */
  readonly signal?: AbortSignal
}

/** Weights, state and adapters of one decoder on one target, bound to Programs by name. */
export class Model {
  readonly target: Target
  readonly config: ModelConfig
  /** Types of the base weights (and the rotary table) by name. */
  readonly weights = new Map<string, TensorType>()
  /** Adapters on the host, by name; the numbers of an active one are in its slot's buffers. */
  readonly adapters = new Map<string, Adapter>()
  private slots: { name: string; structure: AdapterStructure }[] = []
  private readonly buffers = new Map<string, Buffer>()
  /** Grows whenever buffers that programs are bound to go away. */
  version = 0
  /** Grows whenever weights or adapters get other numbers: what was computed with the old ones is stale. */
  numbersVersion = 0

  private constructor(target: Target, config: ModelConfig) {
    this.target = target
    this.config = config
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
    { dtype = 'auto', onProgress, signal }: ModelOptions = {},
  ): Promise<Model> {
    const model = new Model(target, config)
    for (const [name, stored] of findWeights(config, tensors, file))
      model.weights.set(name, { dtype: weightDType(name, stored, dtype), shape: stored.shape })
    model.weights.set(ropeName, { dtype: 'f32', shape: [config.maxPositionEmbeddings, config.headDim] })
    const totalBytes = [...model.weights.values()].reduce((sum, type) => sum + byteLength(type), 0)
    if (totalBytes > target.info.memoryLimit)
      throw new MemoryError(
        `${file}: weights need ${megabytes(totalBytes)} MB, ${target.name} has ${megabytes(target.info.memoryLimit)} MB (load as q8 or q4)`,
      )
    try {
      let loadedBytes = 0
      for (const [name, type] of model.weights) {
        signal?.throwIfAborted()
        const data =
          name === ropeName
            ? ropeTable(config, config.maxPositionEmbeddings)
            : await readAs(tensors.get(name)!, type.dtype)
        await target.write(model.buffer(name, type), data)
        loadedBytes += byteLength(type)
        onProgress?.({ name, loadedBytes, totalBytes })
      }
      return model
    } catch (error) {
      model.free()
      throw error
    }
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
    }
  }

  /** Compiles what `build` appends. `bound` overrides the model's own buffers (a KV cache). */
  compile(name: string, build: (g: Graph) => void, bound: Readonly<Record<string, Buffer>> = {}): Promise<Executable> {
    const g = new Graph()
    build(g)
    return this.compileProgram(toProgram(g, name), bound)
  }

  compileProgram(program: Program, bound: Readonly<Record<string, Buffer>> = {}): Promise<Executable> {
    const all: Record<string, Buffer> = {}
    for (const kind of ['weight', 'state'] as const)
      for (const [key, type] of bindings(program, kind)) all[key] = bound[key] ?? this.buffer(key, type)
    return this.target.compile(program, all)
  }

  async readFloats(name: string): Promise<Float32Array> {
    const buffer = this.buffers.get(name)
    if (!buffer) throw new OptionError(`${name}: the model is closed, or was never given it`)
    return new Float32Array(await this.target.read(buffer))
  }

  get activeAdapters(): readonly string[] {
    return this.slots.map((slot) => slot.name)
  }

  /** Makes the named adapters active, in this order; an empty list disables all. Same shapes: buffers are written, nothing recompiles. */
  async setAdapters(names: readonly string[]): Promise<void> {
    for (const name of names)
      if (!this.adapters.has(name))
        throw new OptionError(
          `adapter "${name}" is not loaded (loaded: ${[...this.adapters.keys()].join(', ') || 'none'})`,
        )
    await this.pullAdapters()
    const wanted = names.map((name, slot) => ({ name, structure: structureOf(this.adapters.get(name)!, slot) }))
    const changed = (slot: number) =>
      !this.slots[slot] || !wanted[slot] || !sameStructure(this.slots[slot].structure, wanted[slot].structure)
    for (let slot = 0; slot < this.slots.length; slot++)
      if (changed(slot))
        for (const name of [...this.buffers.keys()])
          if (name.startsWith(`${this.slots[slot].structure.prefix}/`)) this.release(name)
    if (this.slots.length !== wanted.length) this.version++
    this.slots = wanted
    for (const { name, structure } of wanted) await this.writeAdapter(this.adapters.get(name)!, structure.prefix)
  }

  /** Swaps the numbers of a loaded adapter for others of the same shapes, on the host and in its slot. */
  async replaceAdapter(adapter: Adapter): Promise<void> {
    const slot = this.slots.find((s) => s.name === adapter.name)
    if (slot && !sameStructure(slot.structure, structureOf(adapter, 0)))
      throw new OptionError(
        `adapter "${adapter.name}": the new numbers have other shapes (was it made with other ranks or targets?)`,
      )
    this.adapters.set(adapter.name, adapter)
    if (slot) await this.writeAdapter(adapter, slot.structure.prefix)
  }

  /** Brings the numbers of the active adapters back to the host (they may have been trained). */
  async pullAdapters(): Promise<void> {
    for (const { name, structure } of this.slots) {
      const adapter = this.adapters.get(name)!
      const numbers = new Map<string, Float32Array>()
      for (const key of adapterBuffers(adapter, this.shapes()).keys())
        numbers.set(key, await this.readFloats(`${structure.prefix}/${key}`))
      this.adapters.set(
        name,
        withNumbers(adapter, (key) => numbers.get(key)!),
      )
    }
  }

  private async writeAdapter(adapter: Adapter, prefix: string): Promise<void> {
    this.numbersVersion++
    for (const [key, { shape, data }] of adapterBuffers(adapter, this.shapes()))
      await this.target.write(this.buffer(`${prefix}/${key}`, { dtype: 'f32', shape }), data)
  }

  private shapes(): Map<string, readonly number[]> {
    return new Map([...this.weights].map(([name, type]) => [name, type.shape]))
  }

  free(): void {
    for (const name of [...this.buffers.keys()]) this.release(name)
  }
}

const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(0)

/** Vectors are f32; matrices as asked, f16 where a row is no multiple of a block. */
export function weightDType(name: string, stored: StoredTensor, wanted: WeightDType): Exclude<DType, 'i32'> {
  const { shape } = stored
  if (shape.length === 1) return 'f32'
  const table = name === 'model.embed_tokens.weight' || name === 'lm_head.weight'
  const dtype = wanted === 'auto' ? storedDType(stored) : wanted === 'q4' && table ? 'q8' : wanted
  return (dtype === 'q8' || dtype === 'q4') && shape[1] % 32 !== 0 ? 'f16' : dtype
}
