import { byteLength, elementCount, sameShape } from '../dtype.ts'
import { FormatError, OptionError } from '../errors.ts'
import { type LoraConfig, loraConfig } from '../formats/lora-config.ts'
import type { PeftAdapter, PeftTensor } from '../formats/peft.ts'
import { fillOptions } from '../option-table.ts'
import { toFloats } from '../quant/convert.ts'
import { fillUniform, nameCounter } from '../random.ts'
import { turn } from '../turn.ts'
import { type Adapter, type AdapterModule, adaptable } from './adapter.ts'
import type { ModelConfig } from './config.ts'
import { checkTrainable, resolveTargets, savedWeights } from './lora-targets.ts'
import type { Model } from './model.ts'
import { embeddingModule, embeddingName, outputModule, outputName } from './names.ts'

/**
 * A fresh adapter as PEFT initializes it: A uniform in ±1/sqrt(in), B zero, DoRA's magnitude the row norms of the base weight,
 * modules_to_save copies of the base weights. The numbers depend on the seed, the module's path and its shape alone.
 *
 * @throws OptionError for numbers out of range and for targets that the model does not have
 */
export async function createAdapter(
  name: string,
  given: Partial<LoraConfig>,
  model: Model,
  seed: number,
): Promise<Adapter> {
  const config = fillOptions(loraConfig, given, 'peft')
  const shapes = adaptable(model.config)
  const modules = new Map<string, AdapterModule>()
  const targets = resolveTargets(config, model.config)
  checkTrainable(targets.keys())
  for (const [path, { rank, alpha }] of targets) {
    await turn()
    const [output, input] = shapes.get(path)!
    const a = new Float32Array(rank * input)
    const bound = 1 / Math.sqrt(input)
    fillUniform(a, -bound, bound, seed, nameCounter(path))
    const magnitude = config.useDora ? rowNorms(await readWeight(model, `${path}.weight`), input) : undefined
    const b = new Float32Array(output * rank)
    modules.set(path, { rank, scale: scaleOf(config, rank, alpha), a, b, ...(magnitude && { magnitude }) })
  }
  const saved = new Map<string, Float32Array>()
  for (const key of savedWeights(config, model.config).keys())
    saved.set(key, await readWeight(model, model.weights.has(key) ? key : embeddingName))
  return { name, config, modules, saved, tables: new Map() }
}

const scaleOf = (config: LoraConfig, rank: number, alpha: number): number =>
  alpha / (config.useRslora ? Math.sqrt(rank) : rank)

/** L2 norm of each row of w [O, I]. */
function rowNorms(w: Float32Array, input: number): Float32Array {
  return Float32Array.from({ length: w.length / input }, (_, o) => {
    let squares = 0
    for (let i = o * input; i < (o + 1) * input; i++) squares += w[i] * w[i]
    return Math.sqrt(squares)
  })
}

/** A base weight as f32, read back from the target and dequantized. */
export async function readWeight(model: Model, name: string): Promise<Float32Array> {
  const type = model.weights.get(name)!
  const bytes = await model.target.read(model.buffer(name, type), 0, byteLength(type))
  return toFloats(new Uint8Array(bytes), type.dtype)
}

const prefix = 'base_model.model.'
const keyA = (path: string) => `${prefix}${path}.lora_A.weight`
const keyB = (path: string) => `${prefix}${path}.lora_B.weight`
const keyMagnitude = (path: string) => `${prefix}${path}.lora_magnitude_vector.weight`

const embeddingKey = (factor: 'A' | 'B') => `${prefix}${embeddingModule}.lora_embedding_${factor}`

/** A matrix of so many columns, the other way round. */
function transposed(data: Float32Array, columns: number): Float32Array {
  const rows = data.length / columns
  const out = new Float32Array(data.length)
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) out[j * rows + i] = data[i * columns + j]
  return out
}

/**
 * An adapter of the numbers that PEFT saved.
 *
 * @param file named in errors
 * @throws FormatError naming the tensor when the adapter does not fit the model or its own config
 */
export function adapterFromPeft(
  name: string,
  config: LoraConfig,
  tensors: ReadonlyMap<string, PeftTensor>,
  c: ModelConfig,
  file: string,
): Adapter {
  const of = config.baseModel ? ` (it was made for ${config.baseModel})` : ''
  const remedy = `this adapter belongs to another model${of} or to another adapter_config.json`
  const left = new Set(tensors.keys())
  const take = (key: string, shape: readonly number[], older = key): Float32Array => {
    const found = tensors.has(key) ? key : older
    const tensor = tensors.get(found)
    if (!tensor) throw new FormatError(`${file}: ${key} [${shape.join(', ')}] is missing: ${remedy}`)
    if (!sameShape(tensor.shape, shape) || tensor.data.length !== elementCount(shape))
      throw new FormatError(
        `${file}: ${found}: expected [${shape.join(', ')}], got [${tensor.shape.join(', ')}]: ${remedy}`,
      )
    left.delete(found)
    return tensor.data
  }
  const { targets, whole } = resolveFor(config, c, file)
  const shapes = adaptable(c)
  const table = [c.vocabSize, c.hiddenSize] as const
  const modules = new Map<string, AdapterModule>()
  for (const [path, { rank, alpha }] of targets) {
    const scale = scaleOf(config, rank, alpha)
    if (path === embeddingModule) {
      if (config.useDora)
        throw new FormatError(`${file}: use_dora for ${path} is not supported: merge the adapter with PEFT`)
      // PEFT looks up the columns of A.
      const a = transposed(take(embeddingKey('B'), [c.hiddenSize, rank]), rank)
      const b = transposed(take(embeddingKey('A'), [rank, c.vocabSize]), c.vocabSize)
      modules.set(path, { rank, scale, a, b })
      continue
    }
    const [output, input] = shapes.get(path) ?? table
    const a = take(keyA(path), [rank, input])
    const b = take(keyB(path), [output, rank])
    const magnitude = config.useDora
      ? take(keyMagnitude(path), [output], `${prefix}${path}.lora_magnitude_vector`)
      : undefined
    modules.set(path, { rank, scale, a, b, ...(magnitude && { magnitude }) })
  }
  const saved = new Map<string, Float32Array>()
  for (const [key, shape] of whole) saved.set(key, take(`${prefix}${key}`, shape))
  const tables = new Map<string, Float32Array>()
  for (const module of [embeddingModule, outputModule]) {
    const [key, at] = [`${module}.weight`, prefix + module]
    if (saved.has(key)) {
      // Of a resized vocabulary PEFT writes the copy twice, and what it was copied from.
      left.delete(`${at}.original_module.weight`)
      left.delete(`${at}.modules_to_save.weight`)
      continue
    }
    const found = [`${at}.base_layer.weight`, `${at}.weight`].find((name) => tensors.has(name))
    if (found === undefined) continue
    const rows = tensors.get(found)!.shape[0]
    if (rows !== c.vocabSize)
      throw new FormatError(
        `${file}: ${found}: expected [${table.join(', ')}], got [${tensors.get(found)!.shape.join(', ')}]: it was trained with ${rows} tokens: resize the model's vocabulary and save it first${of}`,
      )
    tables.set(key, take(found, table))
  }
  const own = tables.get(embeddingName)
  if (own && c.tieWordEmbeddings && !tables.has(outputName) && !saved.has(outputName)) tables.set(outputName, own)
  const [extra] = left
  if (extra !== undefined)
    throw new FormatError(
      `${file}: ${extra} [${tensors.get(extra)!.shape.join(', ')}]${left.size > 1 ? ` and ${left.size - 1} more` : ''}: no place in this model that its config targets: ${remedy}`,
    )
  return { name, config, modules, saved, tables }
}

/** What the config of a file targets; what is wrong with it is wrong with the file. */
function resolveFor(config: LoraConfig, c: ModelConfig, file: string) {
  try {
    return { targets: resolveTargets(config, c), whole: savedWeights(config, c) }
  } catch (cause) {
    if (!(cause instanceof OptionError)) throw cause
    throw new FormatError(`${file}: ${cause.message}`, { cause })
  }
}

/** The adapter under PEFT's keys, for `writeAdapterFiles`. 'all-linear' becomes a list of names, as PEFT writes it. */
export function adapterToPeft(adapter: Adapter, c: ModelConfig): PeftAdapter {
  const tensors = new Map<string, PeftTensor>()
  const shapes = adaptable(c)
  const table = [c.vocabSize, c.hiddenSize] as const
  for (const [path, { rank, a, b, magnitude }] of adapter.modules) {
    if (path === embeddingModule) {
      tensors.set(embeddingKey('A'), { shape: [rank, c.vocabSize], data: transposed(b, rank) })
      tensors.set(embeddingKey('B'), { shape: [c.hiddenSize, rank], data: transposed(a, c.hiddenSize) })
      continue
    }
    const [output, input] = shapes.get(path) ?? table
    tensors.set(keyA(path), { shape: [rank, input], data: a })
    tensors.set(keyB(path), { shape: [output, rank], data: b })
    if (magnitude) tensors.set(keyMagnitude(path), { shape: [output], data: magnitude })
  }
  const whole = savedWeights(adapter.config, c)
  for (const [key, data] of adapter.saved) tensors.set(`${prefix}${key}`, { shape: whole.get(key)!, data })
  for (const [key, data] of adapter.tables) {
    if (key === outputName && data === adapter.tables.get(embeddingName)) continue
    const module = key.replace(/\.weight$/, '')
    const name = adapter.modules.has(module) ? `${module}.base_layer.weight` : key
    tensors.set(`${prefix}${name}`, { shape: table, data })
  }
  return { config: { ...adapter.config, targetModules: namedTargets(adapter.config, c) }, tensors }
}

function namedTargets({ targetModules }: LoraConfig, c: ModelConfig): readonly string[] | string {
  if (typeof targetModules !== 'string' || targetModules.toLowerCase() !== 'all-linear') return targetModules
  return [...new Set([...adaptable(c).keys()].map((path) => path.slice(path.lastIndexOf('.') + 1)))]
}
