import { FormatError } from '../errors.ts'
import { isObject } from '../options.ts'
import type { ByteSource } from '../store/byte-source.ts'
import { join } from '../store/path.ts'
import type { Source } from '../store/store.ts'
import { opened, readJson, readText } from '../store/text.ts'
import { openGguf } from './gguf.ts'
import { ggufModel } from './gguf-model.ts'
import { unquantized } from './quantized.ts'
import { openSafetensors, type TensorFile } from './safetensors.ts'
import type { StoredTensor } from './stored.ts'

/** A model as it lies in files, whatever they are. */
export interface StoredModel {
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
  /** What a GGUF file calls itself. */
  readonly title: string | null
  /** A GGUF file's, or what the folder's README.md or LICENSE says. */
  readonly license: string | null
  /** By HF's names; read when asked for. */
  readonly tensors: ReadonlyMap<string, StoredTensor>
  /** What is not taken as it stands in the files, in sentences. */
  readonly warnings: readonly string[]
}

/** Opens a GGUF file or the files of an HF snapshot. Throws FormatError naming the file that is missing or broken. */
export async function openModel(source: Source): Promise<StoredModel> {
  const config = await readJson(source, 'config.json')
  if (config) return openSnapshot(source, config)
  const entries = await source.list()
  if (entries.length === 0)
    throw new FormatError(`${source.name}: no such model (give a folder with config.json, or a .gguf file)`)
  const isFile = entries[0].name === ''
  if (isFile && /\.(safetensors|json)$/i.test(source.name))
    throw new FormatError(`${source.name}: give the folder that this file is in`)
  const files = entries.map(({ name }) => name).filter((name) => isFile || /\.gguf$/i.test(name))
  if (files.length === 1) return ggufModel(await openGguf(await opened(source, files[0])))
  const more = files.length > 0 ? ` (one .gguf file can be opened, these are ${files.join(', ')})` : ''
  throw new FormatError(`${join(source.name, 'config.json')}: no such file${more}`)
}

async function openSnapshot(source: Source, config: Record<string, unknown>): Promise<StoredModel> {
  const [generationConfig, tokenizerJson, tokenizerConfig, chatTemplate, license] = await Promise.all([
    readJson(source, 'generation_config.json'),
    readJson(source, 'tokenizer.json'),
    readJson(source, 'tokenizer_config.json'),
    readText(source, 'chat_template.jinja'),
    licenseOf(source),
  ])
  if (!tokenizerJson) throw new FormatError(`${join(source.name, 'tokenizer.json')}: no such file`)
  const configFile = join(source.name, 'config.json')
  const { tensors } = await openTensors(source)
  return {
    ...(await unquantized(config, configFile, tensors)),
    configFile,
    generationConfig: generationConfig ?? {},
    tokenizerJson,
    tokenizerConfig: tokenizerConfig ?? {},
    chatTemplate,
    title: null,
    license,
  }
}

/** What the head of a model card says, else the first line of the licence. */
async function licenseOf(source: Source): Promise<string | null> {
  const text = (file: string) => readText(source, file).catch(() => null)
  const [, head = ''] = /^---\r?\n([\s\S]*?)\r?\n---/.exec((await text('README.md')) ?? '') ?? []
  const [, named] = /^license(?:_name)?: *["']?([^\s"']+)/m.exec(head.replace(/^license: *other$/m, '')) ?? []
  return named ?? (await text('LICENSE'))?.trim().split('\n')[0].trim() ?? null
}

/**
 * The tensors of a snapshot: model.safetensors, or the shards that model.safetensors.index.json names.
 *
 * @throws FormatError also for an index that does not agree with its shards
 */
export async function openTensors(source: Source): Promise<TensorFile> {
  const whole = await source.open('model.safetensors')
  if (whole) return openSafetensors(whole)
  const indexFile = 'model.safetensors.index.json'
  const json = await readJson(source, indexFile)
  if (!json)
    throw new FormatError(
      `${source.name}: has no model.safetensors (other formats have to be converted to safetensors or GGUF)`,
    )
  const index = join(source.name, indexFile)
  const places = shardNames(json, index)
  const shards = new Map<string, ByteSource>()
  for (const shard of new Set(places.values())) shards.set(shard, await opened(source, shard))
  const file = await openSafetensors([...shards.values()])
  for (const [name, shard] of places)
    if (file.tensors.get(name)?.file !== shards.get(shard)!.name)
      throw new FormatError(`${index}: ${name}: is not in ${shard}`)
  return file
}

/** weight_map: tensor name to a file in the same folder. */
export function shardNames(json: Record<string, unknown>, index: string): Map<string, string> {
  const map = json.weight_map
  if (!isObject(map)) throw new FormatError(`${index}: weight_map is not an object`)
  const places = new Map<string, string>()
  for (const [name, shard] of Object.entries(map)) {
    if (typeof shard !== 'string' || !/^[^/\\]+\.safetensors$/.test(shard))
      throw new FormatError(`${index}: ${name}: ${JSON.stringify(shard)} is not a safetensors file in this folder`)
    places.set(name, shard)
  }
  if (places.size === 0) throw new FormatError(`${index}: weight_map is empty`)
  return places
}
