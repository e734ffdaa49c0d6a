import { DataError } from '../errors.ts'
import { shown } from '../options.ts'
import { isNode } from '../runtime.ts'
import { type ByteSource, blobSource } from '../store/byte-source.ts'
import { storeAt } from '../store/store.ts'
import { turn } from '../turn.ts'
import { parseJson } from './json.ts'
import { readParquet } from './parquet.ts'

/** A row of data as it stands in its source; an integer beyond 2^53 is a bigint. */
export interface Row {
  readonly values: Readonly<Record<string, unknown>>
  /** Counts from 0. */
  readonly index: number
  /** For messages: 'train.jsonl:12', or 'row 11' of an array. */
  readonly place: string
}

/**
 * Rows; or the path of a .jsonl file (a row a line), a .json file (an array of rows) or a .parquet file; or a dataset of the hub,
 * `org/name`, `org/name:split`, `org/name/path/to/file.parquet`, which is downloaded when it is not in the cache; or a File of
 * .jsonl or .json that a page was given. Parquet is read in Node alone.
 */
export type RowSource = string | Blob | readonly Readonly<Record<string, unknown>>[]

/** Bytes of one row at most. */
const maxRowBytes = 64 * 2 ** 20
/** Read at once. */
const chunkBytes = 2 ** 18

/**
 * The rows of a source, one at a time: of a .jsonl or .json file no more than a row is in memory. Empty lines are passed over.
 *
 * @throws DataError with file and line for a malformed row, a row of more than 64 MB, one that is no object, invalid UTF-8;
 *   HubError for a dataset that cannot be had
 */
export async function* readRows(source: RowSource): AsyncGenerator<Row, void> {
  for await (const row of rowsOf(source)) {
    yield row
    await turn()
  }
}

async function* rowsOf(source: RowSource): AsyncGenerator<Row, void> {
  if (source instanceof Blob) {
    const name = source instanceof File ? source.name : 'rows.jsonl'
    yield* textRows(name, fileChunks(blobSource(name, source)), 0)
    return
  }
  if (typeof source !== 'string') {
    if (!Array.isArray(source)) throw new DataError(`dataset: wanted a path or a list of rows, got ${shown(source)}`)
    for (const [index, values] of source.entries()) yield row(values, index, `row ${index}`)
    return
  }
  let index = 0
  for (const path of await findFiles(source)) {
    if (isNode && isParquet(path))
      for await (const { values, index: own } of readParquet(path)) yield row(values, index++, `${path} row ${own}`)
    else
      for await (const found of textRows(path, fileChunks(await opened(path)), index))
        yield { ...found, index: index++ }
  }
}

const isParquet = (path: string): boolean => /\.parquet$/i.test(path)

async function* textRows(path: string, chunks: AsyncIterable<Uint8Array>, index: number): AsyncGenerator<Row, void> {
  if (isParquet(path))
    throw new DataError(`${path}: parquet is read in Node alone, from a path: give the rows as .jsonl`)
  for await (const { bytes, line } of records(path, chunks)) {
    const place = `${path}:${line}`
    yield row(parse(bytes, place), index++, place)
  }
}

/** The file itself where there is one of that name, else those of a dataset on the hub. */
async function findFiles(source: string): Promise<string[]> {
  if ((await (await storeAt(source)).list()).length > 0) return [source]
  const { findRows, isDatasetName } = await import('../hub/rows.ts')
  if (isDatasetName(source)) return findRows(source)
  throw new DataError(
    `${source}: no such file, and no dataset on the hub either (org/name, org/name:split or org/name/path/to/file.parquet)`,
  )
}

function row(values: unknown, index: number, place: string): Row {
  if (typeof values !== 'object' || values === null || Array.isArray(values))
    throw new DataError(
      `${place}: a row is an object of columns, not ${Array.isArray(values) ? 'a list' : JSON.stringify(values)?.slice(0, 60)}`,
    )
  return { values: values as Row['values'], index, place }
}

function parse(bytes: Uint8Array, place: string): unknown {
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
    if (/^\s*\{\s*$/.test(text))
      throw new Error('an object that does not end on its line: a row is one line, or an element of an array ([...])')
    return parseJson(text)
  } catch (cause) {
    throw new DataError(`${place}: not valid JSON: ${(cause as Error).message}`, { cause })
  }
}

/** The bytes of one row, and the line (from 1) on which it begins. */
interface JsonRecord {
  readonly bytes: Uint8Array
  readonly line: number
}

const cannot =
  (path: string) =>
  (cause: Error): never => {
    throw new DataError(`${path}: cannot be read: ${cause.message}`, { cause })
  }

async function opened(path: string): Promise<ByteSource> {
  const file = await (await storeAt(path)).open('').catch(cannot(path))
  return file ?? cannot(path)(new Error('it is not a file'))
}

async function* fileChunks(file: ByteSource): AsyncGenerator<Uint8Array, void> {
  for (let at = 0; at < file.size; at += chunkBytes)
    yield await file.read(at, Math.min(chunkBytes, file.size - at)).catch(cannot(file.name))
}

async function* records(path: string, chunks: AsyncIterable<Uint8Array>): AsyncGenerator<JsonRecord, void> {
  if (!/\.jsonl?$/i.test(path)) throw new DataError(`${path}: rows are read from .jsonl, .json and .parquet files`)
  const scanner = new Scanner(path)
  for await (const chunk of chunks) yield* scanner.push(chunk)
  yield* scanner.end()
}

const [newline, quote, backslash, comma] = [10, 34, 92, 44]
const [openBracket, closeBracket, openBrace, closeBrace] = [91, 93, 123, 125]
const isSpace = (byte: number): boolean => byte === 32 || byte === 9 || byte === 13 || byte === newline

/** Cuts bytes into rows: lines, or the elements of an array when that is what the file begins with. */
class Scanner {
  private readonly path: string
  private kind: 'unknown' | 'lines' | 'array' | 'done' = 'unknown'
  private parts: Uint8Array[] = []
  private partBytes = 0
  private line = 1
  /** Line of the first byte of the current row that is no space; 0: none yet. */
  private startLine = 0
  private depth = 0
  private inString = false
  private escaped = false
  private afterComma = false

  constructor(path: string) {
    this.path = path
  }

  *push(chunk: Uint8Array): Generator<JsonRecord, void> {
    let from = 0
    for (let i = 0; i < chunk.length; i++) {
      const byte = chunk[i]
      if (this.kind === 'unknown') {
        if (byte === openBracket) {
          this.kind = 'array'
          this.startLine = 0
          this.parts = []
          this.partBytes = 0
          from = i + 1
          continue
        }
        // Spaces and the byte order mark may come before.
        if (!isSpace(byte) && byte < 0x80) this.kind = 'lines'
      }
      if (this.kind === 'done' && !isSpace(byte)) throw this.error('text after the end of the array')
      if (this.kind === 'array' ? this.endsElement(byte) : byte === newline) {
        const record = this.take(chunk.subarray(from, i))
        if (record) yield record
        else if (this.kind === 'array' && (byte === comma || this.afterComma)) throw this.error('a value is missing')
        this.afterComma = byte === comma
        if (this.kind === 'array' && byte === closeBracket) this.kind = 'done'
        from = i + 1
      } else if (this.startLine === 0 && !isSpace(byte)) this.startLine = this.line
      if (byte === newline) this.line++
    }
    const rest = chunk.slice(from)
    this.parts.push(rest)
    this.partBytes += rest.length
    if (this.partBytes > maxRowBytes) throw this.error(`a row of more than ${maxRowBytes} bytes`)
  }

  *end(): Generator<JsonRecord, void> {
    if (this.kind === 'array') throw this.error('the array does not end: the file is truncated')
    const record = this.take(new Uint8Array())
    if (record) yield record
  }

  /** Is this byte the comma or bracket after an element of the outer array? */
  private endsElement(byte: number): boolean {
    if (this.inString) {
      if (this.escaped) this.escaped = false
      else if (byte === backslash) this.escaped = true
      else if (byte === quote) this.inString = false
      return false
    }
    if (byte === quote) this.inString = true
    else if (byte === openBracket || byte === openBrace) this.depth++
    else if (this.depth === 0) return byte === comma || byte === closeBracket
    else if (byte === closeBracket || byte === closeBrace) this.depth--
    return false
  }

  /** The row that ends here, null when there was nothing but space. */
  private take(last: Uint8Array): JsonRecord | null {
    const line = this.startLine
    const bytes = new Uint8Array(line === 0 ? 0 : this.partBytes + last.length)
    if (bytes.length > maxRowBytes) throw this.error(`a row of more than ${maxRowBytes} bytes`)
    if (line > 0) {
      let at = 0
      for (const part of [...this.parts, last]) {
        bytes.set(part, at)
        at += part.length
      }
    }
    this.parts = []
    this.partBytes = 0
    this.startLine = 0
    return line > 0 ? { bytes, line } : null
  }

  private error(what: string): DataError {
    return new DataError(`${this.path}:${this.startLine || this.line}: ${what}`)
  }
}
