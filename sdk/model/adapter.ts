import { OptionError } from '../errors.ts'
import type { LoraConfig } from '../formats/lora-config.ts'
import type { ModelConfig } from './config.ts'
import type { AdapterStructure } from './decoder.ts'
import { embeddingName, isTable, layerName, linearModules } from './names.ts'

export type { LoraConfig } from '../formats/lora-config.ts'

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
  /**
   * The model's own tables that the file has beside the adapter (save_embedding_layers): they replace the model's, and do not
   * train. Of a tied model one array is both.
   */
  readonly tables: ReadonlyMap<string, Float32Array>
}

/** The path of a module that is a table of the vocabulary: its update is merged into the table, [V, C], when the adapter is set. */
export const isTableModule = (path: string): boolean => isTable(`${path}.weight`)

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

/**
 * What a graph needs to know of adapters in one slot: of a single one, or of several that rows choose from. Those have one rank, the
 * largest, and no weights beside low-rank updates. Throws OptionError.
 */
export function structureOf(adapters: readonly Adapter[], slot: number): AdapterStructure {
  const byRow = adapters.length > 1
  const modules = new Map<string, { rank: number; dora: boolean }>()
  const frozen = adapters.flatMap(frozenTables)
  for (const { name, modules: own, saved } of adapters) {
    if (byRow && (saved.size + frozen.length > 0 || [...own.values()].some((m) => m.magnitude)))
      throw new OptionError(
        `adapter "${name}": DoRA and modules_to_save, like tables of the vocabulary, are for all rows, not for some: merge it, or use it alone`,
      )
    for (const [path, m] of own) {
      if (isTableModule(path)) continue
      const rank = Math.max(paddedRank(m.rank), modules.get(path)?.rank ?? 0)
      modules.set(path, { rank, dora: m.magnitude !== undefined })
    }
  }
  const saved = adapters.flatMap((adapter) => [...adapter.saved.keys()])
  return { prefix: `adapter/${slot}`, count: adapters.length, modules, saved, frozen, trainable: false }
}

/** The tables that an adapter changes and does not train. */
function frozenTables({ modules, saved, tables }: Adapter): string[] {
  const own = [...modules.keys()].filter(isTableModule).map((path) => `${path}.weight`)
  const names = new Set([...own, ...tables.keys()])
  return [...names].filter((name) => !saved.has(name)).sort()
}

export const sameStructure = (a: AdapterStructure, b: AdapterStructure): boolean => key(a) === key(b)

const key = (s: AdapterStructure): string => JSON.stringify([s.count, [...s.modules], s.saved, s.frozen])

/**
 * The buffers of a slot: name under its prefix, shape, numbers. Ranks are padded, and adapters that rows choose from lie one below
 * the other; where one of them has no update its numbers are zeros.
 */
export function adapterBuffers(
  adapters: readonly Adapter[],
  { modules }: AdapterStructure,
  shapes: ReadonlyMap<string, readonly number[]>,
): Map<string, { shape: readonly number[]; data: Float32Array }> {
  const n = adapters.length
  const buffers = new Map<string, { shape: readonly number[]; data: Float32Array }>()
  for (const [path, { rank }] of modules) {
    const one = adapters.find((adapter) => adapter.modules.has(path))!.modules.get(path)!
    const [output, input] = [one.b.length / one.rank, one.a.length / one.rank]
    const a = new Float32Array(n * rank * input)
    const b = new Float32Array(n * output * rank)
    const scale = new Float32Array(n)
    for (const [i, adapter] of adapters.entries()) {
      const m = adapter.modules.get(path)
      if (!m) continue
      a.set(m.a, i * rank * input)
      for (let o = 0; o < output; o++) b.set(m.b.subarray(o * m.rank, (o + 1) * m.rank), (i * output + o) * rank)
      scale[i] = m.scale
      if (m.magnitude) buffers.set(`${path}.lora_magnitude_vector`, { shape: [output], data: m.magnitude })
    }
    buffers.set(`${path}.lora_A`, { shape: [n * rank, input], data: a })
    buffers.set(`${path}.lora_B`, { shape: [n * output, rank], data: b })
    buffers.set(`${path}.scale`, { shape: [n], data: scale })
  }
  for (const [name, data] of adapters.flatMap(({ saved }) => [...saved])) {
    // A tied model has no output layer of its own, an adapter may.
    const shape = shapes.get(name) ?? shapes.get(embeddingName)!
    buffers.set(name, { shape, data })
  }
  return buffers
}

/** The reverse of `adapterBuffers`: takes the padding off numbers read back from the target. */
export function withNumbers(adapter: Adapter, read: (name: string) => Float32Array): Adapter {
  const modules = new Map(
    [...adapter.modules].map(([path, m]) => {
      if (isTableModule(path)) return [path, m] as const
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
