import { type DeviceOptions, openTarget } from './device.ts'
import { FormatError, OptionError } from './errors.ts'
import { isNode } from './formats/file-system.ts'
import type { Folder } from './formats/folder.ts'
import { type ModelSource, openModelFolder, openModelSource } from './formats/model-source.ts'
import { readAdapter } from './formats/peft.ts'
import { LanguageModel } from './generate/language-model.ts'
import type { PullOptions, PullProgress } from './hub/snapshot.ts'
import { parseConfig } from './model/config.ts'
import { adapterFromPeft } from './model/lora.ts'
import { type LoadProgress, Model, type ModelOptions, weightDTypes } from './model/model.ts'
import { checkKeys, checkWord } from './options.ts'
import { loadChatTemplate } from './text/chat-template.ts'
import { checkVocabulary, loadTokenizer } from './text/tokenizer.ts'

export interface LoadOptions extends DeviceOptions, Omit<ModelOptions, 'onProgress'> {
  /** PEFT folders, or names on the hub, made active in this order; each is named after its folder. */
  readonly adapter?: string | readonly string[]
  /** Of the hub: a branch, a tag or a commit; default `main`. */
  readonly revision?: string
  /** Told while a model comes from the hub (then it has a `file`), and after each tensor that is loaded. */
  readonly onProgress?: (progress: LoadProgress | PullProgress) => void
}

/**
 * Opens a model on the best device.
 *
 * @param name a bundled model, `nano` (the default) or `nano-base`; a Hugging Face folder or a .gguf file; or one of the
 *   hub, `org/name`, `org/name@revision` or `org/name/file.gguf`, which is downloaded when it is not in the cache. In a browser a
 *   folder: `urlFolder` of a server, or `fileFolder` of files that the page was given
 * @throws FormatError for broken or unsupported files, HubError for what cannot be had from the hub, MemoryError when it
 *   does not fit, DeviceError without a device
 */
export async function loadModel(name?: string | Folder, options: LoadOptions = {}): Promise<LanguageModel> {
  if (name !== undefined && typeof name !== 'string' && typeof name?.open !== 'function')
    throw new OptionError('loadModel: its first argument is a name, a path or a folder, options are the second')
  checkKeys(
    options,
    ['device', 'threads', 'dtype', 'adapter', 'revision', 'onProgress', 'onCompile', 'signal'],
    'loadModel',
  )
  checkWord(options.dtype, weightDTypes, 'dtype')
  const [path, source] = await open(name, options)
  try {
    const config = parseConfig(source.config, source.configFile)
    const tokenizer = loadTokenizer(source.tokenizerJson, source.tokenizerConfig)
    checkVocabulary(tokenizer, config.vocabSize)
    const template = loadChatTemplate(source.tokenizerConfig, source.chatTemplate ?? undefined)
    const target = await openTarget(options)
    try {
      const model = await Model.load(target, config, source.tensors, path, options)
      const eos = eosTokenIds(source.generationConfig, source.config, tokenizer.eosTokenId, config.vocabSize)
      const lm = new LanguageModel(model, tokenizer, template, source.generationConfig, eos, source)
      const { onProgress, signal } = options
      for (const adapter of [options.adapter ?? []].flat())
        await loadAdapter(lm, adapter, undefined, { onProgress, signal })
      return lm
    } catch (error) {
      await target.close()
      throw error
    }
  } finally {
    await source.close()
  }
}

async function open(name: string | Folder | undefined, options: LoadOptions): Promise<[name: string, ModelSource]> {
  if (typeof name === 'object') return [name.name, await openModelFolder(name)]
  const { bundledInPage, isBundled } = await import('./hub/bundled.ts')
  const known = name ?? 'nano'
  if (!isNode && isBundled(known)) return [known, await openModelFolder(bundledInPage(known))]
  const { findModel } = await import('./hub/models.ts')
  const path = await findModel(name, options)
  return [path, await openModelSource(path)]
}

/**
 * Reads an adapter and makes it active beside the adapters that already are.
 *
 * @param adapter a PEFT folder, or a name on the hub
 * @param name default: the folder's name
 */
export async function loadAdapter(
  lm: LanguageModel,
  adapter: string,
  name = adapter
    .replace(/(?<=.)@.*/, '')
    .split(/[\\/]/)
    .filter(Boolean)
    .at(-1)!,
  options: PullOptions = {},
): Promise<string> {
  const { model } = lm
  if (model.adapters.has(name)) throw new OptionError(`adapter "${name}" is loaded already: give another name`)
  const { findAdapter } = await import('./hub/models.ts')
  const folder = await findAdapter(adapter, options)
  const { config, tensors } = await readAdapter(folder)
  model.adapters.set(name, adapterFromPeft(name, config, tensors, model.config, folder))
  await model.setAdapters([...model.activeAdapters, name])
  return name
}

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
