import { DataError } from '../errors.ts'

/** Rows of a row group that are in memory at once. */
const sliceRows = 4096
const mega = 2 ** 20

interface Slice {
  readonly rows?: readonly Readonly<Record<string, unknown>>[]
  readonly from?: number
  readonly done?: true
  readonly error?: string
}

/**
 * The rows of a parquet file in order, a slice at a time, each with its number from 0. Lists and structs are arrays and objects;
 * whole numbers of 64 bits are numbers where they are exact, else strings; bytes that are UTF-8 are strings, dates ISO strings.
 *
 * The file is read in a thread with a bound on memory (by the file's size) and on time: a file that lies ends in an error.
 *
 * @throws DataError naming the file
 */
export async function* readParquet(path: string): AsyncGenerator<{ values: Record<string, unknown>; index: number }> {
  const { stat } = await import('node:fs/promises')
  const { Worker } = await import('node:worker_threads')
  const { size } = await stat(path).catch((cause) => {
    throw new DataError(`${path}: cannot be read: ${cause.message}`, { cause })
  })
  const megabytes = Math.ceil(size / mega)
  const worker = new Worker(new URL('./parquet-worker.mjs', import.meta.url), {
    execArgv: [],
    workerData: { path, sliceRows, largestPage: (64 + 32 * megabytes) * mega },
    resourceLimits: { maxOldGenerationSizeMb: 96 + 48 * megabytes, maxYoungGenerationSizeMb: 32 },
  })
  const fail = (what: string, cause?: unknown) =>
    new DataError(`${path}: is not a readable parquet file: ${what}`, { cause })
  const seconds = 5 + 2 * megabytes
  const ask = (): Promise<Slice> =>
    new Promise((resolve, reject) => {
      const timer = setTimeout(() => settle(() => reject(fail(`no rows within ${seconds} s`))), seconds * 1000)
      const onMessage = (slice: Slice) => settle(() => resolve(slice))
      const onError = (cause: NodeJS.ErrnoException) =>
        settle(() =>
          reject(
            fail(
              cause.code === 'ERR_WORKER_OUT_OF_MEMORY'
                ? 'it asks for more memory than its size can need'
                : cause.message,
              cause,
            ),
          ),
        )
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
      for (const [i, values] of rows!.entries())
        yield { values: plain(values, `${path} row ${from! + i}`) as Record<string, unknown>, index: from! + i }
    }
  } finally {
    worker.on('error', () => {})
    await worker.terminate()
  }
}

/** What JSON could have said. */
function plain(value: unknown, place: string): unknown {
  if (typeof value === 'bigint') return Number.isSafeInteger(Number(value)) ? Number(value) : String(value)
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value.toISOString()
  if (value instanceof Uint8Array) {
    try {
      return new TextDecoder('utf-8', { fatal: true }).decode(value)
    } catch (cause) {
      throw new DataError(`${place}: has bytes that are not UTF-8 text`, { cause })
    }
  }
  if (ArrayBuffer.isView(value)) return Array.from(value as unknown as ArrayLike<unknown>, (item) => plain(item, place))
  if (Array.isArray(value)) return value.map((item) => plain(item, place))
  if (typeof value === 'object' && value !== null)
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item, place)]))
  return value
}
