import { HalflingError } from '../errors.ts'
import { inNode } from '../formats/file-system.ts'

/** Refuses before the first byte what the disk of `folder` has no room for. */
export async function checkSpace(what: string, folder: string, bytes: number): Promise<void> {
  // Where the system does not say, the write will.
  const free = await (inNode ? freeOnDisk(folder) : freeForOrigin()).catch(() => Number.POSITIVE_INFINITY)
  if (bytes <= free) return
  const [needed, there] = [bytes, free].map((n) => Number((n / 1e6).toPrecision(3)).toLocaleString('en-US'))
  const remedy = inNode ? 'free some, or point HF_HUB_CACHE at another disk' : 'remove models, or free the disk'
  const place = inNode ? folder : 'what the browser gives this page'
  throw new HalflingError('io', `${what}: needs ${needed} MB more, and ${there} MB are free in ${place}: ${remedy}`)
}

async function freeOnDisk(folder: string): Promise<number> {
  const { statfs } = await import('node:fs/promises')
  const { bavail, bsize } = await statfs(folder)
  return bavail * bsize
}

/** Asks for storage that the browser does not clear by itself, too. */
async function freeForOrigin(): Promise<number> {
  await navigator.storage.persist()
  const { quota = Number.POSITIVE_INFINITY, usage = 0 } = await navigator.storage.estimate()
  return quota - usage
}
