import { FormatError } from '../errors.ts'
import type { ByteSource } from './byte-source.ts'
import { uncompressed } from './compressed.ts'
import { fileSystem } from './file-system.ts'
import { type Folder, readJson, readText } from './folder.ts'
import { openGguf } from './gguf.ts'
import { ggufModel } from './gguf-model.ts'
import { nodeFolder, openFile } from './node-file.ts'
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
  const { stat } = await fileSystem()
  const found = await stat(path).catch((cause) => {
    throw new FormatError(`${path}: no such model (give a folder with config.json, or a .gguf file)`, { cause })
  })
  if (found.isDirectory()) return openModelFolder(await nodeFolder(path))
  if (/\.(safetensors|json)$/i.test(path)) throw new FormatError(`${path}: give the folder that this file is in`)
  return openModelFile(await openFile(path))
}

/** Opens a .gguf file. */
export const openModelFile = (source: ByteSource): Promise<ModelSource> =>
  closedOnError(source, async () => ggufModel(await openGguf(source)))

/** Opens an HF snapshot folder. */
export async function openModelFolder(folder: Folder): Promise<ModelSource> {
  const needed = async (file: string): Promise<Record<string, unknown>> => {
    const json = await readJson(folder, file)
    if (json) return json
    throw new FormatError(`${placeOf(folder, file)}: no such file`)
  }
  const [config, generationConfig, tokenizerJson, tokenizerConfig, chatTemplate] = await Promise.all([
    needed('config.json'),
    readJson(folder, 'generation_config.json'),
    needed('tokenizer.json'),
    readJson(folder, 'tokenizer_config.json'),
    readText(folder, 'chat_template.jinja'),
  ])
  const configFile = placeOf(folder, 'config.json')
  const file = await openModelTensors(folder)
  return closedOnError(file, async () => ({
    ...uncompressed(config, configFile, file.tensors),
    configFile,
    generationConfig: generationConfig ?? {},
    tokenizerJson,
    tokenizerConfig: tokenizerConfig ?? {},
    chatTemplate,
    close: file.close,
  }))
}

const placeOf = ({ name }: Folder, file: string): string => (name.endsWith('/') ? `${name}${file}` : `${name}/${file}`)

/**
 * The tensors of a folder: model.safetensors, or the shards that model.safetensors.index.json names.
 *
 * @throws FormatError also for an index that does not agree with its shards
 */
export async function openModelTensors(folder: Folder): Promise<TensorFile> {
  const whole = await folder.open('model.safetensors')
  if (whole) return closedOnError(whole, () => openSafetensors(whole))
  const indexFile = 'model.safetensors.index.json'
  const json = await readJson(folder, indexFile)
  if (!json)
    throw new FormatError(
      `${folder.name}: has no model.safetensors (other formats have to be converted to safetensors or GGUF)`,
    )
  const index = placeOf(folder, indexFile)
  const places = shardNames(json, index)
  const sources: ByteSource[] = []
  const all = { close: () => Promise.all(sources.map((source) => source.close())) }
  return closedOnError(all, async () => {
    const names = new Map<string, string>()
    for (const shard of new Set(places.values())) {
      const source = await folder.open(shard)
      if (!source) throw new FormatError(`${placeOf(folder, shard)}: no such file`)
      sources.push(source)
      names.set(shard, source.name)
    }
    const file = await openSafetensors(sources)
    for (const [name, shard] of places)
      if (file.tensors.get(name)?.file !== names.get(shard))
        throw new FormatError(`${index}: ${name}: is not in ${shard}`)
    return file
  })
}

/** weight_map: tensor name to a file in the same folder. */
export function shardNames(json: Record<string, unknown>, index: string): Map<string, string> {
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
