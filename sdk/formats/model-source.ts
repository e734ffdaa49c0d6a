import { FormatError } from '../errors.ts'
import type { ByteSource } from './byte-source.ts'
import { uncompressed } from './compressed.ts'
import { openGguf } from './gguf.ts'
import { ggufModel } from './gguf-model.ts'
import { exists, openFile, readJsonFile, readTextFile } from './node-file.ts'
import { openSafetensors, type TensorFile } from './safetensors.ts'
import type { StoredTensor } from './stored.ts'

/** A model as it lies on disk, whatever it lies in. */
export interface ModelSource {
  /** As in config.json. */
  readonly config: Record<string, unknown>
  /** Where the config is from, for errors. */
  readonly configFile: string
  /** As in generation_config.json; empty where there is none. */
  readonly generationConfig: Record<string, unknown>
  /** As in tokenizer.json. */
  readonly tokenizerJson: Record<string, unknown>
  /** As in tokenizer_config.json; empty where there is none. It may hold a chat template of its own. */
  readonly tokenizerConfig: Record<string, unknown>
  /** chat_template.jinja, or a GGUF file's. */
  readonly chatTemplate: string | null
  /** By HF's names; read when asked for. */
  readonly tensors: ReadonlyMap<string, StoredTensor>
  close(): Promise<void>
}

/** Opens an HF snapshot folder or a .gguf file. Throws FormatError naming the file that is missing or broken. */
export async function openModelSource(path: string): Promise<ModelSource> {
  const { stat } = await import('node:fs/promises')
  const found = await stat(path).catch((cause) => {
    throw new FormatError(`${path}: no such model (give a folder with config.json, or a .gguf file)`, { cause })
  })
  if (found.isDirectory()) return openModelFolder(path)
  if (/\.(safetensors|json)$/i.test(path)) throw new FormatError(`${path}: give the folder that this file is in`)
  const source = await openFile(path)
  return closedOnError(source, async () => ggufModel(await openGguf(source)))
}

/** Opens an HF snapshot folder. */
export async function openModelFolder(folder: string): Promise<ModelSource> {
  const { join } = await import('node:path')
  const configFile = join(folder, 'config.json')
  const optional = async <T>(name: string, read: (path: string) => Promise<T>, otherwise: T): Promise<T> =>
    (await exists(join(folder, name))) ? read(join(folder, name)) : otherwise
  const [config, generationConfig, tokenizerJson, tokenizerConfig, chatTemplate] = await Promise.all([
    readJsonFile(configFile),
    optional('generation_config.json', readJsonFile, {}),
    readJsonFile(join(folder, 'tokenizer.json')),
    optional('tokenizer_config.json', readJsonFile, {}),
    optional<string | null>('chat_template.jinja', readTextFile, null),
  ])
  const file = await openModelTensors(folder)
  return closedOnError(file, async () => ({
    ...uncompressed(config, configFile, file.tensors),
    configFile,
    generationConfig,
    tokenizerJson,
    tokenizerConfig,
    chatTemplate,
    close: file.close,
  }))
}

/**
 * The tensors of a folder: model.safetensors, or the shards that model.safetensors.index.json names.
 *
 * @throws FormatError also for an index that does not agree with its shards
 */
export async function openModelTensors(folder: string): Promise<TensorFile> {
  const { join } = await import('node:path')
  const whole = join(folder, 'model.safetensors')
  if (await exists(whole)) {
    const source = await openFile(whole)
    return closedOnError(source, () => openSafetensors(source))
  }
  const index = join(folder, 'model.safetensors.index.json')
  if (!(await exists(index)))
    throw new FormatError(
      `${folder}: has no model.safetensors (other formats have to be converted to safetensors or GGUF)`,
    )
  const places = shardNames(await readJsonFile(index), index)
  const sources: ByteSource[] = []
  const all = { close: () => Promise.all(sources.map((source) => source.close())) }
  return closedOnError(all, async () => {
    for (const shard of new Set(places.values())) sources.push(await openFile(join(folder, shard)))
    const file = await openSafetensors(sources)
    for (const [name, shard] of places)
      if (file.tensors.get(name)?.file !== join(folder, shard))
        throw new FormatError(`${index}: ${name}: is not in ${shard}`)
    return file
  })
}

/** weight_map: tensor name to a file in the same folder. */
function shardNames(json: Record<string, unknown>, index: string): Map<string, string> {
  const map = json.weight_map
  if (typeof map !== 'object' || map === null || Array.isArray(map))
    throw new FormatError(`${index}: weight_map is not an object`)
  const places = new Map<string, string>()
  for (const [name, shard] of Object.entries(map)) {
    if (typeof shard !== 'string' || !/^[^/\\]+\.safetensors$/.test(shard))
      throw new FormatError(`${index}: ${name}: ${JSON.stringify(shard)} is not a safetensors file in this folder`)
    places.set(name, shard)
  }
  if (places.size === 0) throw new FormatError(`${index}: weight_map is empty`)
  return places
}

async function closedOnError<T>(source: { close(): Promise<unknown> }, open: () => Promise<T>): Promise<T> {
  try {
    return await open()
  } catch (error) {
    await source.close()
    throw error
  }
}
