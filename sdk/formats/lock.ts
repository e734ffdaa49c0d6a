import { OptionError } from '../errors.ts'
import { inNode, join } from './file-system.ts'
import { makeFolder, writeError } from './files.ts'

/** Milliseconds: how often a holder shows that it lives, and after how long without that it is taken for dead. */
const [beat, dead] = [5_000, 30_000]

/**
 * Takes a lock file, over from a holder that is dead (its process is gone, or has not touched it for half a minute).
 *
 * @returns what gives it back; null while another process holds it
 */
export const takeLock = (path: string): Promise<(() => Promise<void>) | null> =>
  inNode ? takeLockFile(path) : takeWebLock(path)

async function takeLockFile(path: string): Promise<(() => Promise<void>) | null> {
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
  throw new OptionError(`${folder}: ${await holderOf(path)} writes into it: wait for it, or give another folder`)
}

async function holderOf(path: string): Promise<string> {
  if (!inNode) return 'another tab or worker'
  const { readFile } = await import('node:fs/promises')
  const [pid] = (await readFile(path, 'utf8').catch(() => '')).split(' ')
  return `process ${pid}`
}

/** A lock of the page's origin: given back too when its tab is closed. */
function takeWebLock(path: string): Promise<(() => Promise<void>) | null> {
  return new Promise((resolve, reject) => {
    const held = navigator.locks.request(`halfling ${path}`, { ifAvailable: true }, (lock) => {
      if (!lock) return resolve(null)
      return new Promise<void>((release) =>
        resolve(async () => {
          release()
          await held
        }),
      )
    })
    held.catch(reject)
  })
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
