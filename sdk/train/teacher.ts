import { datasetHash } from '../data/dataset-hash.ts'
import { TeacherCache, type TeacherRow } from '../data/teacher-cache.ts'
import type { Example } from '../data/tokenize.ts'
import { DataError, OptionError } from '../errors.ts'
import { LanguageModel } from '../generate/language-model.ts'
import { modelTeacher, type Teacher } from '../generate/teacher.ts'
import { LOG_ZERO } from '../log-zero.ts'
import { Programs } from '../model/programs.ts'
import type { DistillSettings } from './config.ts'
import type { DistillOptions } from './distill.ts'

/** Whoever says what the tokens should have been: a cache, or a model. */
export interface OpenTeacher {
  /** Ids a token at most. */
  readonly width: number
  readonly temperature: number
  /** What a resumed run must have had as well. */
  readonly identity: Readonly<Record<string, unknown>>
  /** About the scored tokens of rows: those of the cache, or any. */
  readonly ask: Teacher
  close(): Promise<void>
}

/** Throws OptionError, and DataError for a cache of other rows. */
export async function openTeacher(
  { model, teacher }: DistillOptions,
  args: DistillSettings,
  examples: readonly Example[],
): Promise<OpenTeacher> {
  const { vocabSize } = model.model.config
  if (teacher instanceof LanguageModel) {
    checkSameTokenizer(teacher.tokenizer.fingerprint, model, 'the teacher')
    const { temperature = 1, topK } = args
    const programs = new Programs(teacher.model)
    const live = modelTeacher(teacher.model, { method: 'topk', k: topK, temperature, seed: 0 }, programs)
    return {
      width: topK,
      temperature,
      identity: { live: true, topK },
      ask: async (rows, signal) => withinVocabulary(await live(rows, signal), vocabSize),
      close: async () => programs.clear(),
    }
  }
  const cache = await TeacherCache.open(teacher)
  checkCache(cache, model, args, examples)
  const indexOf = new Map(examples.map((example, i) => [example, i]))
  const { method, k, model: name, dataset, seed, temperature } = cache.settings
  return {
    width: k,
    temperature,
    identity: { method, k, model: name, dataset, seed },
    ask: async (rows) =>
      withinVocabulary(await Promise.all(rows.map((row) => cache.row(indexOf.get(row)!))), vocabSize),
    close: async () => {},
  }
}

function checkSameTokenizer(fingerprint: string, { tokenizer }: LanguageModel, whose: string): void {
  if (fingerprint !== tokenizer.fingerprint)
    throw new OptionError(
      `${whose} has another tokenizer than the student (${fingerprint}, not ${tokenizer.fingerprint}): distillation compares token by token, both must be of one family`,
    )
}

function checkCache(
  { folder, settings }: TeacherCache,
  model: LanguageModel,
  { temperature, beta }: DistillSettings,
  examples: readonly Example[],
): void {
  checkSameTokenizer(settings.tokenizer, model, folder)
  if (temperature !== undefined && temperature !== settings.temperature)
    throw new OptionError(
      `temperature: ${temperature}, but ${folder} was built at ${settings.temperature}, and the likeliest ids alone cannot be brought to another: build the cache at ${temperature}`,
    )
  if (settings.method === 'sampled' && beta !== 0)
    throw new OptionError(
      `beta: ${beta}, but sampled ids (${folder}) give an unbiased forward KL only: use beta 0, or a topk cache`,
    )
  const dataset = datasetHash(examples)
  if (settings.rows !== examples.length || settings.dataset !== dataset)
    throw new DataError(
      `${folder}: was built for ${settings.rows} rows with hash ${settings.dataset}, these are ${examples.length} with ${dataset}: use the same file, chat template, maxLength and masking as \`halfling teacher build\``,
    )
}

/** Ids past the student's table become padding, and their mass part of the rest: the padding of one family's tables differs. */
function withinVocabulary(rows: readonly TeacherRow[], vocabSize: number): TeacherRow[] {
  return rows.map((row) => {
    if (!row.ids.some((id) => id >= vocabSize)) return row
    const [ids, logProbs, tail] = [row.ids.slice(), row.logProbs.slice(), row.tail.slice()]
    const width = ids.length / tail.length
    for (const [i, id] of ids.entries()) {
      if (id < vocabSize) continue
      const t = Math.floor(i / width)
      tail[t] = Math.log(Math.exp(tail[t]) + Math.exp(logProbs[i]))
      ids[i] = -1
      logProbs[i] = LOG_ZERO
    }
    return { ids, logProbs, tail }
  })
}

/** What a teacher said of all scored rows as inputs of `distillation`; rows of padding weigh nothing. */
export function teacherInputs(
  targets: Int32Array,
  said: readonly TeacherRow[],
  width: number,
  withTargets: boolean,
): Record<string, Int32Array | Float32Array> {
  const columns = withTargets ? width + 1 : width
  const r = targets.length
  const picks = new Int32Array(r * columns).fill(-1)
  const teacherLogProbs = new Float32Array(r * columns).fill(LOG_ZERO)
  const teacherTail = new Float32Array(r).fill(LOG_ZERO)
  const targetColumn = new Float32Array(withTargets ? r * columns : 0)
  let at = 0
  for (const { ids, logProbs, tail } of said) {
    const own = tail.length === 0 ? 0 : ids.length / tail.length
    for (let t = 0; t < tail.length; t++, at++) {
      const known = ids.subarray(t * own, (t + 1) * own)
      picks.set(known, at * columns)
      teacherLogProbs.set(logProbs.subarray(t * own, (t + 1) * own), at * columns)
      teacherTail[at] = tail[t]
      if (!withTargets) continue
      const there = known.indexOf(targets[at])
      const column = there < 0 ? width : there
      picks[at * columns + column] = targets[at]
      targetColumn[at * columns + column] = 1
    }
  }
  return { picks, teacherLogProbs, teacherTail, ...(withTargets && { targetColumn }) }
}
