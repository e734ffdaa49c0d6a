import { isObject } from '../options.ts'
import type { Source, Store } from '../store/store.ts'
import { readJson, textChunks } from '../store/text.ts'
import type { RepoFile } from './listing.ts'
import { isSafePath } from './names.ts'

// trees/<commit>.json of huggingface_hub: what a repository holds at a commit, so that offline one can tell whether a snapshot
// is whole.

/** Bytes of every file by its path; null when there is no tree that can be used. */
export async function readTree(store: Source, path: string): Promise<Map<string, number> | null> {
  const tree = await readJson(store, path).catch(() => null)
  if (tree?.format_version !== 1 || !isObject(tree.files)) return null
  const sizes = new Map<string, number>()
  for (const [name, entry] of Object.entries(tree.files)) {
    if (!isSafePath(name) || !isObject(entry) || typeof entry.size !== 'number') return null
    sizes.set(name, entry.size)
  }
  return sizes
}

export async function writeTree(store: Store, path: string, files: readonly RepoFile[]): Promise<void> {
  const entries = files.map(({ path, size, blobId, checksum }) => {
    const lfs = checksum.kind === 'sha256' ? { lfs_sha256: checksum.value, lfs_size: size } : {}
    return [path, { size, blob_id: blobId, ...lfs }]
  })
  const text = JSON.stringify({ format_version: 1, files: Object.fromEntries(entries) }, null, 1)
  await store.write(path, textChunks(text))
}
