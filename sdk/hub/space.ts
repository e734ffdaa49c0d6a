import { HalflingError } from '../errors.ts'

/** Refuses before the first byte what the disk of `folder` has no room for. */
export async function checkSpace(what: string, folder: string, bytes: number): Promise<void> {
  const { statfs } = await import('node:fs/promises')
  // Where the system does not say, the write will.
  const disk = await statfs(folder).catch(() => null)
  if (!disk || bytes <= disk.bavail * disk.bsize) return
  const [needed, free] = [bytes, disk.bavail * disk.bsize].map((n) =>
    Number((n / 1e6).toPrecision(3)).toLocaleString('en-US'),
  )
  const message = `needs ${needed} MB more, and ${free} MB are free in ${folder}`
  throw new HalflingError('io', `${what}: ${message}: free some, or point HF_HUB_CACHE at another disk`)
}
