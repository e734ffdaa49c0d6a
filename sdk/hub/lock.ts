import { takeLock } from '../formats/lock.ts'
import { pause } from './request.ts'

/**
 * Runs `work` while no other process does the same under this path; waits for one that does.
 *
 * @param onWait told a few times a second while another process works
 */
export async function withLock<T>(
  path: string,
  signal: AbortSignal | undefined,
  onWait: () => Promise<void>,
  work: () => Promise<T>,
): Promise<T> {
  let release = await takeLock(path)
  while (release === null) {
    await onWait()
    await pause(200, signal)
    release = await takeLock(path)
  }
  try {
    return await work()
  } finally {
    await release()
  }
}
