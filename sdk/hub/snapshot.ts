import { HubError } from '../errors.ts'
import { isNode } from '../runtime.ts'
import { join } from '../store/path.ts'
import { below, type Store } from '../store/store.ts'
import { readText, textChunks } from '../store/text.ts'
import { download } from './download.ts'
import { listRepo, type RepoFile } from './listing.ts'
import { folderOf, type Repo } from './names.ts'
import { cache, endpoint } from './settings.ts'
import { checkSpace } from './space.ts'
import { readTree, writeTree } from './tree.ts'
import { walk } from './walk.ts'

// The layout of huggingface_hub, so that Python shares the cache: blobs/<checksum>, snapshots/<commit>/<path> -> blob,
// refs/<revision> holds a commit, trees/<commit>.json a listing.

/** Told while files come, a few times a second at most. */
export interface PullProgress {
  /** The file that comes just now. */
  readonly file: string
  /** Bytes that are here, those from before too; of `totalBytes` in all. */
  readonly loadedBytes: number
  readonly totalBytes: number
}

export interface PullOptions {
  /** A branch, a tag or a commit; default `main`. */
  readonly revision?: string
  readonly onProgress?: (progress: PullProgress) => void
  /** Ends the download with the signal's reason; the next one goes on from there. */
  readonly signal?: AbortSignal
}

/** Files of a repository on this disk. */
export interface Snapshot {
  readonly folder: string
  /** Below the folder. */
  readonly paths: readonly string[]
}

/** Which of these paths are wanted. Throws HubError when what is needed is not among them. */
export type Choose = (paths: readonly string[]) => string[]

/** What the cache has, without asking the network; null when it is not whole. */
export async function findSnapshot(repo: Repo, choose: Choose): Promise<Snapshot | null> {
  const store = await cache()
  const root = folderOf(repo)
  const commit = await readCommit(store, root, repo.revision)
  if (!commit) return null
  const folder = below(store, join(root, 'snapshots', commit))
  const sizeOf = async (path: string): Promise<number> => (await folder.open(path).catch(() => null))?.size ?? -1
  const tree = await readTree(store, join(root, 'trees', `${commit}.json`))
  if (tree) {
    const paths = choose([...tree.keys()])
    for (const path of paths) if ((await sizeOf(path)) !== tree.get(path)) return null
    return { folder: folder.name, paths }
  }
  // A download without one: the names have to tell whether it is whole.
  const files = await walk(folder)
  try {
    const paths = choose(files.map(({ name }) => name))
    const present = await Promise.all(paths.map(sizeOf))
    return hasAllShards(paths) && present.every((size) => size >= 0) ? { folder: folder.name, paths } : null
  } catch (error) {
    if (error instanceof HubError) return null
    throw error
  }
}

/** Downloads what is not here yet. The revision points at the new commit only when everything that was chosen is here. */
export async function pullSnapshot(repo: Repo, choose: Choose, options: PullOptions = {}): Promise<Snapshot> {
  const store = await cache()
  const root = folderOf(repo)
  const listing = await listRepo(repo, options.signal)
  const byPath = new Map(listing.files.map((file) => [file.path, file]))
  const files = choose([...byPath.keys()]).map((path) => byPath.get(path)!)
  const folder = join(root, 'snapshots', listing.commit)
  const blobOf = ({ checksum }: RepoFile) => join(root, 'blobs', checksum.value)
  const sizeOf = async (path: string): Promise<number> => (await store.open(path))?.size ?? 0
  const hasSize = async (path: string, size: number) => (await store.open(path))?.size === size

  let missing = 0
  for (const file of files)
    if (!(await hasSize(join(folder, file.path), file.size)) && !(await hasSize(blobOf(file), file.size)))
      missing += file.size - (await sizeOf(`${blobOf(file)}.incomplete`))
  await checkSpace(repo.id, store, missing)

  const totalBytes = files.reduce((sum, { size }) => sum + size, 0)
  const tell = throttled(options.onProgress)
  let loadedBytes = 0
  for (const file of files) {
    const [blob, pointer] = [blobOf(file), join(folder, file.path)]
    if (!(await hasSize(pointer, file.size))) {
      if (!(await hasSize(blob, file.size))) {
        await store.remove(blob)
        await download({
          ...file,
          what: `${repo.id}: ${file.path}`,
          url: resolveUrl(repo, listing.commit, file.path),
          store,
          path: blob,
          signal: options.signal,
          onBytes: (bytes) => tell({ file: file.path, loadedBytes: loadedBytes + bytes, totalBytes }),
        })
      }
      await link(store, blob, pointer)
    }
    loadedBytes += file.size
    tell({ file: file.path, loadedBytes, totalBytes }, loadedBytes === totalBytes)
  }
  await writeTree(store, join(root, 'trees', `${listing.commit}.json`), listing.files)
  if (repo.revision !== listing.commit) await store.write(join(root, 'refs', repo.revision), textChunks(listing.commit))
  return { folder: join(store.name, folder), paths: files.map(({ path }) => path) }
}

function resolveUrl({ kind, id }: Repo, commit: string, path: string): string {
  const folder = kind === 'dataset' ? 'datasets/' : ''
  return `${endpoint()}/${folder}${id}/resolve/${commit}/${path.split('/').map(encodeURIComponent).join('/')}`
}

/** The commit that a revision stands for in the cache. */
async function readCommit(store: Store, root: string, revision: string): Promise<string | null> {
  if (/^[0-9a-f]{40}$/.test(revision)) return revision
  const commit = (await readText(store, join(root, 'refs', revision)).catch(() => null))?.trim() ?? ''
  return /^[0-9a-f]{40}$/.test(commit) ? commit : null
}

/** Of files named x-00001-of-00003 all three are here. */
export function hasAllShards(paths: readonly string[]): boolean {
  const seen = new Map<string, number>()
  for (const path of paths) {
    const [, before, count] = /^(.*)-\d+-of-(\d+)/.exec(path) ?? []
    if (count) seen.set(`${before}-${count}`, (seen.get(`${before}-${count}`) ?? 0) + 1)
  }
  return [...seen].every(([name, n]) => n === Number(name.slice(name.lastIndexOf('-') + 1)))
}

/** A relative link; where there are none (in a page, on Windows without developer mode), the file itself. */
async function link(store: Store, blob: string, pointer: string): Promise<void> {
  await store.remove(pointer)
  if (isNode) {
    const [{ mkdir, symlink }, { dirname, relative }] = await Promise.all([
      import('node:fs/promises'),
      import('node:path'),
    ])
    const [from, to] = [join(store.name, pointer), join(store.name, blob)]
    try {
      await mkdir(dirname(from), { recursive: true })
      return await symlink(relative(dirname(from), to), from)
    } catch (error) {
      // Another process has just made the same one.
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') return
    }
  }
  await store.move(blob, pointer)
}

function throttled(onProgress: PullOptions['onProgress']): (progress: PullProgress, now?: boolean) => void {
  let told = 0
  return (progress, now = false) => {
    if (!onProgress || (!now && performance.now() - told < 100)) return
    told = performance.now()
    onProgress(progress)
  }
}
