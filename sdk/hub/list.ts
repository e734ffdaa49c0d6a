import { HubError } from '../errors.ts'
import { isNode } from '../runtime.ts'
import { join } from '../store/path.ts'
import { type Source, storeAt } from '../store/store.ts'
import { readJson } from '../store/text.ts'
import { bundledFolder, bundledModels, isBundled } from './bundled.ts'
import { findImported, importedFolder } from './import.ts'
import { folderOf, parseDatasetName, parseModelName, type RepoKind } from './names.ts'
import { cache } from './settings.ts'
import { folderOfUrl, hubNameOf, isUrl, urlsFolder } from './url.ts'
import { walk } from './walk.ts'

/** Something that is on this disk. */
export interface CachedModel {
  /** What loadModel or a data option takes. */
  readonly name: string
  readonly kind: 'bundled' | 'imported' | 'url' | RepoKind
  readonly path: string
  /** On the disk, with what is not whole yet. */
  readonly bytes: number
  /** Bytes of downloads that were interrupted and can go on. */
  readonly incompleteBytes: number
  /** Of the newest file. */
  readonly modified: Date
}

/** The models and datasets of the cache (what Python has put there too) and the bundled models, by name. */
export async function listModels(): Promise<CachedModel[]> {
  const store = await cache()
  const found: CachedModel[] = []
  const add = async (name: string, kind: CachedModel['kind'], folder: string, place: Source = store) =>
    found.push({ name, kind, path: join(place.name, folder), ...(await measure(place, folder)) })
  const folders = async (path: string) => (await store.list(path)).filter(({ kind }) => kind === 'folder')

  for (const name of isNode ? bundledModels : []) {
    const path = await bundledFolder(name).catch(() => null)
    if (path) await add(name, 'bundled', '', await storeAt(path))
  }
  for (const { name: folder } of await folders('')) {
    const [, kind, org, name] = /^(model|dataset)s--(.+?)--(.+)$/.exec(folder) ?? []
    if (name) await add(`${org}/${name}`, kind as RepoKind, folder)
  }
  for (const { name } of await folders(urlsFolder)) {
    const folder = join(urlsFolder, name)
    const source = await readJson(store, join(folder, 'source.json')).catch(() => null)
    if (typeof source?.url === 'string') await add(source.url, 'url', folder)
  }
  for (const { name } of await folders(importedFolder))
    if (await findImported(name)) await add(name, 'imported', join(importedFolder, name))
  return found.sort(
    (a, b) => Number(b.kind === 'bundled') - Number(a.kind === 'bundled') || a.name.localeCompare(b.name),
  )
}

/**
 * Deletes a repository or an address from the cache, with all its revisions and files.
 *
 * @param name as listModels tells it
 * @returns the bytes that are free again
 * @throws HubError for what is bundled, not in the cache, or being downloaded at this moment
 */
export async function removeModel(
  name: string,
  { kind = 'model' }: { readonly kind?: RepoKind } = {},
): Promise<number> {
  if (isBundled(name)) throw new HubError(`${name}: is bundled with the package and stays`)
  const store = await cache()
  const folder = await placeOf(name, kind)
  const [, parent, own] = /^(?:(.*)\/)?([^/]+)$/.exec(folder ?? '') ?? []
  const entry = own && (await store.list(parent)).find((other) => other.name === own)
  if (!folder || !entry) {
    const other = kind === 'model' && parseDatasetName(name) ? ' (a dataset needs --dataset, or kind: "dataset")' : ''
    throw new HubError(`${name}: is not in the cache ${store.name}${other}; halfling deletes nothing else`)
  }
  if (entry.kind !== 'folder')
    throw new HubError(`${name}: ${join(store.name, folder)} is a link to somewhere else: delete it by hand`)
  for (const file of await walk(store, folder))
    if (/\.incomplete(\.lock)?$/.test(file.name)) {
      const lock = await store.lock(`${file.name.replace(/\.lock$/, '')}.lock`)
      if (typeof lock === 'string') throw new HubError(`${name}: is being downloaded at this moment: end that first`)
      await lock()
    }
  const { bytes } = await measure(store, folder)
  await store.remove(folder)
  return bytes
}

/** The folder in the cache; null for what cannot have one. */
async function placeOf(name: string, kind: RepoKind): Promise<string | null> {
  if (kind === 'model' && (await findImported(name))) return join(importedFolder, name)
  const hubName = hubNameOf(name)
  if (isUrl(hubName)) return folderOfUrl(hubName)
  const repo = kind === 'model' ? parseModelName(hubName) : parseDatasetName(hubName)
  if (!repo) return null
  if (hubName !== repo.id) throw new HubError(`${name}: a repository is removed as a whole: ${repo.id}`)
  return folderOf(repo)
}

async function measure(
  source: Source,
  folder: string,
): Promise<Pick<CachedModel, 'bytes' | 'incompleteBytes' | 'modified'>> {
  const files = (await walk(source, folder)).filter(({ kind }) => kind === 'file')
  const sum = (list: typeof files) => list.reduce((total, { bytes }) => total + bytes, 0)
  const modified = new Date(files.reduce((newest, file) => Math.max(newest, file.modified), 0))
  return { bytes: sum(files), incompleteBytes: sum(files.filter(({ name }) => name.endsWith('.incomplete'))), modified }
}
