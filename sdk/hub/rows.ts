import { HubError, OptionError } from '../errors.ts'
import { join } from '../store/path.ts'
import { type DatasetName, parseDatasetName } from './names.ts'
import { findSnapshot, type PullOptions, pullSnapshot, type Snapshot } from './snapshot.ts'
import { findUrl, hubNameOf, isUrl, pullUrl } from './url.ts'

/**
 * Downloads the files of rows (.parquet, .jsonl, .json) of one split of a dataset, as pullModel does with a model.
 *
 * @param name `org/name`, `org/name:split` (default: train), `org/name/folder:split`, `org/name/path/to/file.parquet`,
 *   each with `@revision` at the end where another than `main` is meant; or `https://host/file.parquet[#sha256=...]`
 * @returns paths of local files, in the order of their rows
 * @throws HubError for a wrong name, a split that is not there, no access, no network, a content that is not the right one
 */
export async function pullDataset(name: string, options: PullOptions = {}): Promise<string[]> {
  const hubName = hubNameOf(name)
  if (isUrl(hubName)) return [await pullUrl(hubName, rowsFile, options)]
  const repo = parse(hubName, options.revision)
  return pathsOf(await pullSnapshot(repo, (paths) => chooseRows(repo, paths), options))
}

/** The same files from the cache; downloaded when they are not there. */
export async function findRows(name: string, options: PullOptions = {}): Promise<string[]> {
  const hubName = hubNameOf(name)
  if (isUrl(hubName)) return [(await findUrl(hubName, rowsFile)) ?? (await pullUrl(hubName, rowsFile, options))]
  const repo = parse(hubName, options.revision)
  const choose = (paths: readonly string[]) => chooseRows(repo, paths)
  return pathsOf((await findSnapshot(repo, choose)) ?? (await pullSnapshot(repo, choose, options)))
}

/** May this be the name of a dataset on the hub, or an address? Ask after files of that name. */
export const isDatasetName = (name: string): boolean => isUrl(name) || parseDatasetName(name) !== null

const rowsFile = /\.(parquet|jsonl|json)$/i

function parse(name: string, revision: string | undefined): DatasetName {
  const repo = parseDatasetName(name, revision)
  if (repo) return repo
  throw new OptionError(
    `${name}: is not a dataset on the hub: org/name, org/name:split or org/name/path/to/file.parquet`,
  )
}

async function pathsOf({ folder, paths }: Snapshot): Promise<string[]> {
  return paths.map((path) => join(folder, path))
}

/** Files that describe a dataset instead of holding rows. */
const description = /(^|\/)(dataset_infos?|dataset_dict|state|config|metadata|package)\.json$|(^|\/)\./

/** The files of a split: in one folder, of one kind (parquet before jsonl before json), in order. */
export function chooseRows({ id, path, split }: DatasetName, paths: readonly string[]): string[] {
  const rows = paths.filter((name) => rowsFile.test(name) && !description.test(name)).sort()
  if (rowsFile.test(path)) {
    if (rows.includes(path)) return [path]
    throw new HubError(`${id}: has no ${path}; it has ${told(rows, paths)}`)
  }
  const inside = rows.filter((name) => path === '' || name.startsWith(`${path}/`))
  const below = (name: string) => (path === '' ? name : name.slice(path.length + 1))
  const names = [...new Set(inside.map((name) => splitOf(below(name))).filter((name) => name !== null))].sort()
  const wanted = words[split] ?? split
  const isWanted = (name: string) =>
    splitOf(below(name)) === wanted ||
    below(name).replace(rowsFile, '').split('/').includes(split) ||
    (names.length === 0 && wanted === 'train')
  const every = inside.filter(isWanted)
  const kind = ['.parquet', '.jsonl', '.json'].find((end) => every.some((name) => name.toLowerCase().endsWith(end)))
  if (!kind) {
    const there = names.length > 0 ? `splits: ${names.join(', ')}; ` : ''
    const hint = rows.length === 0 ? `; the hub may have made some: ${id}@refs/convert/parquet` : ''
    throw new HubError(
      `${id}: no rows of "${split}"${path && ` in ${path}`}; it has ${there}${told(rows, paths)}${hint}`,
    )
  }
  const found = every.filter((name) => name.toLowerCase().endsWith(kind))
  const folders = new Map(found.map((name) => [folderOf(name, wanted), name]))
  if (folders.size > 1) {
    const choices = [...folders].map(([folder, name]) => (folder ? `${id}/${folder}:${split}` : `${id}/${name}`))
    throw new HubError(`${id}: "${split}" is in several folders: choose one of ${choices.slice(0, 20).join(', ')}`)
  }
  return found
}

const told = (rows: readonly string[], all: readonly string[]): string => {
  const list = rows.length > 0 ? rows : all
  const files = list.slice(0, 20).join(', ') + (list.length > 20 ? ', ...' : '')
  return rows.length > 0 ? files : `no files of rows: ${files || 'none at all'}`
}

/** The folder that makes a subset of a dataset: without one that is named after the split. */
const folderOf = (name: string, split: string): string =>
  name
    .split('/')
    .slice(0, -1)
    .filter((folder) => splitOf(`${folder}/`) !== split && folder !== split)
    .join('/')

const words: Record<string, string> = {
  train: 'train',
  training: 'train',
  test: 'test',
  testing: 'test',
  eval: 'test',
  evaluation: 'test',
  validation: 'validation',
  valid: 'validation',
  val: 'validation',
  dev: 'validation',
}

/** The split that a path names: as in `train_sft-00000-of-00004.parquet`, else by a word in the file's name or a folder's. */
export function splitOf(path: string): string | null {
  const parts = path.split('/')
  const file = parts.pop()!.replace(rowsFile, '')
  const shard = /^(\w[\w.]*?)-\d+-of-\d+/.exec(file)
  if (shard) return shard[1]
  for (const name of [file, ...parts.reverse()])
    for (const word of name.split(/[-._ \d]+/)) if (word in words) return words[word]
  return null
}
