import type { Release } from './store.ts'

/** Milliseconds: how often a holder shows that it lives, and after how long without that it is taken for dead. */
const [beat, dead] = [5_000, 30_000]

/**
 * Takes a lock file of Node's disk, over from a holder that is dead: its process is gone, or has not touched it for half a minute.
 *
 * @returns what gives it back, or who holds it
 */
export async function diskLock(path: string): Promise<Release | string> {
  const [fs, { hostname }] = await Promise.all([import('node:fs/promises'), import('node:os')])
  const owner = `${process.pid} ${hostname()} ${Math.random()}`
  const content = (): Promise<string> => fs.readFile(path, 'utf8').catch(() => '')
  const take = (): Promise<boolean> =>
    fs.writeFile(path, owner, { flag: 'wx' }).then(yes, (error: NodeJS.ErrnoException) => {
      if (error.code === 'EEXIST') return false
      throw error
    })

  /** Whether nobody holds it any more. */
  async function isStale(): Promise<boolean> {
    const stat = await fs.stat(path).catch(() => null)
    if (!stat) return false
    if (Date.now() - stat.mtimeMs > dead) return true
    const [pid, host] = (await content()).split(' ')
    return host === hostname() && !isAlive(Number(pid))
  }

  /** Of those that find it stale one moves it aside. */
  async function takeOver(): Promise<boolean> {
    const stale = await content()
    if (!(await isStale())) return false
    // Aside first: since the look at it, another process may have taken it over.
    const aside = `${path}.${Math.random().toString(36).slice(2)}`
    if (!(await fs.rename(path, aside).then(yes, no))) return false
    if ((await fs.readFile(aside, 'utf8')) !== stale) {
      await fs.rename(aside, path)
      return false
    }
    await fs.rm(aside)
    return take()
  }

  if (!(await take()) && !(await takeOver())) return `process ${(await content()).split(' ')[0]}`
  const timer = setInterval(() => fs.utimes(path, new Date(), new Date()).catch(() => {}), beat)
  timer.unref()
  return async () => {
    clearInterval(timer)
    // Not a lock that somebody has taken over.
    if ((await content()) === owner) await fs.rm(path, { force: true })
  }
}

const [yes, no] = [() => true, () => false]

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}
