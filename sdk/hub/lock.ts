import { pause } from './request.ts'

/** Milliseconds: how often a holder shows that it lives, and after how long without that it is taken for dead. */
const [beat, dead] = [5_000, 30_000]

/**
 * Runs `work` while no other process does the same under this path; waits for one that does. A lock that was left behind
 * (its process is gone, or has not touched it for half a minute) is taken over.
 *
 * @param onWait told a few times a second while another process works
 */
export async function withLock<T>(
  path: string,
  signal: AbortSignal | undefined,
  onWait: () => Promise<void>,
  work: () => Promise<T>,
): Promise<T> {
  const [fs, { hostname }] = await Promise.all([import('node:fs/promises'), import('node:os')])
  const owner = `${process.pid} ${hostname()} ${Math.random()}`
  while (!(await take())) {
    if (await isStale(path)) await fs.rm(path, { force: true })
    else {
      await onWait()
      await pause(200, signal)
    }
  }
  const timer = setInterval(() => fs.utimes(path, new Date(), new Date()).catch(() => {}), beat)
  timer.unref()
  try {
    return await work()
  } finally {
    clearInterval(timer)
    // Not a lock that somebody has taken over.
    if ((await fs.readFile(path, 'utf8').catch(() => '')) === owner) await fs.rm(path, { force: true })
  }

  function take(): Promise<boolean> {
    return fs.writeFile(path, owner, { flag: 'wx' }).then(
      () => true,
      (error: NodeJS.ErrnoException) => {
        if (error.code === 'EEXIST') return false
        throw error
      },
    )
  }
}

/** Whether nobody holds this lock any more; false when there is none. */
export async function isStale(path: string): Promise<boolean> {
  const [fs, { hostname }] = await Promise.all([import('node:fs/promises'), import('node:os')])
  const stat = await fs.stat(path).catch(() => null)
  if (!stat) return false
  if (Date.now() - stat.mtimeMs > dead) return true
  const [pid, host] = (await fs.readFile(path, 'utf8').catch(() => '')).split(' ')
  return host === hostname() && !isAlive(Number(pid))
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}
