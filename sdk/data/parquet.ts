import { DataError } from '../errors.ts'
import { nodeThread, type Thread } from '../thread.ts'
import type { ParquetFile, ParquetReply } from './parquet-worker.ts'

const mega = 2 ** 20
/** A thread that came to a file's end, for the next file: to start one takes longer than to read a small file. */
let resting: { readonly thread: Thread; readonly megabytes: number } | undefined

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
  const { size } = await stat(path).catch((cause) => {
    throw new DataError(`${path}: cannot be read: ${cause.message}`, { cause })
  })
  const megabytes = Math.ceil(size / mega)
  const file: ParquetFile = { path, decodedLimit: (64 + 32 * megabytes) * mega }
  const fail = (what: string, cause?: unknown) =>
    new DataError(`${path}: is not a readable parquet file: ${what}`, { cause })
  const thread = await threadFor(megabytes)
  let atRest = false
  try {
    for (;;) {
      const reply = await thread.ask<ParquetReply>(file, 20 + 2 * megabytes).catch((cause) => {
        throw fail(cause.message, cause)
      })
      atRest = !('rows' in reply)
      if ('error' in reply) throw fail(reply.error)
      if ('done' in reply) return
      for (const [i, values] of reply.rows.entries()) yield { values, index: reply.from + i }
    }
  } finally {
    if (atRest && !resting) resting = { thread, megabytes }
    else await thread.end()
  }
}

async function threadFor(megabytes: number): Promise<Thread> {
  const last = resting
  resting = undefined
  if (last?.megabytes === megabytes) return last.thread
  await last?.thread.end()
  return nodeThread('./parquet-worker', import.meta.url, 96 + 48 * megabytes)
}
