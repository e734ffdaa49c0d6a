import { readFileSync } from 'node:fs'
import { mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { writeTinyModel } from '../../examples/tiny-model.ts'
import { datasetHash } from '../../sdk/data/dataset-hash.ts'
import {
  startTeacherCache,
  TeacherCache,
  type TeacherRow,
  type TeacherSettings,
  writeTeacherShard,
} from '../../sdk/data/teacher-cache.ts'
import { type Example, tokenizeRows } from '../../sdk/data/tokenize.ts'
import { DataError, FormatError, OptionError } from '../../sdk/errors.ts'
import { buildTeacherCache, modelTeacher } from '../../sdk/generate/teacher.ts'
import { fileFolder, type LanguageModel } from '../../sdk/index.ts'
import { loadModel } from '../../sdk/load.ts'
import { normal } from '../../sdk/random.ts'
import { storeAt } from '../../sdk/store/store.ts'

let folder: string
let lm: LanguageModel
let examples: Example[]

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'halfling-teacher-'))
  await writeTinyModel(join(folder, 'model'), 3)
  lm = await loadModel(join(folder, 'model'), { dtype: 'f32', threads: 1 })
  const rows = Array.from({ length: 23 }, (_, i) => ({ text: `row ${i}: ${'abcdefghij'.repeat(1 + (i % 4))}` }))
  examples = []
  for await (const e of tokenizeRows(rows, lm.tokenizer, null)) examples.push(e)
})
afterAll(async () => {
  await lm.close()
  await rm(folder, { recursive: true, force: true })
})

const scored = (e: Example) => e.labels.slice(1).filter((label) => label >= 0).length

const settings = (given: Partial<TeacherSettings> = {}): TeacherSettings => ({
  method: 'topk',
  k: 8,
  temperature: 1,
  seed: 1,
  model: 'tiny',
  tokenizer: lm.tokenizer.fingerprint,
  template: null,
  dataset: datasetHash(examples),
  vocabSize: 288,
  rows: examples.length,
  tokens: examples.reduce((sum, e) => sum + scored(e), 0),
  shardRows: 5,
  ...given,
})

/** A distribution over `vocab` ids of a given sharpness, as its k likeliest and the tail. */
function fakeRow(tokens: number, k: number, vocab: number, sharpness: number, seed: number): TeacherRow {
  const row = {
    ids: new Int32Array(tokens * k),
    logProbs: new Float32Array(tokens * k),
    tail: new Float32Array(tokens),
  }
  for (let t = 0; t < tokens; t++) {
    const z = Array.from({ length: vocab }, (_, v) => sharpness * normal(seed, t, v))
    const top = Math.max(...z)
    const total = top + Math.log(z.reduce((sum, v) => sum + Math.exp(v - top), 0))
    const order = [...z.keys()].sort((a, b) => z[b] - z[a])
    for (let j = 0; j < k; j++) {
      row.ids[t * k + j] = order[j]
      row.logProbs[t * k + j] = z[order[j]] - total
    }
    row.tail[t] = Math.log(order.slice(k).reduce((sum, v) => sum + Math.exp(z[v] - total), 0))
  }
  return row
}

async function roundTrip(rows: TeacherRow[], given: Partial<TeacherSettings>): Promise<[TeacherRow[], number]> {
  const at = await mkdtemp(join(folder, 'cache-'))
  const tokens = rows.reduce((sum, row) => sum + row.tail.length, 0)
  const s = settings({ rows: rows.length, tokens, shardRows: 1000, ...given })
  await startTeacherCache(await storeAt(at), s)
  await writeTeacherShard(await storeAt(at), s, 0, rows)
  const cache = await TeacherCache.open(at)
  const read = await Promise.all(rows.map((_, i) => cache.row(i)))
  return [read, cache.bytes / tokens]
}

describe('top-k cache', () => {
  it.each([0.01, 1, 3, 12])(
    'log-probabilities survive f16, the derived one too, at sharpness %s',
    async (sharpness) => {
      const rows = [fakeRow(40, 16, 600, sharpness, 5), fakeRow(3, 16, 600, sharpness, 6)]
      const [read] = await roundTrip(rows, { k: 16, vocabSize: 600 })
      for (const [i, row] of rows.entries()) {
        expect([...read[i].ids]).toEqual([...row.ids])
        for (let t = 0; t < row.tail.length; t++) {
          let mass = Math.exp(read[i].tail[t])
          for (let j = 0; j < 16; j++) {
            const [got, want] = [read[i].logProbs[t * 16 + j], row.logProbs[t * 16 + j]]
            mass += Math.exp(got)
            // f16 keeps 11 bits of the logarithm; the greatest is what the others leave.
            expect(Math.abs(got - want)).toBeLessThan(Math.max(2e-3, Math.abs(want) / 2000))
          }
          expect(Math.abs(mass - 1)).toBeLessThan(1e-6)
        }
      }
    },
  )

  it('is read from files that a page was given as from its folder', async () => {
    const at = await mkdtemp(join(folder, 'cache-'))
    const rows = [fakeRow(40, 16, 600, 2, 5), fakeRow(3, 16, 600, 2, 6)]
    const s = settings({ k: 16, vocabSize: 600, rows: 2, tokens: 43, shardRows: 1 })
    await startTeacherCache(await storeAt(at), s)
    for (const [i, row] of rows.entries()) await writeTeacherShard(await storeAt(at), s, i, [row])
    const files = (await readdir(at)).map((name) => new File([readFileSync(join(at, name))], name))
    const [dropped, onDisk] = [await TeacherCache.open(fileFolder(files)), await TeacherCache.open(at)]
    for (const i of [0, 1]) expect(await dropped.row(i)).toEqual(await onDisk.row(i))
    expect(await dropped.verify()).toEqual([])
    const error = await TeacherCache.open(fileFolder([])).catch((e) => e)
    expect(error).toBeInstanceOf(FormatError)
    expect(error.message).toBe('dropped files/teacher.json: no such file')
  })

  it('costs at most 66 bytes a token at K = 16, and 98 for wide vocabularies', async () => {
    const rows = Array.from({ length: 200 }, (_, i) => fakeRow(40, 16, 400, 2, i))
    const [, narrow] = await roundTrip(rows, { k: 16, vocabSize: 65_536 })
    const [read, wide] = await roundTrip(rows, { k: 16, vocabSize: 151_936 })
    expect(narrow).toBeLessThan(66)
    expect(wide).toBeLessThan(98)
    expect([...read[7].ids]).toEqual([...rows[7].ids])
  })

  it('the tiny model says the same here as its own softmax', async () => {
    const teacher = modelTeacher(lm.model, { method: 'topk', k: 8, temperature: 1, seed: 0 })
    const [row] = await teacher([examples[1]])
    const { logProbs } = await scoreAll(examples[1])
    for (let t = 0; t < 3; t++) {
      const own = logProbs[t]
      const order = [...own.keys()].sort((a, b) => own[b] - own[a])
      expect([...row.ids.subarray(t * 8, t * 8 + 8)]).toEqual(order.slice(0, 8))
      expect(row.logProbs[t * 8]).toBeCloseTo(own[order[0]], 4)
      expect(Math.exp(row.tail[t])).toBeCloseTo(
        order.slice(8).reduce((sum, v) => sum + Math.exp(own[v]), 0),
        5,
      )
    }
  })
})

/** Log-probabilities of every id at every scored place, from one-token scores. */
async function scoreAll(example: Example): Promise<{ logProbs: Float64Array[] }> {
  const { scoreExamples } = await import('../../sdk/generate/score.ts')
  const out: Float64Array[] = []
  for (let t = 1; t < Math.min(example.inputIds.length, 4); t++) {
    const rows = Array.from({ length: 288 }, (_, v) => ({
      inputIds: [...example.inputIds.slice(0, t), v],
      labels: [...new Array<number>(t).fill(-100), v],
      row: v,
    }))
    out.push(Float64Array.from((await scoreExamples(lm.model, rows)).map(([x]) => x)))
  }
  return { logProbs: out }
}

describe('building', () => {
  it('an interrupted cache goes on and ends with the same bytes; a torn shard is found and rebuilt', async () => {
    const s = settings()
    const teacher = modelTeacher(lm.model, s)
    const whole = join(folder, 'whole')
    await buildTeacherCache(whole, s, teacher, examples)
    const parts = join(folder, 'parts')
    const stop = new AbortController()
    await expect(
      buildTeacherCache(parts, s, teacher, examples, {
        onProgress: ({ rows }) => rows >= 10 && stop.abort(new Error('enough')),
        signal: stop.signal,
      }),
    ).rejects.toThrow('enough')
    await expect(TeacherCache.open(parts)).rejects.toThrow(/3 of 5 shards are not built yet/)
    await buildTeacherCache(parts, s, teacher, examples)
    for (const name of await readdir(whole))
      expect(Buffer.compare(await readFile(join(whole, name)), await readFile(join(parts, name))), name).toBe(0)
    expect((await readdir(parts)).sort()).toEqual((await readdir(whole)).sort())

    await truncate(join(parts, 'shard-00002.safetensors'), 500)
    const torn = await TeacherCache.open(parts)
    expect(await torn.verify()).toEqual([2])
    await expect(torn.row(11)).rejects.toThrow(FormatError)
    await expect(torn.row(99)).rejects.toThrow(DataError)
    await buildTeacherCache(parts, s, teacher, examples)
    expect(readFileSync(join(parts, 'shard-00002.safetensors'))).toEqual(
      readFileSync(join(whole, 'shard-00002.safetensors')),
    )
  })

  it('keeps what a teacher said that named fewer than K ids', async () => {
    const s = settings({ k: 8 })
    const said = (row: number) => ({
      ids: Int32Array.from([7, 3, -1, -1, -1, -1, -1, -1, row, 2, 1, -1, -1, -1, -1, -1]),
      logProbs: Float32Array.from([-0.5, -2, ...Array(6).fill(-1e30), -3, -4, -5, ...Array(5).fill(-1e30)]),
      tail: Float32Array.from([Math.log1p(-Math.exp(-0.5) - Math.exp(-2)), -0.07]),
    })
    const rows = examples.map((_, row) => said(row + 9))
    const cache = await buildTeacherCache(
      join(folder, 'few'),
      s,
      async (asked) => asked.map((e) => rows[examples.indexOf(e)]),
      examples,
    )
    const read = await cache.row(2)
    expect([...read.ids]).toEqual([...rows[2].ids])
    for (const [j, x] of rows[2].logProbs.entries()) if (x > -100) expect(read.logProbs[j]).toBeCloseTo(x, 2)
  })

  it('refuses a folder with other settings, naming the first that differs', async () => {
    const at = join(folder, 'settings')
    await startTeacherCache(await storeAt(at), settings())
    await expect(startTeacherCache(await storeAt(at), settings({ temperature: 2 }))).rejects.toThrow(
      /another temperature \(1, now 2\)/,
    )
    await expect(startTeacherCache(await storeAt(join(folder, 'x')), settings({ k: 65 }))).rejects.toThrow(OptionError)
    await writeFile(join(at, 'teacher.json'), '{"version": 1}')
    await expect(TeacherCache.open(at)).rejects.toThrow(FormatError)
  })
})

describe('sampled cache', () => {
  it('keeps shares of the draws; the same draws whatever is computed beside them', async () => {
    const s = settings({ method: 'sampled', k: 24 })
    const teacher = modelTeacher(lm.model, s)
    const cache = await buildTeacherCache(join(folder, 'sampled'), s, teacher, examples)
    const alone = (await teacher([examples[4]]))[0]
    const read = await cache.row(4)
    expect([...read.ids]).toEqual([...alone.ids])
    const width = read.ids.length / read.tail.length
    for (let t = 0; t < read.tail.length; t++) {
      let mass = 0
      for (let j = 0; j < width; j++) {
        expect(read.logProbs[t * width + j]).toBeCloseTo(alone.logProbs[t * width + j], 6)
        mass += Math.exp(read.logProbs[t * width + j])
      }
      expect(mass).toBeCloseTo(1, 6)
    }
  })

  it('draws follow the softmax: chi-square over 20,000 draws', async () => {
    // One token of one row, asked 100 times with other seeds.
    const example = { inputIds: [60, 61], labels: [-100, 61], row: 0 }
    const top = (await modelTeacher(lm.model, { method: 'topk', k: 12, temperature: 1, seed: 0 })([example]))[0]
    const counts = new Map<number, number>()
    for (let seed = 0; seed < 100; seed++) {
      const [row] = await modelTeacher(lm.model, { method: 'sampled', k: 200, temperature: 1, seed })([example])
      row.ids.forEach((id, j) => {
        if (id >= 0) counts.set(id, (counts.get(id) ?? 0) + Math.round(200 * Math.exp(row.logProbs[j])))
      })
    }
    const total = 20_000
    let [chi, rest] = [0, total]
    for (let j = 0; j < 12; j++) {
      const want = total * Math.exp(top.logProbs[j])
      const got = counts.get(top.ids[j]) ?? 0
      chi += (got - want) ** 2 / want
      rest -= got
    }
    const want = total * Math.exp(top.tail[0])
    chi += (rest - want) ** 2 / want
    // 12 degrees of freedom: 0.999 quantile
    expect(chi).toBeLessThan(32.9)
  })
})
