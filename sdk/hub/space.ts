import { megabytes } from '../bytes.ts'
import { HalflingError } from '../errors.ts'
import { isNode } from '../runtime.ts'
import type { Store } from '../store/store.ts'

/** Refuses before the first byte what there is no room for. */
export async function checkSpace(what: string, store: Store, bytes: number): Promise<void> {
  const free = await freeBytes(store.name)
  if (bytes <= free) return
  const where = isNode ? `are free in ${store.name}` : 'are left of what the browser lets this site keep'
  const remedy = isNode
    ? 'free some, or point HF_HUB_CACHE at another disk'
    : 'remove a model (removeModel), or free the disk'
  throw new HalflingError('io', `${what}: needs ${megabytes(bytes)} more, and ${megabytes(free)} ${where}: ${remedy}`)
}

async function freeBytes(folder: string): Promise<number> {
  if (!isNode) {
    const { quota = 0, usage = 0 } = await navigator.storage.estimate()
    return quota - usage
  }
  const { mkdir, statfs } = await import('node:fs/promises')
  await mkdir(folder, { recursive: true }).catch(() => {})
  // Where the system does not say, the write will.
  return statfs(folder).then(
    ({ bavail, bsize }) => bavail * bsize,
    () => Number.POSITIVE_INFINITY,
  )
}

/** Asks the browser not to clear what is stored when it needs room. It may ask the person: that is not waited for. */
export function askToKeep(): void {
  if (!isNode) void navigator.storage.persist?.().catch(() => {})
}
