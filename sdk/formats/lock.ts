/** Milliseconds: how often a holder shows that it lives, and after how long without that it is taken for dead. */
const [beat, dead] = [5_000, 30_000]

/**
 * Takes a lock file, over from a holder that is dead (its process is gone, or has not touched it for half a minute).
 *
 * @returns what gives it back; null while another process holds it
 */
export async function takeLock(path: string): Promise<(() => Promise<void>) | null> {
  const [fs, { hostname }] = await Promise.all([import('node:fs/promises'), import('node:os')])
  const owner = `${process.pid} ${hostname()} ${Math.random()}`
  const take = (): Promise<boolean> =>
    fs.writeFile(path, owner, { flag: 'wx' }).then(
      () => true,
      (error: NodeJS.ErrnoException) => {
        if (error.code === 'EEXIST') return false
        throw error
      },
    )
  if (!(await take())) {
    if (!(await isStale(path))) return null
    await fs.rm(path, { force: true })
    if (!(await take())) return null
  }
  const timer = setInterval(() => fs.utimes(path, new Date(), new Date()).catch(() => {}), beat)
  timer.unref()
  return async () => {
    clearInterval(timer)
    // Not a lock that somebody has taken over.
    if ((await fs.readFile(path, 'utf8').catch(() => '')) === owner) await fs.rm(path, { force: true })
  }
}

/** The process that holds a lock, as its number. */
export async function lockHolder(path: string): Promise<string> {
  const { readFile } = await import('node:fs/promises')
  return (await readFile(path, 'utf8').catch(() => '')).split(' ')[0]
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
