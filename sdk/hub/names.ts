import { HubError, OptionError } from '../errors.ts'

export type RepoKind = 'model' | 'dataset'

/** A repository of the hub at a revision. */
export interface Repo {
  readonly kind: RepoKind
  /** `org/name` */
  readonly id: string
  /** A branch, a tag or a commit. */
  readonly revision: string
}

/** `org/name[@revision]`, or one file of it: `org/name/file.gguf[@revision]`. */
export interface ModelName extends Repo {
  readonly file: string | null
}

/** `org/name[/folder or file][:split][@revision]` */
export interface DatasetName extends Repo {
  /** A folder or a file of the repository; empty: all of it. */
  readonly path: string
  readonly split: string
}

const part = /^[\p{L}\p{N}_][\p{L}\p{N}_.-]*$/u

/** What a model's name stands for on the hub; null where it can only be a path. */
export function parseModelName(name: string, revision?: string): ModelName | null {
  const { path, at } = splitRevision(name)
  const parts = path.split('/')
  const file = parts.slice(2).join('/')
  if (!isRepoId(parts) || (parts.length > 2 && !(/\.gguf$/i.test(file) && isSafePath(file)))) return null
  if (file === '' && /\.(gguf|safetensors|json)$/i.test(path)) return null
  return { kind: 'model', id: parts.slice(0, 2).join('/'), file: file || null, revision: chosen(name, at, revision) }
}

/** What a dataset's name stands for on the hub; null where it can only be a path. */
export function parseDatasetName(name: string, revision?: string): DatasetName | null {
  const { path: whole, at } = splitRevision(name)
  const [path, split, ...more] = whole.split(':')
  const parts = path.split('/')
  const inside = parts.slice(2).join('/')
  const isFile = parts.length === 2 && /\.(parquet|jsonl?|csv|txt|arrow)$/i.test(path)
  if (!isRepoId(parts) || isFile || more.length > 0 || (parts.length > 2 && !isSafePath(inside))) return null
  if (split !== undefined && !/^\w[\w.-]*$/.test(split)) return null
  const id = parts.slice(0, 2).join('/')
  return { kind: 'dataset', id, path: inside, split: split ?? 'train', revision: chosen(name, at, revision) }
}

/** Two names with a slash between them, each of letters, digits, '.', '_' and '-'. */
const isRepoId = (parts: readonly string[]): boolean =>
  parts.length >= 2 && parts.slice(0, 2).every((name) => part.test(name) && !/\.\.|--/.test(name))

/** A path below a folder, on every system: no '..', no drive, no backslash. */
export const isSafePath = (path: string): boolean =>
  path.length <= 1024 && path.split('/').every((name) => !/^(\.{0,2})$|[\\:\0]/.test(name))

function splitRevision(name: string): { path: string; at: string | undefined } {
  const i = name.indexOf('@')
  return i < 0 ? { path: name, at: undefined } : { path: name.slice(0, i), at: name.slice(i + 1) }
}

function chosen(name: string, at: string | undefined, revision: string | undefined): string {
  if (at !== undefined && revision !== undefined && at !== revision)
    throw new OptionError(`${name}: revision is "${revision}" as well: give one of them`)
  const value = at ?? revision ?? 'main'
  if (!/^[\w.-]+(\/[\w.-]+)*$/.test(value) || value.includes('..'))
    throw new HubError(`${name}: "${value}" is not a branch, a tag or a commit`)
  return value
}

/** `models--org--name` */
export const folderOf = ({ kind, id }: Pick<Repo, 'kind' | 'id'>): string => `${kind}s--${id.replace('/', '--')}`
