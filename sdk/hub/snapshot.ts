import { HubError } from '../errors.ts'
import { dirname, fileSystem, join } from '../formats/file-system.ts'
import { writeAtomically, writeError } from '../formats/node-file.ts'
import { download } from './download.ts'
import { listRepo, type RepoFile } from './listing.ts'
import { folderOf, type Repo } from './names.ts'
import { cacheRoot, endpoint } from './settings.ts'
import { checkSpace } from './space.ts'
import { readTree, writeTree } from './tree.ts'

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
  const fs = await fileSystem()
  const root = join(await cacheRoot(), folderOf(repo))
  const commit = await readCommit(root, repo.revision)
  if (!commit) return null
  const folder = join(root, 'snapshots', commit)
  const sizeOf = (path: string) =>
    fs.stat(join(folder, path)).then(
      (stat) => (stat.isFile() ? stat.size : -1),
      () => -1,
    )
  const tree = await readTree(join(root, 'trees', `${commit}.json`))
  if (tree) {
    const paths = choose([...tree.keys()])
    for (const path of paths) if ((await sizeOf(path)) !== tree.get(path)) return null
    return { folder, paths }
  }
  // A download without one: the names have to tell whether it is whole.
  const entries = await fs.readdir(folder, { recursive: true }).catch(() => [])
  try {
    const paths = choose(entries.map((path) => path.replaceAll('\\', '/')))
    const present = await Promise.all(paths.map(sizeOf))
    return hasAllShards(paths) && present.every((size) => size >= 0) ? { folder, paths } : null
  } catch (error) {
    if (error instanceof HubError) return null
    throw error
  }
}

/** Downloads what is not here yet. The revision points at the new commit only when everything that was chosen is here. */
export async function pullSnapshot(repo: Repo, choose: Choose, options: PullOptions = {}): Promise<Snapshot> {
  const fs = await fileSystem()
  const root = join(await cacheRoot(), folderOf(repo))
  const listing = await listRepo(repo, options.signal)
  const byPath = new Map(listing.files.map((file) => [file.path, file]))
  const files = choose([...byPath.keys()]).map((path) => byPath.get(path)!)
  const folder = join(root, 'snapshots', listing.commit)
  const blobOf = ({ checksum }: RepoFile) => join(root, 'blobs', checksum.value)
  const hasSize = (path: string, size: number) =>
    fs.stat(path).then(
      (stat) => stat.size === size,
      () => false,
    )
  await makeFolder(join(root, 'blobs'))
  await makeFolder(folder)

  let missing = 0
  for (const file of files) {
    if ((await hasSize(join(folder, file.path), file.size)) || (await hasSize(blobOf(file), file.size))) continue
    missing +=
      file.size -
      (await fs.stat(`${blobOf(file)}.incomplete`).then(
        ({ size }) => size,
        () => 0,
      ))
  }
  await checkSpace(repo.id, root, missing)

  const totalBytes = files.reduce((sum, { size }) => sum + size, 0)
  const tell = throttled(options.onProgress)
  let loadedBytes = 0
  for (const file of files) {
    const [blob, pointer] = [blobOf(file), join(folder, file.path)]
    if (!(await hasSize(pointer, file.size))) {
      if (!(await hasSize(blob, file.size))) {
        await fs.rm(blob, { force: true })
        await download({
          ...file,
          what: `${repo.id}: ${file.path}`,
          url: resolveUrl(repo, listing.commit, file.path),
          path: blob,
          signal: options.signal,
          onBytes: (bytes) => tell({ file: file.path, loadedBytes: loadedBytes + bytes, totalBytes }),
        })
      }
      await makeFolder(dirname(pointer))
      await link(blob, pointer)
    }
    loadedBytes += file.size
    tell({ file: file.path, loadedBytes, totalBytes }, loadedBytes === totalBytes)
  }
  await makeFolder(join(root, 'trees'))
  await writeTree(join(root, 'trees', `${listing.commit}.json`), listing.files)
  if (repo.revision !== listing.commit) {
    const ref = join(root, 'refs', repo.revision)
    await makeFolder(dirname(ref))
    await writeAtomically(ref, [new TextEncoder().encode(listing.commit)])
  }
  return { folder, paths: files.map(({ path }) => path) }

  async function makeFolder(path: string): Promise<void> {
    await fs.mkdir(path, { recursive: true }).catch((error) => {
      throw writeError(path, error)
    })
  }
}

function resolveUrl({ kind, id }: Repo, commit: string, path: string): string {
  const folder = kind === 'dataset' ? 'datasets/' : ''
  return `${endpoint()}/${folder}${id}/resolve/${commit}/${path.split('/').map(encodeURIComponent).join('/')}`
}

/** The commit that a revision stands for in the cache. */
async function readCommit(root: string, revision: string): Promise<string | null> {
  const { readFile } = await fileSystem()
  if (/^[0-9a-f]{40}$/.test(revision)) return revision
  const commit = (await readFile(join(root, 'refs', revision), 'utf8').catch(() => '')).trim()
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

/** A relative link; where links are not allowed (Windows without developer mode), the file itself. */
async function link(blob: string, pointer: string): Promise<void> {
  const fs = await fileSystem()
  try {
    await fs.rm(pointer, { force: true })
    await fs.symlink(relative(pointer, blob), pointer)
  } catch (error) {
    // Another process has just made the same one.
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return
    await fs.rename(blob, pointer).catch((cause) => {
      throw writeError(pointer, cause)
    })
  }
}

/** A path from the folder of one file to another; both are in the same repository. */
function relative(from: string, to: string): string {
  const [a, b] = [from.split('/'), to.split('/')]
  let same = 0
  while (a[same] === b[same]) same++
  return [...a.slice(same, -1).map(() => '..'), ...b.slice(same)].join('/')
}

function throttled(onProgress: PullOptions['onProgress']): (progress: PullProgress, now?: boolean) => void {
  let told = 0
  return (progress, now = false) => {
    if (!onProgress || (!now && performance.now() - told < 100)) return
    told = performance.now()
    onProgress(progress)
  }
}
