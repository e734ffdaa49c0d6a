import type { Store } from '../store/store.ts'
import { pause } from './request.ts'

/**
 * Runs `work` while nobody else does the same under this name of a store; waits for one that does.
 *
 * @param onWait told a few times a second while another works
 */
export async function withLock<T>(
  store: Store,
  name: string,
  signal: AbortSignal | undefined,
  onWait: () => Promise<void>,
  work: () => Promise<T>,
): Promise<T> {
  let lock = await store.lock(name)
  while (typeof lock === 'string') {
    await onWait()
    await pause(200, signal)
    lock = await store.lock(name)
  }
  try {
    return await work()
  } finally {
    await lock()
  }
}
