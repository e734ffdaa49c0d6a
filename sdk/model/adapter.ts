import type { LoraConfig } from '../formats/peft.ts'
import type { ModelConfig } from './config.ts'
import type { AdapterStructure } from './decoder.ts'
import { layerName, linearModules } from './names.ts'

export type { LoraConfig } from '../formats/peft.ts'

/** One adapted linear module: the update is alpha/r·BA (rsLoRA: alpha/sqrt(r)). */
export interface AdapterModule {
  readonly rank: number
  readonly scale: number
  /** [rank, in] */
  readonly a: Float32Array
  /** [out, rank] */
  readonly b: Float32Array
  /** [out], DoRA only */
  readonly magnitude?: Float32Array
}

/** An adapter on the host, with the numbers as PEFT stores them (ranks not padded). */
export interface Adapter {
  readonly name: string
  readonly config: LoraConfig
  /** By module path, `model.layers.0.self_attn.q_proj`. */
  readonly modules: ReadonlyMap<string, AdapterModule>
  /** modules_to_save: whole weights by checkpoint name. */
  readonly saved: ReadonlyMap<string, Float32Array>
}

/** Paths of all linear modules that an adapter may target: [out, in] by path. */
export function adaptable(c: ModelConfig): Map<string, readonly [out: number, input: number]> {
  const paths = new Map<string, readonly [number, number]>()
  for (let layer = 0; layer < c.numHiddenLayers; layer++)
    for (const [module, shape] of linearModules(c)) paths.set(`${layerName(layer)}.${module}`, shape)
  return paths
}

/** Ranks are padded with zeros to a bucket, so that swapping adapters recompiles nothing. */
export const paddedRank = (rank: number): number => {
  let bucket = 8
  while (bucket < rank) bucket *= 2
  return bucket
}

export function structureOf(adapter: Adapter, slot: number): AdapterStructure {
  const modules = [...adapter.modules].map(
    ([path, m]) => [path, { rank: paddedRank(m.rank), dora: m.magnitude !== undefined }] as const,
  )
  return { prefix: `adapter/${slot}`, modules: new Map(modules), saved: [...adapter.saved.keys()], trainable: false }
}

export const sameStructure = (a: AdapterStructure, b: AdapterStructure): boolean => key(a) === key(b)

const key = (s: AdapterStructure): string => JSON.stringify([[...s.modules], s.saved])

/** The buffers of an adapter in its slot: name under the slot's prefix, shape, numbers (padded). */
export function adapterBuffers(
  adapter: Adapter,
  shapes: ReadonlyMap<string, readonly number[]>,
): Map<string, { shape: readonly number[]; data: Float32Array }> {
  const buffers = new Map<string, { shape: readonly number[]; data: Float32Array }>()
  for (const [path, m] of adapter.modules) {
    const rank = paddedRank(m.rank)
    const [output, input] = [m.b.length / m.rank, m.a.length / m.rank]
    const a = new Float32Array(rank * input)
    a.set(m.a)
    const b = new Float32Array(output * rank)
    for (let o = 0; o < output; o++) b.set(m.b.subarray(o * m.rank, (o + 1) * m.rank), o * rank)
    buffers.set(`${path}.lora_A`, { shape: [rank, input], data: a })
    buffers.set(`${path}.lora_B`, { shape: [output, rank], data: b })
    buffers.set(`${path}.scale`, { shape: [1], data: Float32Array.of(m.scale) })
    if (m.magnitude) buffers.set(`${path}.lora_magnitude_vector`, { shape: [output], data: m.magnitude })
  }
  for (const [name, data] of adapter.saved) {
    // A tied model has no output layer of its own, an adapter may.
    const shape = shapes.get(name) ?? shapes.get('model.embed_tokens.weight')!
    buffers.set(name, { shape, data })
  }
  return buffers
}

/** The reverse of `adapterBuffers`: takes the padding off numbers read back from the target. */
export function withNumbers(adapter: Adapter, read: (name: string) => Float32Array): Adapter {
  const modules = new Map(
    [...adapter.modules].map(([path, m]) => {
      const rank = paddedRank(m.rank)
      const [output, input] = [m.b.length / m.rank, m.a.length / m.rank]
      const padded = read(`${path}.lora_B`)
      const b = new Float32Array(output * m.rank)
      for (let o = 0; o < output; o++) b.set(padded.subarray(o * rank, o * rank + m.rank), o * m.rank)
      const a = read(`${path}.lora_A`).slice(0, m.rank * input)
      return [path, { ...m, a, b, ...(m.magnitude && { magnitude: read(`${path}.lora_magnitude_vector`) }) }] as const
    }),
  )
  return { ...adapter, modules, saved: new Map([...adapter.saved.keys()].map((name) => [name, read(name)])) }
}
