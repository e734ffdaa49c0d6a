import { OptionError } from '../errors.ts'
import { isNode, join } from './file-system.ts'
import { makeFolder, writeError } from './node-file.ts'
import { plain } from './opfs.ts'

/** Milliseconds: how often a holder shows that it lives, and after how long without that it is taken for dead. */
const [beat, dead] = [5_000, 30_000]

/**
 * Takes a lock file (in a browser a lock of that name, which ends with its tab), over from a holder that is dead (its process is gone, or has not touched it for half a minute).
 *
 * @returns what gives it back; null while another process holds it
 */
export async function takeLock(path: string): Promise<(() => Promise<void>) | null> {
  if (!isNode) return takeWebLock(path)
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
    const stale = await fs.readFile(path, 'utf8').catch(() => '')
    if (!(await isStale(path))) return null
    // Aside first: since the look at it, another process may have taken it over.
    const aside = `${path}.${Math.random().toString(36).slice(2)}`
    if (!(await fs.rename(path, aside).then(yes, no))) return null
    if ((await fs.readFile(aside, 'utf8')) !== stale) {
      await fs.rename(aside, path)
      return null
    }
    await fs.rm(aside)
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

const [yes, no] = [() => true, () => false]

/**
 * Keeps other processes from writing into a folder, which is made where it is missing.
 *
 * @returns what gives it back
 * @throws OptionError naming the process that writes into it, HalflingError of code 'io'
 */
export async function lockFolder(folder: string): Promise<() => Promise<void>> {
  await makeFolder(folder)
  const path = join(folder, 'run.lock')
  const release = await takeLock(path).catch((cause) => {
    throw writeError(folder, cause)
  })
  if (release) return release
  throw new OptionError(`${folder}: ${await holder(path)} writes into it: wait for it, or give another folder`)
}

async function holder(path: string): Promise<string> {
  if (!isNode) return 'another tab, or another run in this one,'
  const { readFile } = await import('node:fs/promises')
  const [pid] = (await readFile(path, 'utf8').catch(() => '')).split(' ')
  return `process ${pid}`
}

const webLockName = (path: string): string => `halfling:${plain(path)}`

function takeWebLock(path: string): Promise<(() => Promise<void>) | null> {
  return new Promise((resolve, reject) => {
    const ended = navigator.locks.request(webLockName(path), { ifAvailable: true }, (lock) => {
      if (!lock) return resolve(null)
      return new Promise<void>((release) => {
        resolve(async () => {
          release()
          await ended
        })
      })
    })
    ended.catch(reject)
  })
}

/** Whether somebody alive holds this lock. */
export async function isTaken(path: string): Promise<boolean> {
  if (!isNode) {
    const { held = [] } = await navigator.locks.query()
    return held.some(({ name }) => name === webLockName(path))
  }
  const { access } = await import('node:fs/promises')
  return (await access(path).then(yes, no)) && !(await isStale(path))
}

/** Whether nobody holds this lock file any more; false when there is none. */
async function isStale(path: string): Promise<boolean> {
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
