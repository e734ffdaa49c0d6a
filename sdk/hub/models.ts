import { FormatError, HubError, OptionError } from '../errors.ts'
import { join } from '../store/path.ts'
import { type Source, type Store, storeAt } from '../store/store.ts'
import { bundledModel, bundledModels, isBundled } from './bundled.ts'
import { chooseModelFiles } from './choose.ts'
import { findImported } from './import.ts'
import { type ModelName, parseModelName } from './names.ts'
import { findSnapshot, type PullOptions, pullSnapshot, type Snapshot } from './snapshot.ts'
import { askToKeep } from './space.ts'
import { findUrl, findUrlFolder, hubNameOf, isFolderUrl, isUrl, pullUrl, pullUrlFolder } from './url.ts'

/**
 * Downloads a model, or what has changed of it, into the cache that huggingface_hub uses too (HF_HUB_CACHE), in a browser into its
 * storage for this site. An earlier
 * download that was interrupted goes on; every file is compared with the hub's checksum.
 *
 * @param name `org/name`, `org/name@revision`, `org/name/file.gguf`, `https://host/file.gguf[#sha256=...]`, or
 *   `https://host/folder/` with the files of a model as they are on the hub
 * @returns the snapshot's folder, or the .gguf file
 * @throws HubError for a wrong name, no access, no network, a content that is not the right one
 */
export async function pullModel(name: string, options: PullOptions = {}): Promise<string> {
  const hubName = hubNameOf(name)
  askToKeep()
  if (isFolderUrl(hubName)) return pullUrlFolder(hubName, options)
  if (isUrl(hubName)) return pullUrl(hubName, gguf, options)
  const repo = parseModelName(hubName, options.revision)
  if (!repo)
    throw new OptionError(`${name}: is not a name on the hub: org/name, org/name@revision or org/name/file.gguf`)
  return pathOf(repo, await pullSnapshot(repo, (paths) => chooseModelFiles(repo, paths), options))
}

/**
 * Where a model lies: a bundled one (default `nano`), a folder or file that exists, an imported one, or one of the hub or of an
 * address, which is downloaded when it is not in the cache.
 */
export async function resolveModel(name: string = bundledModels[0], options: PullOptions = {}): Promise<Source> {
  if (isBundled(name)) return bundledModel(name)
  const bundled = bundledModels.join(', ')
  return resolve(name, options, {
    nowhere: `no such model folder or file, nor a name on the hub (org/name), nor a bundled model (${bundled})`,
    hint: `There is no folder or file of this name either, and ${bundled} are bundled.`,
  })
}

/** Where an adapter lies: a folder that exists, or one of the hub. */
export const resolveAdapter = (name: string, options: PullOptions = {}): Promise<Source> =>
  resolve(name, options, {
    nowhere: 'no such adapter folder, nor a name on the hub (org/name)',
    hint: 'There is no adapter folder of this name either.',
  })

async function resolve(
  name: string,
  options: PullOptions,
  { nowhere, hint }: { nowhere: string; hint: string },
): Promise<Store> {
  const place = await storeAt(name)
  if ((await place.list()).length > 0) return place
  return storeAt((await findImported(name)) ?? (await download(name, options, nowhere, hint)))
}

/** The path in the cache. */
async function download(name: string, options: PullOptions, nowhere: string, hint: string): Promise<string> {
  const hubName = hubNameOf(name)
  if (isFolderUrl(hubName)) return (await findUrlFolder(hubName)) ?? pullUrlFolder(hubName, options)
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
