import { type DeviceName, type DeviceOptions, openTarget } from './device.ts'
import { weightDTypes } from './dtype.ts'
import { FormatError, OptionError } from './errors.ts'
import { readAdapter } from './formats/peft.ts'
import { openModel } from './formats/stored-model.ts'
import { LanguageModel } from './generate/language-model.ts'
import type { PullOptions, PullProgress } from './hub/snapshot.ts'
import { parseConfig } from './model/config.ts'
import {
  type AdapterDescription,
  describeAdapter,
  describeOpened,
  type ModelDescription,
  type OpenedModel,
} from './model/describe.ts'
import { adapterFromPeft } from './model/lora.ts'
import { type LoadProgress, Model, type ModelOptions } from './model/model.ts'
import { checkPrecision, type Precision } from './model/precision.ts'
import { checkKeys, checkWord } from './options.ts'
import { isNode } from './runtime.ts'
import type { Source } from './store/store.ts'
import { loadChatTemplate } from './text/chat-template.ts'
import { checkVocabulary, loadTokenizer } from './text/tokenizer.ts'

export interface LoadOptions extends DeviceOptions, Omit<ModelOptions, 'onProgress'>, Precision {
  /** PEFT folders, or names on the hub, made active in this order; each is named after its folder. */
  readonly adapter?: string | Source | readonly (string | Source)[]
  /** Of the hub: a branch, a tag or a commit; default `main`. */
  readonly revision?: string
  /** Told while a model comes from the hub (then it has a `file`), and after each tensor that is loaded. */
  readonly onProgress?: (progress: LoadProgress | PullProgress) => void
  /** Told when the device was lost and the model goes on with another: its weights were read again from where they came. */
  readonly onDeviceLost?: () => void
}

/**
 * Opens a model on the best device.
 *
 * @param model a bundled model, `nano` (the default) or `nano-base`; a Hugging Face folder or a .gguf file; or one of the
 *   hub, `org/name`, `org/name@revision` or `org/name/file.gguf`, which is downloaded when it is not in the cache; or a place:
 *   `urlFolder` of a server, `fileFolder` of files that a page was given, `memoryStore`
 * @throws FormatError for broken or unsupported files, HubError for what cannot be had from the hub, MemoryError when it
 *   does not fit, DeviceError without a device
 */
export async function loadModel(model?: string | Source, options: LoadOptions = {}): Promise<LanguageModel> {
  if (model !== undefined && typeof model !== 'string' && typeof model?.open !== 'function')
    throw new OptionError('loadModel: its first argument is a name, a path or a Source, options are the second')
  checkKeys(
    options,
    [
      'device',
      'workload',
      'threads',
      'build',
      'dtype',
      'cacheDType',
      'exactActivations',
      'adapter',
      'revision',
      'onProgress',
      'onCompile',
      'onWarning',
      'onDeviceLost',
      'signal',
    ],
    'loadModel',
  )
  checkWord(options.dtype, weightDTypes, 'dtype')
  checkPrecision(options)
  const { cacheDType, exactActivations } = options
  const source =
    typeof model === 'object' ? model : await (await import('./hub/models.ts')).resolveModel(model, options)
  const opened = await openParts(source)
  const { stored, config, tokenizer, template, eosTokenIds } = opened
  for (const warning of stored.warnings) (options.onWarning ?? console.warn)(warning)
  const target = await openTarget(options)
  try {
    const loaded = await Model.load(target, config, stored.tensors, source.name, options)
    // What computes in this process does not go away, and trainers need no copies.
    if (!isNode || target.name === 'webgpu')
      loaded.again = {
        openTarget: () => openTarget({ ...options, device: target.name as DeviceName }),
        openTensors: async () => (await openModel(source)).tensors,
        onDeviceLost: options.onDeviceLost,
      }
    const description = describeOpened(nameOf(model), opened)
    const { generationConfig } = stored
    const lm = new LanguageModel(loaded, tokenizer, template, generationConfig, eosTokenIds, stored, description, {
      cacheDType,
      exactActivations,
    })
    const { onProgress, signal } = options
    for (const adapter of [options.adapter ?? []].flat())
      await loadAdapter(lm, adapter, undefined, { onProgress, signal })
    return lm
  } catch (error) {
    await target.close()
    throw error
  }
}

/**
 * What a model or an adapter is, from its files: names as of loadModel. No weight is read. `predictDecode` says how fast a model of
 * this description writes on a device whose speed is known.
 *
 * @throws FormatError for broken or unsupported files, HubError for what cannot be had from the hub
 */
export async function describeModel(
  model?: string | Source,
  options: PullOptions = {},
): Promise<ModelDescription | AdapterDescription> {
  checkKeys(options, ['revision', 'onProgress', 'signal'], 'describeModel')
  const source =
    typeof model === 'object' ? model : await (await import('./hub/models.ts')).resolveModel(model, options)
  const isAdapter = !(await source.open('config.json')) && (await source.open('adapter_config.json'))
  if (isAdapter) return describeAdapter(nameOf(model), await readAdapter(source))
  return describeOpened(nameOf(model), await openParts(source))
}

/** As a person would call it. */
const nameOf = (model: string | Source = 'nano'): string => (typeof model === 'string' ? model : model.name)

async function openParts(source: Source): Promise<OpenedModel> {
  const stored = await openModel(source)
  const config = parseConfig(stored.config, stored.configFile)
  const tokenizer = loadTokenizer(stored.tokenizerJson, stored.tokenizerConfig)
  checkVocabulary(tokenizer, config.vocabSize)
  const template = loadChatTemplate(stored.tokenizerConfig, stored.chatTemplate ?? undefined)
  const ends = eosTokenIds(stored.generationConfig, stored.config, tokenizer.eosTokenId, config.vocabSize)
  return { stored, config, tokenizer, template, eosTokenIds: ends }
}

/**
 * Reads an adapter and makes it active beside the adapters that already are.
 *
 * @param adapter a PEFT folder, or a name on the hub
 * @param name default: the folder's name
 */
export async function loadAdapter(
  lm: LanguageModel,
  adapter: string | Source,
  name = lastPart(typeof adapter === 'string' ? adapter : adapter.name),
  options: PullOptions = {},
): Promise<string> {
  const { model } = lm
  if (model.adapters.has(name)) throw new OptionError(`adapter "${name}" is loaded already: give another name`)
  const source =
    typeof adapter === 'object' ? adapter : await (await import('./hub/models.ts')).resolveAdapter(adapter, options)
  const { config, tensors } = await readAdapter(source)
  model.adapters.set(name, adapterFromPeft(name, config, tensors, model.config, source.name))
  await model.setAdapters([...model.activeAdapters, name])
  return name
}

const lastPart = (path: string): string =>
  path
    .replace(/(?<=.)@.*/, '')
    .split(/[\\/]/)
    .filter(Boolean)
    .at(-1)!

/** generation_config.json, then config.json (a number or a list), then the tokenizer. Throws FormatError. */
export function eosTokenIds(
  generation: Readonly<Record<string, unknown>>,
  config: Readonly<Record<string, unknown>>,
  tokenizerId: number | undefined,
  vocabSize: number,
): Set<number> {
  for (const value of [generation.eos_token_id, config.eos_token_id, tokenizerId]) {
    if (value === undefined || value === null) continue
    const ids = [value].flat() as number[]
    if (ids.some((id) => !Number.isInteger(id) || id < 0 || id >= vocabSize))
      throw new FormatError(
        `eos_token_id: ${JSON.stringify(value)} is not a token id below ${vocabSize} or a list of them`,
      )
    return new Set(ids)
  }
  return new Set()
}
