import { FormatError, HubError, OptionError } from '../errors.ts'
import { join } from '../formats/file-system.ts'
import { exists } from '../formats/files.ts'
import { bundledFolder, bundledModels, isBundled } from './bundled.ts'
import { type ModelName, parseModelName } from './names.ts'
import { findSnapshot, type PullOptions, pullSnapshot, type Snapshot } from './snapshot.ts'
import { findUrl, hubNameOf, isUrl, pullUrl } from './url.ts'

/** The files beside the weights that we read. */
const small = [
  'config.json',
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'chat_template.jinja',
  'adapter_config.json',
]

/**
 * Downloads a model, or what has changed of it, into the cache that huggingface_hub uses too (HF_HUB_CACHE). An earlier
 * download that was interrupted goes on; every file is compared with the hub's checksum.
 *
 * @param name `org/name`, `org/name@revision`, `org/name/file.gguf`, or `https://host/file.gguf[#sha256=...]`
 * @returns the snapshot's folder, or the .gguf file
 * @throws HubError for a wrong name, no access, no network, a content that is not the right one
 */
export async function pullModel(name: string, options: PullOptions = {}): Promise<string> {
  const hubName = hubNameOf(name)
  if (isUrl(hubName)) return pullUrl(hubName, gguf, options)
  const repo = parseModelName(hubName, options.revision)
  if (!repo)
    throw new OptionError(`${name}: is not a name on the hub: org/name, org/name@revision or org/name/file.gguf`)
  return pathOf(repo, await pullSnapshot(repo, (paths) => chooseModelFiles(repo, paths), options))
}

/**
 * The path of a model: a bundled one (default `nano`), a folder or file that exists, or one of the hub, which is downloaded
 * when it is not in the cache.
 */
export async function findModel(name: string = bundledModels[0], options: PullOptions = {}): Promise<string> {
  if (isBundled(name)) return bundledFolder(name)
  const bundled = bundledModels.join(', ')
  return find(name, options, {
    nowhere: `no such model folder or file, nor a name on the hub (org/name), nor a bundled model (${bundled})`,
    hint: `There is no folder or file of this name either, and ${bundled} are bundled.`,
  })
}

/** The folder of an adapter: one that exists, or one of the hub. */
export const findAdapter = (name: string, options: PullOptions = {}): Promise<string> =>
  find(name, options, {
    nowhere: 'no such adapter folder, nor a name on the hub (org/name)',
    hint: 'There is no adapter folder of this name either.',
  })

async function find(
  name: string,
  options: PullOptions,
  { nowhere, hint }: { nowhere: string; hint: string },
): Promise<string> {
  if (await exists(name)) return name
  const hubName = hubNameOf(name)
  if (isUrl(hubName)) return (await findUrl(hubName, gguf)) ?? pullUrl(hubName, gguf, options)
  const repo = parseModelName(hubName, options.revision)
  if (!repo) throw new FormatError(`${name}: ${nowhere}`)
  const choose = (paths: readonly string[]) => chooseModelFiles(repo, paths)
  try {
    return pathOf(repo, (await findSnapshot(repo, choose)) ?? (await pullSnapshot(repo, choose, options)))
  } catch (error) {
    if (!(error instanceof HubError)) throw error
    throw new HubError(`${error.message} (${hint})`, { cause: error, status: error.status })
  }
}

const gguf = /\.gguf$/i

const pathOf = ({ file }: ModelName, { folder }: Snapshot): string => (file ? join(folder, file) : folder)

/** Weights and what belongs to them; one set of weights where a repository has several. */
export function chooseModelFiles({ id, file }: ModelName, paths: readonly string[]): string[] {
  const has = (path: string) => paths.includes(path)
  const ggufs = paths.filter((path) => gguf.test(path))
  const some = (list: readonly string[]) => list.slice(0, 20).join(', ') + (list.length > 20 ? ', ...' : '')
  if (file) {
    if (has(file)) return [file]
    throw new HubError(`${id}: has no ${file}; its .gguf files: ${some(ggufs) || 'none'}`)
  }
  const model = 'model.safetensors'
  const shards = paths.filter((path) => /^model-\d+-of-\d+\.safetensors$/.test(path))
  const weights = has(model) ? [model] : has(`${model}.index.json`) ? [`${model}.index.json`, ...shards] : []
  const adapter = has('adapter_config.json') ? ['adapter_model.safetensors'].filter(has) : []
  if (weights.length + adapter.length === 0) {
    if (ggufs.length > 0)
      throw new HubError(`${id}: choose one of its .gguf files, as in ${id}/${ggufs[0]}: ${some(ggufs)}`)
    throw new HubError(`${id}: has neither model.safetensors nor .gguf files; it has ${some(paths) || 'no files'}`)
  }
  if (weights.length > 0)
    for (const needed of ['config.json', 'tokenizer.json'])
      if (!has(needed)) throw new HubError(`${id}: has no ${needed}, which is needed to run it`)
  return [...small.filter(has), ...weights, ...adapter]
}
