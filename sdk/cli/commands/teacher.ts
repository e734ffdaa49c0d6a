import { basename } from 'node:path'
import type { Command } from 'commander'
import { z } from 'zod'
import { datasetHash } from '../../data/dataset-hash.ts'
import { scoredTokens } from '../../data/pack.ts'
import { TeacherCache, type TeacherSettings } from '../../data/teacher-cache.ts'
import { FormatError, OptionError } from '../../errors.ts'
import type { Question } from '../../eval/prompts.ts'
import { readQuestions } from '../../eval/tasks.ts'
import { writeTraces } from '../../eval/traces.ts'
import { httpTeacher } from '../../generate/http-teacher.ts'
import type { LanguageModel } from '../../generate/language-model.ts'
import { buildTeacherCache, modelTeacher, type Teacher, templateHash } from '../../generate/teacher.ts'
import { Programs } from '../../model/programs.ts'
import { fillOptions } from '../../option-table.ts'
import { rowConfig } from '../../train/config.ts'
import { readExamples } from '../../train/rows.ts'
import { Interrupted } from '../errors.ts'
import { interruptible } from '../interrupt.ts'
import { aliases, runKeys } from '../keys.ts'
import { withModel } from '../open-model.ts'
import { addJson } from '../options.ts'
import { formatNumber, log, print, printJson } from '../output.ts'
import { Progress } from '../progress.ts'
import { addFlags, readSettings, type Settings } from '../settings.ts'
import { missing, only } from '../train.ts'

const { model, adapter, data, device, threads, build, dtype } = runKeys

const buildKeys = {
  model,
  adapter,
  data,
  output: z.string().describe('the folder of the cache; for traces a .jsonl file'),
  method: z
    .enum(['topk', 'sampled', 'traces'])
    .describe('topk: likeliest ids and the rest; sampled: draws; traces: right answers as text. default: topk'),
  k: z
    .int()
    .positive()
    .describe('ids a token (topk, up to 64; default 16) or draws a token (sampled, up to 255; default 64)'),
  temperature: z.number().positive().describe('default: 1'),
  seed: z.int().min(0).describe('of draws and traces; default: 0'),
  shardRows: z.int().positive().describe('rows of a shard: what an interruption loses at most; default: 256'),
  url: z
    .string()
    .describe("topk from an OpenAI-compatible server instead: http://host:port; --model is then the student's"),
  urlModel: z.string().describe("the server's name of the teacher"),
  concurrency: z.int().positive().describe('requests at once; default: 4'),
  requestsPerMinute: z.number().positive().describe('default: as many as it takes'),
  samples: z.int().positive().describe('traces: answers drawn of each question; default: 4'),
  keep: z.int().positive().describe('traces: right answers kept of each, shortest first; default: 1'),
  maxNewTokens: z.int().positive().describe('traces: tokens of an answer at most'),
  ...rowConfig,
  device,
  threads,
  build,
  dtype,
}

type Build = Settings<typeof buildKeys>

export function addTeacher(program: Command): void {
  const teacher = program.command('teacher').description("a teacher's token distributions, computed once and kept")
  const build = teacher.command('build').description('asks a model about every token of rows; run again, it goes on')
  addFlags(build, buildKeys)
  addJson(build).action(async (flags: Record<string, unknown>) => {
    const settings = readSettings(flags, buildKeys, aliases)
    const { data, output } = settings
    if (data === undefined) throw missing('data')
    if (output === undefined) throw missing('output')
    const result = await interruptible((signal) =>
      withModel({ ...settings, workload: 'prefill' }, signal, (lm) =>
        settings.method === 'traces'
          ? buildTraces(lm, settings, data, output, signal)
          : buildCache(lm, settings, data, output, signal),
      ),
    ).catch((error) => {
      throw error instanceof Interrupted ? new Interrupted(`interrupted; the same command goes on in ${output}`) : error
    })
    if (flags.json) printJson(result)
    else for (const line of describe(result)) print(line)
  })

  const info = teacher.command('info <folder>').description('what is in a cache, and its bytes a token')
  addJson(info).action(async (folder: string, flags: { json?: boolean }) => {
    const told = infoOf(await TeacherCache.open(folder))
    if (flags.json) printJson(told)
    else for (const line of describe(told)) print(line)
  })

  const verify = teacher.command('verify <folder>').description('reads every byte again; the build mends what is torn')
  addJson(verify).action(async (folder: string, flags: { json?: boolean }) => {
    const cache = await TeacherCache.open(folder)
    const torn = await cache.verify()
    if (torn.length > 0)
      throw new FormatError(
        `${folder}: shards ${torn.join(', ')} are torn or missing: the same \`halfling teacher build\` makes them again`,
      )
    if (flags.json) printJson({ folder, shards: Math.ceil(cache.settings.rows / cache.settings.shardRows), torn })
    else print(`${folder}: every shard is whole`)
  })
}

const infoOf = ({ folder, settings, bytes }: TeacherCache) => ({
  folder,
  ...settings,
  bytes,
  bytesPerToken: bytes / settings.tokens,
})

function* describe(result: object): Generator<string> {
  const width = Math.max(...Object.keys(result).map((key) => key.length))
  for (const [key, value] of Object.entries(result))
    yield `${key.padEnd(width)}  ${typeof value === 'number' ? formatNumber(value) : value}`
}

async function buildCache(
  lm: LanguageModel,
  given: Build,
  data: string,
  output: string,
  signal: AbortSignal,
): Promise<object> {
  const row = fillOptions(rowConfig, only(given, rowConfig), 'rows')
  const examples = await readExamples(lm, data, row, (message) => log(`warning: ${message}`))
  const method = given.method === 'sampled' ? 'sampled' : 'topk'
  const { vocabSize } = lm.model.config
  const settings: TeacherSettings = {
    method,
    k: given.k ?? (method === 'topk' ? Math.min(16, vocabSize) : 64),
    temperature: given.temperature ?? 1,
    seed: given.seed ?? 0,
    model: given.url === undefined ? basename(given.model ?? 'nano') : (given.urlModel ?? given.url),
    tokenizer: lm.tokenizer.fingerprint,
    template: await templateHash(lm.chatTemplate),
    dataset: datasetHash(examples),
    vocabSize,
    rows: examples.length,
    tokens: examples.reduce((n, example) => n + scoredTokens(example), 0),
    shardRows: given.shardRows ?? 256,
  }
  const programs = new Programs(lm.model)
  const progress = new Progress('asking')
  const start = performance.now()
  try {
    const teacher = given.url === undefined ? modelTeacher(lm.model, settings, programs) : remote(lm, given, settings)
    const cache = await buildTeacherCache(output, settings, teacher, examples, {
      onProgress: ({ rows, tokens, totalRows }) => {
        const rate = (1000 * tokens) / (performance.now() - start)
        progress.update(
          rows,
          totalRows,
          `${formatNumber(rows)} of ${formatNumber(totalRows)} rows | ${formatNumber(rate)} tokens/s`,
        )
      },
      signal,
    })
    return infoOf(cache)
  } finally {
    progress.end()
    programs.clear()
  }
}

/** A server's log-probabilities; its key is in HALFLING_API_KEY. */
function remote(lm: LanguageModel, given: Build, { method, k, temperature, vocabSize }: TeacherSettings): Teacher {
  const { url, urlModel, concurrency, requestsPerMinute } = given
  if (method !== 'topk' || temperature !== 1)
    throw new OptionError('url: servers give the likeliest tokens at temperature 1 alone (method topk)')
  if (urlModel === undefined) throw missing('urlModel')
  const { tokenizer } = lm
  const apiKey = process.env.HALFLING_API_KEY
  return httpTeacher({ url: url!, model: urlModel, apiKey, k, vocabSize, tokenizer, concurrency, requestsPerMinute })
}

async function buildTraces(
  lm: LanguageModel,
  given: Build,
  data: string,
  output: string,
  signal: AbortSignal,
): Promise<object> {
  if (!/\.jsonl$/i.test(output))
    throw new OptionError(`output: ${output} is no .jsonl file, which traces are written to`)
  const questions: Question[] = []
  for await (const question of readQuestions(data, given.columns)) questions.push(question)
  const { samples, keep, temperature, seed, maxNewTokens } = given
  const progress = new Progress('asking')
  try {
    const kept = await writeTraces(lm, questions, output, {
      samples,
      keep,
      temperature,
      seed,
      maxNewTokens,
      signal,
      onProgress: ({ questions, total, kept }) =>
        progress.update(questions, total, `${formatNumber(kept)} right answers kept`),
    })
    return { output, questions: questions.length, kept }
  } finally {
    progress.end()
  }
}
