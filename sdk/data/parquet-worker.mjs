// Reads one parquet file in a thread of its own: the library trusts what a file says of its lengths, and here it can use
// up neither the memory nor the time of the program. Plain JS: workers have no TypeScript loader.
//
// workerData: {path, sliceRows, largestPage}; messages in: {} asks for more; out: {rows, from}, {done}, {error}
import { parentPort, workerData } from 'node:worker_threads'
import { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects } from 'hyparquet'
import { compressors } from 'hyparquet-compressors'

const { path, sliceRows, largestPage } = workerData

/** A page says how long it will be: that is not believed without bound. */
const bounded = Object.fromEntries(
  Object.entries(compressors).map(([codec, decompress]) => [
    codec,
    (input, length) => {
      if (!(length >= 0 && length <= largestPage)) throw new Error(`a page of ${length} bytes`)
      return decompress(input, length)
    },
  ]),
)

async function* slices() {
  const file = await asyncBufferFromFile(path)
  const metadata = await parquetMetadataAsync(file)
  let from = 0
  for (const group of metadata.row_groups) {
    const rows = Number(group.num_rows)
    if (!Number.isSafeInteger(rows) || rows < 0) throw new Error(`a row group of ${group.num_rows} rows`)
    for (let start = from; start < from + rows; start += sliceRows) {
      const end = Math.min(start + sliceRows, from + rows)
      const slice = await parquetReadObjects({
        file,
        metadata,
        rowStart: start,
        rowEnd: end,
        compressors: bounded,
        utf8: false,
      })
      if (slice.length !== end - start) throw new Error(`rows ${start} to ${end}: ${slice.length} are there`)
      yield { from: start, rows: slice }
    }
    from += rows
  }
}

const iterator = slices()
parentPort.on('message', async () => {
  try {
    const { value, done } = await iterator.next()
    parentPort.postMessage(done ? { done } : value)
  } catch (error) {
    parentPort.postMessage({ error: error?.message ?? String(error) })
  }
})
