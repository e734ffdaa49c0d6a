import { type DeviceOptions, openTarget } from './device.ts'
import { FormatError, OptionError } from './errors.ts'
import { openModelSource } from './formats/model-source.ts'
import { readAdapter } from './formats/peft.ts'
import { LanguageModel } from './generate/language-model.ts'
import { parseConfig } from './model/config.ts'
import { adapterFromPeft } from './model/lora.ts'
import { Model, type ModelOptions } from './model/model.ts'
import { loadChatTemplate } from './text/chat-template.ts'
import { checkVocabulary, loadTokenizer } from './text/tokenizer.ts'

export interface LoadOptions extends DeviceOptions, ModelOptions {
  /** PEFT folders, made active in this order; each is named after its folder. */
  readonly adapter?: string | readonly string[]
}

/**
 * Opens an HF snapshot folder or a .gguf file on the best device.
 *
 * @throws FormatError for broken or unsupported files, MemoryError when it does not fit, DeviceError without a device
 */
export async function loadModel(path: string, options: LoadOptions = {}): Promise<LanguageModel> {
  const source = await openModelSource(path)
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
      for (const folder of [options.adapter ?? []].flat()) await loadAdapter(lm, folder)
      return lm
    } catch (error) {
      await target.close()
      throw error
    }
  } finally {
    await source.close()
  }
}

/**
 * Reads a PEFT folder and makes it active beside the adapters that already are.
 *
 * @param name default: the folder's name
 */
export async function loadAdapter(
  lm: LanguageModel,
  folder: string,
  name = folder.split(/[\\/]/).filter(Boolean).at(-1)!,
): Promise<string> {
  const { model } = lm
  if (model.adapters.has(name)) throw new OptionError(`adapter "${name}" is loaded already: give another name`)
  const { config, tensors } = await readAdapter(folder)
  model.adapters.set(name, adapterFromPeft(name, config, tensors, model.config, folder))
  await model.setAdapters([...model.activeAdapters, name])
  return name
}

/** generation_config.json, then config.json (a number or a list), then the tokenizer. */
function eosTokenIds(
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
