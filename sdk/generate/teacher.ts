import { packBatch } from '../data/pack.ts'
import {
  shardCount,
  startTeacherCache,
  TeacherCache,
  type TeacherRow,
  type TeacherSettings,
  writeTeacherShard,
} from '../data/teacher-cache.ts'
import type { Example } from '../data/tokenize.ts'
import { NumericError, OptionError } from '../errors.ts'
import type { Graph } from '../graph/graph.ts'
import { sha256 } from '../hash.ts'
import { LOG_ZERO } from '../log-zero.ts'
import { headWeight, packedHidden } from '../model/decoder.ts'
import { surviving } from '../model/lost.ts'
import type { Model } from '../model/model.ts'
import { Programs } from '../model/programs.ts'
import { type Activations, drawTokens, gatherRows, linear, topLogProbs } from '../ops/index.ts'
import { uniform } from '../random.ts'
import { lockStore, type Store, storeAt } from '../store/store.ts'
import type { ChatTemplate } from '../text/chat-template.ts'
import { packs } from './score.ts'

/** What is asked of a teacher, for every scored token. */
export type TeacherQuestion = Pick<TeacherSettings, 'method' | 'k' | 'temperature' | 'seed'>

/** Says what it thinks of the scored tokens of a few examples, in their order. */
export type Teacher = (examples: readonly Example[], signal?: AbortSignal) => Promise<TeacherRow[]>

/** Logits of one slice of scored rows, in bytes. */
const sliceBytes = 2 ** 26

/** A model of this SDK as a teacher. Free it with `programs.clear()`. */
export function modelTeacher(
  model: Model,
  question: TeacherQuestion,
  programs = new Programs(model),
  activations: Activations = 'f32',
): Teacher {
  const { vocabSize } = model.config
  const slice = Math.max(16, Math.min(256, 2 ** Math.floor(Math.log2(sliceBytes / (4 * vocabSize)))))

  return async (examples, signal) => {
    const results: TeacherRow[] = []
    for (const batch of packs(model, examples)) results.push(...(await askPacked(batch, signal)))
    return results
  }

  async function askPacked(examples: readonly Example[], signal?: AbortSignal): Promise<TeacherRow[]> {
    const batch = packBatch(examples)
    const [n, slices] = [batch.ids.length, Math.ceil(batch.scored / slice)]
    const { ids, positions, starts } = batch
    const inputs: Record<string, ArrayBufferView> = { ids, positions, starts }
    const places = examples.flatMap((e) => scoredPlaces(e).map((t) => [e.row, t] as const))
    for (let s = 0; s < slices; s++) {
      const rows = new Int32Array(slice).fill(-1)
      rows.set(batch.rows.subarray(s * slice, Math.min((s + 1) * slice, batch.scored)))
      inputs[`rows${s}`] = rows
      if (question.method === 'sampled')
        inputs[`uniforms${s}`] = uniforms(places.slice(s * slice, (s + 1) * slice), slice, question)
    }
    const key = `teach ${question.method} ${question.k} ${n} ${slices} ${activations}`
    const temperature = Float32Array.of(question.temperature)
    const out = await surviving(model, async () => {
      const executable = await programs.get(key, (g) => build(g, n, slices))
      return (await executable.run({ ...inputs, temperature }, { signal })) as Record<string, Float32Array>
    })
    const joined = (name: string) => Array.from({ length: slices }, (_, s) => out[`${name}${s}`])
    return question.method === 'topk'
      ? splitTopK(examples, question.k, joined('ids'), joined('logProbs'), joined('tail'), slice)
      : splitDraws(examples, question.k, joined('ids'), slice)
  }

  function build(g: Graph, n: number, slices: number): void {
    const i32 = (name: string, length: number) => g.input(name, { dtype: 'i32', shape: [length] })
    const c = { ...model.context(), activations }
    const hidden = packedHidden(g, c, i32('ids', n), i32('positions', n), i32('starts', n)) // [N, C]
    const temperature = g.input('temperature', { dtype: 'f32', shape: [1] })
    const table = headWeight(g, c)
    for (let s = 0; s < slices; s++) {
      const logits = linear(g, gatherRows(g, hidden, i32(`rows${s}`, slice)), table, undefined, activations) // [slice, V]
      if (question.method === 'sampled') {
        const given = g.input(`uniforms${s}`, { dtype: 'f32', shape: [slice, question.k] })
        g.output(`ids${s}`, drawTokens(g, logits, temperature, given))
        continue
      }
      const [ids, logProbs, tail] = topLogProbs(g, logits, temperature, question.k)
      g.output(`ids${s}`, ids)
      g.output(`logProbs${s}`, logProbs)
      g.output(`tail${s}`, tail)
    }
  }
}

/** Of all its Jinja sources; null: no template. */
export async function templateHash(template: ChatTemplate | null): Promise<string | null> {
  return template && (await sha256(JSON.stringify(template.sources))).slice(0, 16)
}

/** Positions of the scored tokens. */
function scoredPlaces({ labels }: Example): number[] {
  const places: number[] = []
  for (let t = 1; t < labels.length; t++) if (labels[t] >= 0) places.push(t)
  return places
}

/** k ascending uniforms for each place (row of the data, position), the same whatever is computed beside it. [slice, k] */
function uniforms(
  places: readonly (readonly [number, number])[],
  slice: number,
  { k, seed }: TeacherQuestion,
): Float32Array {
  const all = new Float32Array(slice * k)
  for (const [i, [row, t]] of places.entries())
    all.set(Float32Array.from({ length: k }, (_, n) => uniform(seed, row, t, n)).sort(), i * k)
  return all
}

function splitTopK(
  examples: readonly Example[],
  k: number,
  ids: readonly ArrayLike<number>[],
  logProbs: readonly Float32Array[],
  tails: readonly Float32Array[],
  slice: number,
): TeacherRow[] {
  let at = 0
  return examples.map((example) => {
    const count = scoredPlaces(example).length
    const row = { ids: new Int32Array(count * k), logProbs: new Float32Array(count * k), tail: new Float32Array(count) }
    for (let t = 0; t < count; t++, at++) {
      const [s, own] = [Math.floor(at / slice), at % slice]
      for (let j = 0; j < k; j++) {
        row.ids[t * k + j] = ids[s][own * k + j]
        row.logProbs[t * k + j] = logProbs[s][own * k + j]
      }
      row.tail[t] = tails[s][own]
      if (!Number.isFinite(row.logProbs[t * k]) || !Number.isFinite(row.tail[t]))
        throw new NumericError(`row ${example.row}: the teacher's log-probabilities are not finite (broken weights?)`)
    }
    return row
  })
}

/** Equal draws become one id with its share; ids ascend, so equal ones follow each other. */
function splitDraws(
  examples: readonly Example[],
  k: number,
  ids: readonly ArrayLike<number>[],
  slice: number,
): TeacherRow[] {
  let at = 0
  return examples.map((example) => {
    const tokens = scoredPlaces(example).map(() => {
      const [s, own] = [Math.floor(at / slice), at++ % slice]
      const counts = new Map<number, number>()
      for (let j = 0; j < k; j++) counts.set(ids[s][own * k + j], (counts.get(ids[s][own * k + j]) ?? 0) + 1)
      return [...counts]
    })
    const width = Math.max(1, ...tokens.map((token) => token.length))
    const row = {
      ids: new Int32Array(tokens.length * width).fill(-1),
      logProbs: new Float32Array(tokens.length * width).fill(LOG_ZERO),
      tail: new Float32Array(tokens.length).fill(LOG_ZERO),
    }
    for (const [t, token] of tokens.entries())
      for (const [j, [id, count]] of token.entries()) {
        row.ids[t * width + j] = id
        row.logProbs[t * width + j] = Math.log(count / k)
      }
    return row
  })
}

export interface BuildProgress {
  /** Rows whose shard is on disk. */
  readonly rows: number
  /** Scored tokens of them. */
  readonly tokens: number
  readonly totalRows: number
}

/**
 * Asks the teacher about every row and writes the cache, a shard at a time. Interrupted, it goes on where it stopped and ends
 * with the same bytes.
 *
 * @throws OptionError when the folder holds another cache, or another process builds it
 */
export async function buildTeacherCache(
  folder: string | Store,
  settings: TeacherSettings,
  teacher: Teacher,
  examples: readonly Example[],
  { onProgress, signal }: { onProgress?: (progress: BuildProgress) => void; signal?: AbortSignal } = {},
): Promise<TeacherCache> {
  if (examples.length !== settings.rows)
    throw new OptionError(`${examples.length} rows are not the ${settings.rows} of the settings`)
  const store = await storeAt(folder)
  const release = await lockStore(store)
  try {
    const whole = await startTeacherCache(store, settings)
    let [rows, tokens] = [0, 0]
    for (let i = 0; i < shardCount(settings); i++) {
      const own = examples.slice(i * settings.shardRows, (i + 1) * settings.shardRows)
      if (!whole.has(i)) await writeTeacherShard(store, settings, i, await teacher(own, signal))
      rows += own.length
      tokens += own.reduce((sum, example) => sum + scoredPlaces(example).length, 0)
      onProgress?.({ rows, tokens, totalRows: settings.rows })
      signal?.throwIfAborted()
    }
  } finally {
    await release()
  }
  return TeacherCache.open(store)
}
