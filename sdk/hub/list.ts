import { HubError } from '../errors.ts'
import { fileSystem, isNode, join } from '../formats/file-system.ts'
import { isTaken } from '../formats/lock.ts'
import { readJsonFile } from '../formats/node-file.ts'
import { bundledFolder, bundledModels, isBundled } from './bundled.ts'
import { findImported, importedFolder } from './import.ts'
import { folderOf, parseDatasetName, parseModelName, type RepoKind } from './names.ts'
import { cacheRoot } from './settings.ts'
import { hubNameOf, isUrl, urlFolder, urlsFolder } from './url.ts'

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
  const { readdir } = await fileSystem()
  const root = await cacheRoot()
  const found: CachedModel[] = []
  for (const name of isNode ? bundledModels : []) {
    const path = await bundledFolder(name).catch(() => null)
    if (path) found.push({ name, kind: 'bundled', path, ...(await measure(path)) })
  }
  const folders = async (path: string) =>
    (await readdir(path, { withFileTypes: true }).catch(() => [])).filter((e) => e.isDirectory())
  for (const { name: folder } of await folders(root)) {
    const [, kind, org, name] = /^(model|dataset)s--(.+?)--(.+)$/.exec(folder) ?? []
    const path = join(root, folder)
    if (name) found.push({ name: `${org}/${name}`, kind: kind as RepoKind, path, ...(await measure(path)) })
  }
  for (const { name: folder } of await folders(join(root, urlsFolder))) {
    const path = join(root, urlsFolder, folder)
    const { url } = await readJsonFile(join(path, 'source.json')).catch(() => ({ url: null }))
    if (typeof url === 'string') found.push({ name: url, kind: 'url', path, ...(await measure(path)) })
  }
  for (const { name } of await folders(join(root, importedFolder))) {
    if (!(await findImported(name))) continue
    const path = join(root, importedFolder, name)
    found.push({ name, kind: 'imported', path, ...(await measure(path)) })
  }
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
  const { lstat, rm } = await fileSystem()
  if (isBundled(name)) throw new HubError(`${name}: is bundled with the package and stays`)
  const path = await place(name, kind)
  const stat = path && (await lstat(path).catch(() => null))
  if (!path || !stat) {
    const other = kind === 'model' && parseDatasetName(name) ? ' (a dataset needs --dataset, or kind: "dataset")' : ''
    throw new HubError(`${name}: is not in the cache ${await cacheRoot()}${other}; halfling deletes nothing else`)
  }
  if (!stat.isDirectory()) throw new HubError(`${name}: ${path} is a link to somewhere else: delete it by hand`)
  for (const { file } of await walk(path))
    if (/\.incomplete(\.lock)?$/.test(file) && (await isTaken(`${join(path, file).replace(/\.lock$/, '')}.lock`)))
      throw new HubError(`${name}: is being downloaded at this moment: end that first`)
  const { bytes } = await measure(path)
  await rm(path, { recursive: true })
  return bytes
}

/** The folder in the cache; null for what cannot have one. */
async function place(name: string, kind: RepoKind): Promise<string | null> {
  if (kind === 'model' && (await findImported(name))) return join(await cacheRoot(), importedFolder, name)
  const hubName = hubNameOf(name)
  if (isUrl(hubName)) return urlFolder(hubName)
  const repo = kind === 'model' ? parseModelName(hubName) : parseDatasetName(hubName)
  if (!repo) return null
  if (hubName !== repo.id) throw new HubError(`${name}: a repository is removed as a whole: ${repo.id}`)
  return join(await cacheRoot(), folderOf(repo))
}

interface Found {
  /** Below the folder. */
  readonly file: string
  readonly size: number
  readonly modified: number
}

/** The files of a folder; links are not followed. */
async function walk(folder: string): Promise<Found[]> {
  const { lstat, readdir } = await fileSystem()
  const found: Found[] = []
  for (const file of await readdir(folder, { recursive: true })) {
    const stat = await lstat(join(folder, file)).catch(() => null)
    if (stat?.isFile()) found.push({ file, size: stat.size, modified: stat.mtimeMs })
  }
  return found
}

async function measure(folder: string): Promise<Pick<CachedModel, 'bytes' | 'incompleteBytes' | 'modified'>> {
  const files = await walk(folder)
  const sum = (list: readonly Found[]) => list.reduce((total, { size }) => total + size, 0)
  const modified = new Date(files.reduce((newest, file) => Math.max(newest, file.modified), 0))
  return { bytes: sum(files), incompleteBytes: sum(files.filter(({ file }) => file.endsWith('.incomplete'))), modified }
}
