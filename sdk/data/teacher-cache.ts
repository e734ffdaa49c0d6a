import { bytesOf, concatenate } from '../bytes.ts'
import { DataError, FormatError, OptionError } from '../errors.ts'
import { openSafetensors, safetensorsChunks, type TensorData, type TensorFile } from '../formats/safetensors.ts'
import { sha256 } from '../hash.ts'
import { LOG_ZERO } from '../log-zero.ts'
import { isObject } from '../options.ts'
import { f16ToF32, f32ToF16 } from '../quant/float16.ts'
import { checkSameSettings } from '../same-settings.ts'
import { join } from '../store/path.ts'
import { type Source, type Store, storeAt } from '../store/store.ts'
import { jsonChunks, opened, readJson } from '../store/text.ts'

// What a teacher said of every scored token of a data set, in a folder: teacher.json and safetensors shards of a fixed number
// of rows. A token of `topk` takes 4K bytes (6K for vocabularies above 65,536); of `sampled`, 1 + 3 per distinct id (or 5).

/** Everything that decides what is in a cache. */
export interface TeacherSettings {
  /** `topk`: the k likeliest ids and the mass of the rest. `sampled`: k draws (random sampling KD, arXiv 2503.16870). */
  readonly method: 'topk' | 'sampled'
  /** Ids a token, 1 to 64; draws a token, 1 to 255. */
  readonly k: number
  /** The teacher's logits were divided by it. */
  readonly temperature: number
  /** Of the draws. */
  readonly seed: number
  /** The teacher's name, for people. */
  readonly model: string
  /** Fingerprint of the tokenizer: a student must have the same. */
  readonly tokenizer: string
  /** Hash of the chat template, null without one. */
  readonly template: string | null
  /** Hash of tokens and labels of all rows. */
  readonly dataset: string
  readonly vocabSize: number
  readonly rows: number
  /** Scored tokens of all rows. */
  readonly tokens: number
  /** Rows of a shard; the last one has what is left. */
  readonly shardRows: number
}

interface Shard {
  readonly file: string
  readonly bytes: number
  readonly sha256: string
}

/** What the teacher says of one row's T scored tokens. */
export interface TeacherRow {
  /** [T, K]; -1 is padding */
  readonly ids: Int32Array
  /** [T, K]; -1e30 for padding */
  readonly logProbs: Float32Array
  /** [T], log of the mass outside the ids; -1e30 for none */
  readonly tail: Float32Array
}

const indexFile = 'teacher.json'
const wideVocabulary = 65_536

export const shardCount = ({ rows, shardRows }: TeacherSettings): number => Math.ceil(rows / shardRows)
const shardName = (i: number): string => `shard-${String(i).padStart(5, '0')}.safetensors`

/** Settings as they stand in teacher.json. Throws OptionError naming what is out of range. */
export function checkTeacherSettings(settings: TeacherSettings): void {
  const { method, k, temperature, vocabSize } = settings
  const most = method === 'topk' ? Math.min(64, vocabSize) : 255
  if (method !== 'topk' && method !== 'sampled')
    throw new OptionError(`method: ${JSON.stringify(method)} is neither topk nor sampled`)
  if (!(Number.isInteger(k) && k >= 1 && k <= most))
    throw new OptionError(`k: ${k} is not an integer from 1 to ${most} (${method})`)
  if (!(temperature > 0 && temperature < 100))
    throw new OptionError(`temperature: ${temperature} is not within 0 and 100`)
}

/**
 * Starts a cache, or goes on with one that has the same settings. Returns the shards that are whole, by number.
 *
 * @throws OptionError when the folder holds a cache of other settings, naming the first that differs
 */
export async function startTeacherCache(store: Store, settings: TeacherSettings): Promise<Set<number>> {
  checkTeacherSettings(settings)
  const there = await readIndex(store)
  if (there === null) {
    await writeIndex(store, settings, new Map())
    return new Set()
  }
  checkSameSettings(store.name, there.settings, settings)
  const broken = new Set(await brokenShards(store, there.shards))
  return new Set([...there.shards.keys()].filter((i) => !broken.has(i)))
}

/** Writes shard `i` whole, then its line in teacher.json. */
export async function writeTeacherShard(
  store: Store,
  settings: TeacherSettings,
  i: number,
  rows: readonly TeacherRow[],
): Promise<void> {
  const tensors = settings.method === 'topk' ? encodeTopK(rows, settings) : encodeSampled(rows, settings)
  const bytes = concatenate(safetensorsChunks(tensors))
  await store.write(shardName(i), [bytes])
  const { shards } = (await readIndex(store))!
  shards.set(i, { file: shardName(i), bytes: bytes.length, sha256: await sha256(bytes) })
  await writeIndex(store, settings, shards)
}

/** A finished cache, read row by row. */
export class TeacherCache {
  readonly folder: string
  readonly settings: TeacherSettings
  /** Bytes of all shards. */
  readonly bytes: number
  private readonly source: Source
  private readonly shards: ReadonlyMap<number, Shard>
  private readonly open = new Map<number, Promise<OpenShard>>()

  private constructor(source: Source, settings: TeacherSettings, shards: ReadonlyMap<number, Shard>) {
    this.source = source
    this.folder = source.name
    this.settings = settings
    this.shards = shards
    this.bytes = [...shards.values()].reduce((sum, { bytes }) => sum + bytes, 0)
  }

  /** Throws FormatError for a folder that is no cache, DataError for one whose building was interrupted. */
  static async open(place: string | Source): Promise<TeacherCache> {
    const source = await storeAt(place)
    const index = await readIndex(source)
    if (!index) throw new FormatError(`${join(source.name, indexFile)}: no such file`)
    const { settings, shards } = index
    const missing = shardCount(settings) - shards.size
    if (missing > 0)
      throw new DataError(
        `${source.name}: ${missing} of ${shardCount(settings)} shards are not built yet: run the same \`halfling teacher build\` again, it goes on`,
      )
    return new TeacherCache(source, settings, shards)
  }

  /** What the teacher said of row `i` of the data set. Throws FormatError for a torn shard. */
  async row(i: number): Promise<TeacherRow> {
    const { rows, shardRows } = this.settings
    if (!(Number.isInteger(i) && i >= 0 && i < rows))
      throw new DataError(`${this.folder}: has rows 0 to ${rows - 1}, not ${i}`)
    const number = Math.floor(i / shardRows)
    let shard = this.open.get(number)
    if (!shard) {
      shard = openShard(this.source, this.settings, number)
      this.open.set(number, shard)
    }
    const { file, starts, distinctStarts } = await shard
    const own = i % shardRows
    const [from, to] = [starts[own], starts[own + 1]]
    return distinctStarts
      ? decodeSampled(file, this.settings, from, to, distinctStarts)
      : decodeTopK(file, this.settings, from, to)
  }

  /** Numbers of the shards that are missing or whose bytes are not those that were written. */
  verify(): Promise<number[]> {
    return brokenShards(this.source, this.shards)
  }
}

interface OpenShard {
  readonly file: TensorFile
  /** First token of each row, and the end. */
  readonly starts: Uint32Array
  /** sampled: first distinct id of each token, and the end. */
  readonly distinctStarts: Uint32Array | null
}

async function openShard(folder: Source, settings: TeacherSettings, i: number): Promise<OpenShard> {
  const source = await opened(folder, shardName(i))
  const file = await openSafetensors(source)
  const { method, k, vocabSize, rows, shardRows } = settings
  const own = Math.min(shardRows, rows - i * shardRows)
  const fail = (what: string): never => {
    throw new FormatError(`${source.name}: ${what} (\`halfling teacher verify\` finds and \`build\` mends torn shards)`)
  }
  const shapes = (name: string, dtype: string, ...wanted: (number | null)[]): number[] => {
    const tensor = file.tensors.get(name)
    const fits = tensor?.dtype === dtype && tensor.shape.length === wanted.length
    if (!fits || wanted.some((n, axis) => n !== null && tensor.shape[axis] !== n))
      fail(`${name}: expected ${dtype} [${wanted.map((n) => n ?? '*').join(', ')}]`)
    return [...tensor!.shape]
  }
  const idType = vocabSize > wideVocabulary ? 'U32' : 'U16'
  shapes('starts', 'U32', own + 1)
  const starts = new Uint32Array((await file.tensors.get('starts')!.read()).buffer)
  const tokens = starts[own]
  if (starts[0] !== 0 || starts.some((start, row) => row > 0 && start < starts[row - 1])) fail('starts do not ascend')
  if (method === 'topk') {
    shapes('ids', idType, tokens, k)
    shapes('log_probs', 'F16', tokens, k)
    return { file, starts, distinctStarts: null }
  }
  shapes('distinct', 'U8', tokens)
  const distinct = await file.tensors.get('distinct')!.read()
  const distinctStarts = new Uint32Array(tokens + 1)
  for (let t = 0; t < tokens; t++) distinctStarts[t + 1] = distinctStarts[t] + distinct[t]
  shapes('ids', idType, distinctStarts[tokens])
  shapes('counts', 'U8', distinctStarts[tokens])
  return { file, starts, distinctStarts }
}

const startsOf = (rows: readonly TeacherRow[]): Uint32Array => {
  const starts = new Uint32Array(rows.length + 1)
  for (const [i, { tail }] of rows.entries()) starts[i + 1] = starts[i] + tail.length
  return starts
}

const idTensor = (ids: Int32Array, shape: number[], vocabSize: number): TensorData =>
  vocabSize > wideVocabulary
    ? { name: 'ids', dtype: 'U32', shape, data: bytesOf(ids) }
    : { name: 'ids', dtype: 'U16', shape, data: bytesOf(Uint16Array.from(ids)) }

const startsTensor = (starts: Uint32Array): TensorData => ({
  name: 'starts',
  dtype: 'U32',
  shape: [starts.length],
  data: bytesOf(starts),
})

/**
 * Ids by falling probability. Their log-probabilities and the tail's are k + 1 numbers that add up to 1, so the greatest of
 * them is left out: it is 1 - Σ of the others. The first column of log_probs holds the lesser of the first id and the tail,
 * with a positive sign where that is the id's. Where a teacher named fewer than k ids the rest have -Infinity.
 */
function encodeTopK(rows: readonly TeacherRow[], { k, vocabSize }: TeacherSettings): TensorData[] {
  const starts = startsOf(rows)
  const n = starts[rows.length]
  const [ids, logProbs] = [new Int32Array(n * k), new Float32Array(n * k)]
  for (const [i, row] of rows.entries()) {
    ids.set(
      row.ids.map((id) => Math.max(id, 0)),
      starts[i] * k,
    )
    logProbs.set(row.logProbs, starts[i] * k)
    for (let t = 0; t < row.tail.length; t++) {
      const [first, tail] = [row.logProbs[t * k], row.tail[t]]
      logProbs[(starts[i] + t) * k] = tail > first ? -first : tail
    }
  }
  return [
    startsTensor(starts),
    idTensor(ids, [n, k], vocabSize),
    { name: 'log_probs', dtype: 'F16', shape: [n, k], data: bytesOf(f32ToF16(logProbs)) },
  ]
}

async function decodeTopK(file: TensorFile, settings: TeacherSettings, from: number, to: number): Promise<TeacherRow> {
  const { k, vocabSize } = settings
  const [idBytes, halves] = await Promise.all([
    readRange(file, 'ids', (vocabSize > wideVocabulary ? 4 : 2) * k, from, to),
    readRange(file, 'log_probs', 2 * k, from, to),
  ])
  const ids = readIds(idBytes, settings, file)
  const logProbs = f16ToF32(new Uint16Array(halves.buffer)).map((x) => Math.max(x, LOG_ZERO))
  const tail = new Float32Array(to - from)
  for (let t = 0; t < tail.length; t++) {
    const stored = logProbs[t * k]
    const isFirst = stored > 0
    let others = Math.exp(isFirst ? -stored : stored)
    for (let j = 1; j < k; j++) others += Math.exp(logProbs[t * k + j])
    const derived = Math.log1p(-Math.min(others, 1 - 2 ** -24))
    for (let j = 1; j < k; j++) if (logProbs[t * k + j] < -6e4) ids[t * k + j] = -1
    logProbs[t * k] = isFirst ? -stored : derived
    tail[t] = isFirst ? derived : stored
  }
  return { ids, logProbs, tail }
}

/** `logProbs` are those of the draws' shares: count / k. */
function encodeSampled(rows: readonly TeacherRow[], { k, vocabSize }: TeacherSettings): TensorData[] {
  const starts = startsOf(rows)
  const distinct: number[] = []
  const [ids, counts]: number[][] = [[], []]
  for (const row of rows) {
    const width = row.tail.length === 0 ? 0 : row.ids.length / row.tail.length
    for (let t = 0; t < row.tail.length; t++) {
      const before = ids.length
      for (let j = t * width; j < (t + 1) * width; j++) {
        if (row.ids[j] < 0) continue
        ids.push(row.ids[j])
        counts.push(Math.round(Math.exp(row.logProbs[j]) * k))
      }
      distinct.push(ids.length - before)
    }
  }
  const u8 = (name: string, values: number[]): TensorData => ({
    name,
    dtype: 'U8',
    shape: [values.length],
    data: Uint8Array.from(values),
  })
  return [
    startsTensor(starts),
    u8('distinct', distinct),
    idTensor(Int32Array.from(ids), [ids.length], vocabSize),
    u8('counts', counts),
  ]
}

async function decodeSampled(
  file: TensorFile,
  settings: TeacherSettings,
  from: number,
  to: number,
  starts: Uint32Array,
): Promise<TeacherRow> {
  const { k, vocabSize } = settings
  const [first, last] = [starts[from], starts[to]]
  const [idBytes, counts] = await Promise.all([
    readRange(file, 'ids', vocabSize > wideVocabulary ? 4 : 2, first, last),
    readRange(file, 'counts', 1, first, last),
  ])
  const flat = readIds(idBytes, settings, file)
  let width = 1
  for (let t = from; t < to; t++) width = Math.max(width, starts[t + 1] - starts[t])
  const ids = new Int32Array((to - from) * width).fill(-1)
  const logProbs = new Float32Array((to - from) * width).fill(LOG_ZERO)
  for (let t = from; t < to; t++)
    for (let j = starts[t]; j < starts[t + 1]; j++) {
      const at = (t - from) * width + j - starts[t]
      ids[at] = flat[j - first]
      logProbs[at] = Math.log(counts[j - first] / k)
    }
  return { ids, logProbs, tail: new Float32Array(to - from).fill(LOG_ZERO) }
}

const readRange = (file: TensorFile, name: string, bytes: number, from: number, to: number): Promise<Uint8Array> =>
  file.tensors.get(name)!.read(from * bytes, (to - from) * bytes)

function readIds(bytes: Uint8Array, { vocabSize }: TeacherSettings, file: TensorFile): Int32Array {
  const ids = vocabSize > wideVocabulary ? new Int32Array(bytes.buffer) : Int32Array.from(new Uint16Array(bytes.buffer))
  // Kernels trust ids.
  const wrong = ids.find((id) => id < 0 || id >= vocabSize)
  if (wrong !== undefined)
    throw new FormatError(`${file.tensors.get('ids')!.file}: id ${wrong} is not below ${vocabSize} (a torn shard?)`)
  return ids
}

/** null where there is no cache. */
async function readIndex(source: Source): Promise<{ settings: TeacherSettings; shards: Map<number, Shard> } | null> {
  const file = join(source.name, indexFile)
  const json = await readJson(source, indexFile)
  if (!json) return null
  const fail = (what: string): never => {
    throw new FormatError(`${file}: ${what}`)
  }
  if (json.version !== 1) fail(`version ${JSON.stringify(json.version)} is not 1`)
  const { version: _, shards: listed, ...rest } = json
  const settings = rest as unknown as TeacherSettings
  for (const key of ['model', 'tokenizer', 'dataset'] as const)
    if (typeof settings[key] !== 'string') fail(`${key} is not a string`)
  for (const key of ['vocabSize', 'rows', 'tokens', 'shardRows'] as const)
    if (!(Number.isSafeInteger(settings[key]) && settings[key] > 0)) fail(`${key} is not a positive integer`)
  try {
    checkTeacherSettings(settings)
  } catch (error) {
    fail((error as Error).message)
  }
  if (!isObject(listed)) return fail('shards is not an object')
  const shards = new Map<number, Shard>()
  for (const [name, given] of Object.entries(listed)) {
    const { bytes, sha256: hash } = (given ?? {}) as Record<string, unknown>
    const i = Number(/^shard-(\d{5,})\.safetensors$/.exec(name)?.[1] ?? -1)
    if (i < 0 || i >= shardCount(settings) || shardName(i) !== name) return fail(`${name} is no shard of it`)
    if (!Number.isSafeInteger(bytes) || typeof hash !== 'string') return fail(`${name}: bytes or sha256 are missing`)
    shards.set(i, { file: name, bytes: bytes as number, sha256: hash })
  }
  return { settings, shards }
}

async function writeIndex(store: Store, settings: TeacherSettings, shards: ReadonlyMap<number, Shard>): Promise<void> {
  const sorted = [...shards].sort(([a], [b]) => a - b).map(([, { file, bytes, sha256 }]) => [file, { bytes, sha256 }])
  await store.write(indexFile, jsonChunks({ version: 1, ...settings, shards: Object.fromEntries(sorted) }))
}

async function brokenShards(source: Source, shards: ReadonlyMap<number, Shard>): Promise<number[]> {
  const broken: number[] = []
  for (const [i, { file, bytes, sha256: hash }] of shards) {
    const isWhole = async () => {
      const found = await source.open(file)
      return found?.size === bytes && (await sha256(await found.read(0, bytes))) === hash
    }
    if (!(await isWhole().catch(() => false))) broken.push(i)
  }
  return broken
}
