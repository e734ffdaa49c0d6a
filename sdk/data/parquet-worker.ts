// Reads parquet files, one after the other, in a thread of its own: the library trusts what a file says of its lengths, and here it can use
// up neither the memory nor the time of the program.
//
// messages in: ParquetFile, again and again until the file's end; out: ParquetReply
import { parentPort } from 'node:worker_threads'
import {
  type AsyncBuffer,
  asyncBufferFromFile,
  type ColumnMetaData,
  type Compressors,
  type FileMetaData,
  parquetMetadata,
  parquetReadObjects,
  type RowGroup,
} from 'hyparquet'
import { checkPages, checkThrift } from './parquet-check.ts'

export interface ParquetFile {
  readonly path: string
  /** Bytes to which a column chunk or a slice may unpack. */
  readonly decodedLimit: number
}

/** The next rows, numbered from `from`, until there are no more. */
export type ParquetReply =
  | { readonly rows: readonly Record<string, unknown>[]; readonly from: number }
  | { readonly done: true }
  | { readonly error: string }

/** Rows in one message; bytes of a row group that are decoded at once, and rows where its rows are large. */
const [messageRows, sliceBytes, leastRows] = [256, 64 * 2 ** 20, 256]

/** Decoded bytes of this slice so far. */
let decoded = 0

/** Pages say how long they will be: that is not believed without bound. */
async function loadCompressors(decodedLimit: number): Promise<Compressors> {
  const { compressors } = await import('hyparquet-compressors')
  return Object.fromEntries(
    Object.entries(compressors).map(([codec, decompress]) => [
      codec,
      (input: Uint8Array, length: number) => {
        decoded += length
        if (!(length >= 0 && decoded <= decodedLimit)) throw new Error(`a page that unpacks to ${length} bytes`)
        if (codec === 'ZSTD' && zstdMemory(input) > Math.max(length, 2 ** 23))
          throw new Error('a zstd frame that asks for more memory than its page has bytes')
        return decompress(input, length)
      },
    ]),
  )
}

/** Bytes that a zstd frame asks for: its window, and where it is said its content (RFC 8878, 3.1.1.1). */
function zstdMemory(frame: Uint8Array): number {
  if (frame.length < 14) return 0
  const [flags, window] = [frame[4], frame[5]]
  const single = (flags >> 5) & 1
  const at = 6 - single + [0, 1, 2, 4][flags & 3]
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength)
  const content = [
    () => (single ? frame[at] : 0),
    () => view.getUint16(at, true) + 256,
    () => view.getUint32(at, true),
  ][flags >> 6]
  const windowBytes = single ? 0 : 2 ** (10 + (window >> 3)) * (1 + (window & 7) / 8)
  return Math.max(windowBytes, content ? content() : Number(view.getBigUint64(at, true)))
}

/** The end of a file: its metadata, their length, 'PAR1'. */
async function readMetadata(file: AsyncBuffer): Promise<FileMetaData> {
  const size = file.byteLength
  const end = new DataView(await file.slice(Math.max(0, size - 8), size))
  if (end.byteLength < 8 || end.getUint32(4) !== 0x50415231) throw new Error("it does not end with 'PAR1'")
  const length = end.getUint32(0, true)
  if (length > size - 8) throw new Error(`metadata of ${length} bytes in a file of ${size}`)
  const footer = await file.slice(size - 8 - length, size)
  checkThrift({ view: new DataView(footer, 0, length), offset: 0 })
  const metadata = parquetMetadata(footer, { geoparquet: false })
  if (!(metadata.schema.length > 0)) throw new Error('it has no columns')
  return metadata
}

async function* slices({ path, decodedLimit }: ParquetFile): AsyncGenerator<ParquetReply, void> {
  const file = await asyncBufferFromFile(path)
  const metadata = await readMetadata(file)
  const groups = metadata.row_groups.map(({ num_rows }, g) => whole(num_rows, `row group ${g}: number of rows`))
  const total = groups.reduce((a, b) => a + b, 0)
  if (total !== whole(metadata.num_rows, 'number of rows'))
    throw new Error(`it has ${metadata.num_rows} rows, its row groups together ${total}`)
  const packed = metadata.row_groups.some(({ columns }) => columns.some((c) => c.meta_data?.codec !== 'UNCOMPRESSED'))
  const compressors = packed ? await loadCompressors(decodedLimit) : undefined
  let first = 0
  for (const [g, rows] of groups.entries()) {
    const group = metadata.row_groups[g]
    try {
      const bytes = checkColumns(group, file.byteLength)
      for (const { meta_data } of group.columns) {
        const { start, bytes } = placeOf(meta_data!)
        decoded = 0
        checkPages(await file.slice(start, start + bytes), metadata.schema, meta_data!, compressors)
      }
      const step = Math.max(leastRows, Math.ceil(rows / Math.max(1, Math.ceil(bytes / sliceBytes))))
      for (let start = first; start < first + rows; start += step) {
        const end = Math.min(start + step, first + rows)
        yield* messages(await decode({ file, metadata, compressors }, group, start, end), start)
      }
    } catch (cause) {
      const damaged = cause instanceof TypeError || cause instanceof RangeError ? 'damaged: ' : ''
      throw new Error(`row group ${g}: ${damaged}${(cause as Error).message}`, { cause })
    }
    first += rows
  }
}

function* messages(rows: readonly Record<string, unknown>[], from: number): Generator<ParquetReply, void> {
  for (let at = 0; at < rows.length; at += messageRows)
    yield { rows: rows.slice(at, at + messageRows), from: from + at }
}

function whole(value: bigint | number | undefined, what: string): number {
  const number = Number(value)
  if (value === undefined || !Number.isSafeInteger(number) || number < 0) throw new Error(`${what}: ${value}`)
  return number
}

/** The bytes of a row group when it is unpacked, as its columns say. Their places in the file must be there, and apart. */
function checkColumns({ columns }: RowGroup, fileBytes: number): number {
  let [packed, unpacked] = [0, 0]
  for (const { meta_data } of columns) {
    if (!meta_data) throw new Error('a column without metadata')
    const name = meta_data.path_in_schema.join('.')
    const { start, bytes } = placeOf(meta_data)
    packed += bytes
    unpacked += whole(meta_data.total_uncompressed_size, `column ${name}: unpacked bytes`)
    if (start + bytes > fileBytes || packed > fileBytes)
      throw new Error(`column ${name}: ${bytes} bytes at ${start}, the file has ${fileBytes} (is it truncated?)`)
  }
  return unpacked
}

/** Where a column chunk lies in the file. */
function placeOf(column: ColumnMetaData): { readonly start: number; readonly bytes: number } {
  const { path_in_schema, dictionary_page_offset, data_page_offset, total_compressed_size } = column
  const name = path_in_schema.join('.')
  const start = whole(dictionary_page_offset || data_page_offset, `column ${name}: offset`)
  return { start, bytes: whole(total_compressed_size, `column ${name}: bytes`) }
}

async function decode(
  source: { readonly file: AsyncBuffer; readonly metadata: FileMetaData; readonly compressors?: Compressors },
  { columns }: RowGroup,
  rowStart: number,
  rowEnd: number,
): Promise<Record<string, unknown>[]> {
  decoded = 0
  const reached = new Map(columns.map(({ meta_data }) => [meta_data!.path_in_schema.join('.'), rowStart]))
  const rows = await parquetReadObjects({
    ...source,
    rowStart,
    rowEnd,
    parsers: { stringFromBytes: text },
    onPage: ({ pathInSchema, rowEnd }) => {
      const name = pathInSchema.join('.')
      reached.set(name, Math.max(reached.get(name) ?? 0, rowEnd))
    },
  })
  const short = [...reached].find(([, end]) => end < rowEnd)
  if (short || reached.size === 0) throw new Error(`${short ? `column ${short[0]}` : 'it'} has fewer rows than it says`)
  return rows.map((row) => plain(row) as Record<string, unknown>)
}

/** What JSON could have said; integers beyond 2^53 stay bigints. Bytes that are no text stay bytes: nobody may want that column. */
function plain(value: unknown): unknown {
  if (typeof value === 'bigint') return Number.isSafeInteger(Number(value)) ? Number(value) : value
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value.toISOString()
  if (value instanceof Uint8Array) return text(value)
  if (ArrayBuffer.isView(value)) return Array.from(value as unknown as ArrayLike<unknown>, plain)
  if (Array.isArray(value)) return value.map(plain)
  if (typeof value === 'object' && value !== null)
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]))
  return value ?? null
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** A copy of what is not UTF-8: a part of a page would be sent with all of it. */
function text(bytes: Uint8Array): unknown {
  if (!bytes) return null
  try {
    return utf8.decode(bytes)
  } catch {
    return bytes.slice()
  }
}

let rows: AsyncGenerator<ParquetReply, void> | undefined
parentPort!.on('message', async (file: ParquetFile) => {
  try {
    rows ??= slices(file)
    const { value = { done: true } } = await rows.next()
    if ('done' in value) rows = undefined
    parentPort!.postMessage(value)
  } catch (error) {
    rows = undefined
    // The library's own surprise says little.
    const damaged = error instanceof TypeError || error instanceof RangeError ? 'its metadata are damaged: ' : ''
    parentPort!.postMessage({ error: damaged + ((error as Error | null)?.message ?? String(error)) })
  }
})
