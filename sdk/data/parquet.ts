import { DataError } from '../errors.ts'

const mega = 2 ** 20
/** Reads files of Node: not in the URL itself, or bundlers for browsers would take it along. */
const workerFile = './parquet-worker.mjs'

/** One of parquet-worker.mjs. */
interface Message {
  readonly rows?: readonly Record<string, unknown>[]
  readonly from?: number
  readonly done?: true
  readonly error?: string
}

/**
 * The rows of a parquet file in order, each with its number from 0. Lists and structs are arrays and objects; whole numbers of 64
 * bits are numbers where they are exact, else strings; dates are ISO strings; bytes are strings where they are UTF-8.
 *
 * One row group at most is in memory, in slices of about 64 MB unpacked.
 *
 * The file is read in a thread with a bound on memory (by the file's size) and on time: a file that lies ends in an error.
 *
 * @throws DataError naming the file, and where it is known the row group and column
 */
export async function* readParquet(path: string): AsyncGenerator<{ values: Record<string, unknown>; index: number }> {
  const { stat } = await import('node:fs/promises')
  const { Worker } = await import('node:worker_threads')
  const { size } = await stat(path).catch((cause) => {
    throw new DataError(`${path}: cannot be read: ${cause.message}`, { cause })
  })
  const megabytes = Math.ceil(size / mega)
  const worker = new Worker(new URL(workerFile, import.meta.url), {
    execArgv: [],
    workerData: { path, decodedLimit: (64 + 32 * megabytes) * mega },
    resourceLimits: { maxOldGenerationSizeMb: 96 + 48 * megabytes, maxYoungGenerationSizeMb: 32 },
  })
  const fail = (what: string, cause?: unknown) =>
    new DataError(`${path}: is not a readable parquet file: ${what}`, { cause })
  const seconds = 20 + 2 * megabytes
  const ask = (): Promise<Message> =>
    new Promise((resolve, reject) => {
      const timer = setTimeout(() => settle(() => reject(fail(`no rows within ${seconds} s`))), seconds * 1000)
      const onMessage = (message: Message) => settle(() => resolve(message))
      const onError = (cause: NodeJS.ErrnoException) => {
        const tooMuch = cause.code === 'ERR_WORKER_OUT_OF_MEMORY'
        const what = tooMuch ? 'it asks for more memory than its size can need' : cause.message
        settle(() => reject(fail(what, cause)))
      }
      const onExit = () => settle(() => reject(fail('its reader ended')))
      const settle = (end: () => void) => {
        clearTimeout(timer)
        worker.off('message', onMessage)
        worker.off('error', onError)
        worker.off('exit', onExit)
        end()
      }
      worker.on('message', onMessage)
      worker.on('error', onError)
      worker.on('exit', onExit)
      worker.postMessage({})
    })
  try {
    for (;;) {
      const { rows, from, error, done } = await ask()
      if (error !== undefined) throw fail(error)
      if (done) return
      for (const [i, values] of rows!.entries()) yield { values, index: from! + i }
    }
  } finally {
    worker.on('error', () => {})
    await worker.terminate()
  }
}
