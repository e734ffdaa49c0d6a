import { HalflingError } from '../errors.ts'
import { fileSystem, isNode } from '../formats/file-system.ts'

/** Refuses before the first byte what the disk of `folder` has no room for. */
export async function checkSpace(what: string, folder: string, bytes: number): Promise<void> {
  const { statfs } = await fileSystem()
  // Where the system does not say, the write will.
  const disk = await statfs(folder).catch(() => null)
  if (!disk || bytes <= disk.bavail * disk.bsize) return
  const [needed, free] = [bytes, disk.bavail * disk.bsize].map((n) =>
    Number((n / 1e6).toPrecision(3)).toLocaleString('en-US'),
  )
  const where = isNode ? `are free in ${folder}` : 'are left of what the browser lets this site keep'
  const remedy = isNode
    ? 'free some, or point HF_HUB_CACHE at another disk'
    : 'remove a model (removeModel), or free the disk'
  throw new HalflingError('io', `${what}: needs ${needed} MB more, and ${free} MB ${where}: ${remedy}`)
}

/** Asks the browser not to clear what is stored when it needs room. It may ask the person: that is not waited for. */
export function askToKeep(): void {
  if (!isNode) void navigator.storage.persist?.().catch(() => {})
}
