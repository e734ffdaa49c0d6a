// What hyparquet believes of a file without asking: sizes of lists, pages and runs, for which it reserves memory and turns
// loops. Here they are compared with the bytes that are there, before it reads them. The bounds of the thread are not enough: an array
// that is larger at once than they allow makes V8 end the whole process.
import type { ColumnMetaData, Compressors, DataPageHeader, DataReader, PageHeader, SchemaElement } from 'hyparquet'
import { parquetHeader } from 'hyparquet/src/column.js'
import { decompressPage } from 'hyparquet/src/datapage.js'
import { deltaBinaryUnpack } from 'hyparquet/src/delta.js'
import { readRleBitPackedHybrid } from 'hyparquet/src/encoding.js'
import { getMaxDefinitionLevel, getMaxRepetitionLevel, getSchemaPath } from 'hyparquet/src/schema.js'

/** More than writers put into one page, and small in memory. */
const maxPageValues = 2 ** 22
const maxDepth = 16

/** An unsigned varint. A DataView throws at its end. */
function varint(reader: DataReader, longest = 5): number {
  let value = 0
  for (let i = 0; i < longest; i++) {
    const byte = reader.view.getUint8(reader.offset++)
    value += (byte & 0x7f) * 2 ** (7 * i)
    if (byte < 0x80) return value
  }
  throw new Error('a number of too many bytes')
}

/** Walks over a Thrift struct (compact protocol): lists have at most as many items as there are bytes. */
export function checkThrift(reader: DataReader, depth = 0): void {
  if (depth > maxDepth) throw new Error('metadata nested too deeply')
  for (;;) {
    const byte = reader.view.getUint8(reader.offset++)
    if ((byte & 15) === 0) return
    if (byte >> 4 === 0) varint(reader)
    checkThriftValue(reader, byte & 15, depth)
  }
}

function checkThriftValue(reader: DataReader, type: number, depth: number): void {
  const left = () => reader.view.byteLength - reader.offset
  if (type === 3) reader.offset++
  else if (type >= 4 && type <= 6) varint(reader, 10)
  else if (type === 7) reader.offset += 8
  else if (type === 8) {
    const bytes = varint(reader)
    if (bytes > left()) throw new Error(`a text of ${bytes} bytes in metadata that has ${left()} more`)
    reader.offset += bytes
  } else if (type === 9) {
    const byte = reader.view.getUint8(reader.offset++)
    const items = byte >> 4 === 15 ? varint(reader) : byte >> 4
    if (items > left()) throw new Error(`a list of ${items} items in metadata that has ${left()} more bytes`)
    const item = byte & 15
    // Booleans in a list are bytes.
    for (let i = 0; i < items; i++) checkThriftValue(reader, item === 1 || item === 2 ? 3 : item, depth + 1)
  } else if (type === 12) checkThrift(reader, depth + 1)
  else if (type !== 1 && type !== 2) throw new Error(`metadata of unknown type ${type}`)
}

type PageHeaderV2 = NonNullable<PageHeader['data_page_header_v2']>

interface Column {
  readonly type: ColumnMetaData['type']
  readonly codec: ColumnMetaData['codec']
  readonly compressors: Compressors | undefined
  /** 0: there are no such levels. */
  readonly repetitionBits: number
  readonly definitionBits: number
  /** The definition level of a value that is there. */
  readonly defined: number
}

/** Walks over the pages of a column chunk: bytes as they are in the file. */
export function checkPages(
  bytes: ArrayBuffer,
  schema: SchemaElement[],
  meta: ColumnMetaData,
  compressors?: Compressors,
): void {
  const path = getSchemaPath(schema, meta.path_in_schema)
  const column: Column = {
    type: meta.type,
    codec: meta.codec,
    compressors,
    repetitionBits: bitWidth(getMaxRepetitionLevel(path)),
    definitionBits: bitWidth(getMaxDefinitionLevel(path)),
    defined: getMaxDefinitionLevel(path),
  }
  const reader = { view: new DataView(bytes), offset: 0 }
  while (reader.offset < bytes.byteLength - 1) {
    checkThrift({ ...reader })
    const header = parquetHeader(reader)
    const size = header.compressed_page_size
    if (!(size >= 0 && size <= bytes.byteLength - reader.offset))
      throw new Error(`a page of ${size} bytes where ${bytes.byteLength - reader.offset} are left`)
    checkPage(new Uint8Array(bytes, reader.offset, size), header, column)
    reader.offset += size
  }
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
const bitWidth = (n: number): number => 32 - Math.clz32(n)

function checkPage(packed: Uint8Array, header: PageHeader, column: Column): void {
  const { data_page_header: v1, data_page_header_v2: v2, dictionary_page_header: dictionary } = header
  if (header.type === 'DATA_PAGE' && v1) checkDataPage(packed, header, v1, column)
  else if (header.type === 'DATA_PAGE_V2' && v2) checkDataPageV2(packed, header, v2, column)
  else if (header.type === 'DICTIONARY_PAGE' && dictionary) {
    checkCount(dictionary.num_values)
    checkPlain(unpacked(packed, header.uncompressed_page_size, column), dictionary.num_values)
  } else throw new Error('a page of unknown kind')
}

function checkCount(values: number): void {
  if (!(values >= 0 && values <= maxPageValues)) throw new Error(`a page of ${values} values`)
}

const unpacked = (packed: Uint8Array, size: number, { codec, compressors }: Column): Uint8Array =>
  decompressPage(packed, size, codec, compressors)

function checkDataPageV2(packed: Uint8Array, header: PageHeader, page: PageHeaderV2, column: Column): void {
  const { num_values: values, num_nulls, encoding, is_compressed } = page
  const { repetition_levels_byte_length: r, definition_levels_byte_length: d } = page
  checkCount(values)
  if (!(r >= 0 && d >= 0 && r + d <= packed.length)) throw new Error(`levels of ${r} and ${d} bytes in a page`)
  if (!(num_nulls >= 0 && num_nulls <= values)) throw new Error(`${num_nulls} nulls among ${values} values`)
  if (column.repetitionBits > 0) checkRuns(packed.subarray(0, r), column.repetitionBits, values)
  if (column.definitionBits > 0) checkRuns(packed.subarray(r, r + d), column.definitionBits, values)
  const rest = packed.subarray(r + d)
  const data = is_compressed === false ? rest : unpacked(rest, header.uncompressed_page_size - r - d, column)
  checkValues(data, values - num_nulls, encoding, column, 2)
}

function checkDataPage(packed: Uint8Array, header: PageHeader, page: DataPageHeader, column: Column): void {
  const { num_values: values, encoding } = page
  const { repetitionBits, definitionBits } = column
  checkCount(values)
  const data = unpacked(packed, header.uncompressed_page_size, column)
  const at = repetitionBits > 0 ? checkSizedRuns(data, 0, repetitionBits, values) : 0
  let [end, present] = [at, values]
  if (definitionBits > 0) {
    end = checkSizedRuns(data, at, definitionBits, values)
    const levels = new Array<number>(values)
    readRleBitPackedHybrid({ view: viewOf(data), offset: at }, definitionBits, levels)
    present = levels.filter((level) => level === column.defined).length
  }
  checkValues(data.subarray(end), present, encoding, column)
}

/** Values that take at least a bit each. */
function checkPlain(data: Uint8Array, values: number): void {
  if (values > 8 * data.length) throw new Error(`${values} values in ${data.length} bytes`)
}

function checkValues(
  data: Uint8Array,
  values: number,
  encoding: DataPageHeader['encoding'],
  { type }: Column,
  version = 1,
): void {
  if (values === 0) return
  if (data.length === 0) throw new Error(`${values} values in no bytes`)
  if (encoding === 'PLAIN_DICTIONARY' || encoding === 'RLE_DICTIONARY') {
    if (data[0] > 32) throw new Error(`dictionary indices of ${data[0]} bits`)
    if (data[0] > 0 || version === 2) checkRuns(data.subarray(1), data[0], values)
  } else if (encoding === 'RLE' && type === 'BOOLEAN') checkSizedRuns(data, 0, 1, values)
  else if (encoding?.startsWith('DELTA_')) checkDelta(data, values, encoding)
}

/** Runs with their length in bytes before them. Returns where they end. */
function checkSizedRuns(data: Uint8Array, at: number, bits: number, values: number): number {
  const size = viewOf(data).getUint32(at, true)
  if (size > data.length - at - 4) throw new Error(`runs of ${size} bytes in a page that has ${data.length - at - 4}`)
  checkRuns(data.subarray(at + 4, at + 4 + size), bits, values)
  return at + 4 + size
}

/** Run-length and bit-packed runs together have as many values as the page. */
function checkRuns(data: Uint8Array, bits: number, values: number): void {
  const reader = { view: viewOf(data), offset: 0 }
  for (let seen = 0; seen < values; ) {
    if (reader.offset >= data.length) throw new Error(`runs of ${seen} values where ${values} are wanted`)
    const header = varint(reader)
    const run = Math.floor(header / 2)
    const items = header % 2 === 1 ? 8 * run : run
    // Bit-packed runs are in groups; some writers fill up the last one.
    if (items > values - seen + 511) throw new Error(`a run of ${items} values where ${values - seen} are left`)
    // hyparquet takes a byte for an empty bit-packed run too.
    reader.offset += header % 2 === 1 ? Math.max(1, run * bits) : (bits + 7) >> 3
    seen += items
  }
}

function checkDelta(data: Uint8Array, values: number, encoding: DataPageHeader['encoding']): void {
  const reader = { view: viewOf(data), offset: 0 }
  const [block, parts, count] = [varint(reader), varint(reader), varint(reader)]
  if (!(parts > 0 && block <= 2 ** 20 && block % (8 * parts) === 0))
    throw new Error(`delta blocks of ${block} in ${parts}`)
  if (encoding !== 'DELTA_BYTE_ARRAY') return
  if (count !== values) throw new Error(`${count} deltas for ${values} values`)
  // Values share their beginnings: together they may be far longer than the page.
  reader.offset = 0
  const [prefixes, suffixes] = [new Int32Array(count), new Int32Array(count)]
  deltaBinaryUnpack(reader, count, prefixes)
  deltaBinaryUnpack(reader, count, suffixes)
  let [total, before] = [0, 0]
  for (const [i, prefix] of prefixes.entries()) {
    if (prefix < 0 || prefix > before || suffixes[i] < 0) throw new Error('texts that share more than there is')
    before = prefix + suffixes[i]
    total += before
  }
  if (total > 64 * data.length + 2 ** 24) throw new Error(`texts of ${total} bytes in a page of ${data.length}`)
}
