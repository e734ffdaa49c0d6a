import { byteLength, elementCount, type FloatDType, type TensorType, weightDTypes } from '../dtype.ts'
import { HalflingError } from '../errors.ts'
import type { LoraConfig } from '../formats/lora-config.ts'
import type { PeftAdapter } from '../formats/peft.ts'
import type { StoredDType } from '../formats/stored.ts'
import type { StoredModel } from '../formats/stored-model.ts'
import { type ChatTemplate, renderChat } from '../text/chat-template.ts'
import type { Tokenizer } from '../text/tokenizer.ts'
import type { ModelConfig } from './config.ts'
import { embeddingName, findWeights } from './names.ts'
import { cacheBytes } from './precision.ts'
import { weightDType } from './weight-dtype.ts'

/** Weights of one stored type that open in one dtype. */
export interface StoredPart {
  readonly stored: StoredDType
  /** In which it opens unless another is asked for. */
  readonly dtype: FloatDType
  readonly tensors: number
  /** In the file. */
  readonly bytes: number
}

/** What a model takes when it is loaded with a `dtype`. */
export interface DTypeForecast {
  /** `auto`: as it is stored. */
  readonly dtype: (typeof weightDTypes)[number]
  readonly weightBytes: number
  /** Of the keys and values of one conversation of `cacheTokens` tokens. */
  readonly cacheBytes: number
  readonly cacheTokens: number
  /** Bytes of weights that each new token reads, by their dtype. */
  readonly reads: Partial<Readonly<Record<FloatDType, number>>>
}

/** What a model is, before it runs. */
export interface ModelDescription {
  readonly kind: 'model'
  /** As it was asked for. */
  readonly name: string
  /** What the file calls itself; null: nothing. */
  readonly title: string | null
  readonly config: ModelConfig
  readonly parameters: number
  readonly types: readonly StoredPart[]
  readonly contextLength: number
  readonly hasChatTemplate: boolean
  /** What the chat template puts before a first message of the user's; null without a template. */
  readonly opening: string | null
  /** The system message that is in it though nobody gave one; null: none. */
  readonly defaultSystem: string | null
  readonly endTokens: readonly { readonly id: number; readonly text: string }[]
  /** Of the file's metadata, or the folder's README.md or LICENSE; null: unknown. */
  readonly license: string | null
  /** As it is stored, and in each dtype. */
  readonly forecasts: readonly DTypeForecast[]
}

/** What a PEFT adapter is. */
export interface AdapterDescription {
  readonly kind: 'adapter'
  readonly name: string
  readonly config: LoraConfig
  readonly parameters: number
  /** The linear modules that it changes, by the end of their names, and in how many places. */
  readonly modules: Readonly<Record<string, number>>
}

/** A model that was opened, and what was made of its files. */
export interface OpenedModel {
  readonly stored: StoredModel
  readonly config: ModelConfig
  readonly tokenizer: Tokenizer
  readonly template: ChatTemplate | null
  readonly eosTokenIds: ReadonlySet<number>
}

/** Tokens of the conversation that a forecast counts, where the context has so many. */
const conversation = 4096

/** Throws FormatError for a missing or misshapen tensor. */
export function describeOpened(
  name: string,
  { stored, config, tokenizer, template, eosTokenIds }: OpenedModel,
): ModelDescription {
  const weights = findWeights(config, stored.tensors, name)
  const types = new Map<string, StoredPart>()
  for (const [weight, tensor] of weights) {
    const dtype = weightDType(weight, tensor, 'auto')
    const key = `${tensor.dtype} ${dtype}`
    const { tensors, bytes } = types.get(key) ?? { tensors: 0, bytes: 0 }
    types.set(key, { stored: tensor.dtype, dtype, tensors: tensors + 1, bytes: bytes + tensor.bytes })
  }
  const forecasts = weightDTypes.map((dtype) => {
    const all = [...weights].map(([weight, tensor]): [string, TensorType] => [
      weight,
      { dtype: weightDType(weight, tensor, dtype), shape: tensor.shape },
    ])
    return { dtype, ...forecastOf(config, all) }
  })
  return {
    kind: 'model',
    name,
    title: stored.title,
    config,
    parameters: [...weights.values()].reduce((sum, { shape }) => sum + elementCount(shape), 0),
    types: [...types.values()].sort((a, b) => b.bytes - a.bytes),
    contextLength: config.maxPositionEmbeddings,
    hasChatTemplate: template !== null,
    ...openingOf(template),
    endTokens: [...eosTokenIds].map((id) => ({ id, text: tokenizer.idToToken(id) ?? '' })),
    license: stored.license,
    forecasts,
  }
}

function forecastOf(config: ModelConfig, weights: readonly [string, TensorType][]): Omit<DTypeForecast, 'dtype'> {
  const { maxPositionEmbeddings, tieWordEmbeddings } = config
  const cacheTokens = Math.min(conversation, maxPositionEmbeddings)
  const reads: Partial<Record<FloatDType, number>> = {}
  for (const [name, type] of weights) {
    const dtype = type.dtype as FloatDType
    // Of a table that embeds and does nothing else one row is read.
    if (name !== embeddingName || tieWordEmbeddings) reads[dtype] = (reads[dtype] ?? 0) + byteLength(type)
  }
  return {
    weightBytes: weights.reduce((sum, [, type]) => sum + byteLength(type), 0),
    cacheBytes: cacheBytes(config, 1, cacheTokens, 'f32'),
    cacheTokens,
    reads,
  }
}

/** Texts that no template writes by itself. */
const [system, user] = ['(the system message)', '(the first message)']

function openingOf(template: ChatTemplate | null): Pick<ModelDescription, 'opening' | 'defaultSystem'> {
  const message = { role: 'user', content: user }
  const before = (messages: readonly { role: string; content: string }[]): string | null => {
    try {
      const text = renderChat(template!, messages)
      return text.includes(user) ? text.slice(0, text.indexOf(user)) : null
    } catch (error) {
      // A template may refuse a system message.
      if (error instanceof HalflingError) return null
      throw error
    }
  }
  const opening = template && before([message])
  const [head, tail] = (opening !== null && before([{ role: 'system', content: system }, message])?.split(system)) || []
  const isThere =
    head !== undefined &&
    tail !== undefined &&
    opening!.length > head.length + tail.length &&
    opening!.startsWith(head) &&
    opening!.endsWith(tail)
  return { opening, defaultSystem: isThere ? opening!.slice(head.length, -tail.length) : null }
}

/** What an adapter's files say of it. */
export function describeAdapter(name: string, { config, tensors }: PeftAdapter): AdapterDescription {
  const modules: Record<string, number> = {}
  for (const key of tensors.keys()) {
    const module = /([^.]+)\.lora_(?:embedding_)?A(?:\.|$)/.exec(key)?.[1]
    if (module !== undefined) modules[module] = (modules[module] ?? 0) + 1
  }
  const parameters = [...tensors.values()].reduce((sum, { shape }) => sum + elementCount(shape), 0)
  return { kind: 'adapter', name, config, parameters, modules }
}
