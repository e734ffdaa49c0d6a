import { graders } from '../answers/graders.ts'
import { questionPrompt } from '../data/tokenize.ts'
import { OptionError } from '../errors.ts'
import { type BatchOptions, generateBatch } from '../generate/batch.ts'
import type { LanguageModel } from '../generate/language-model.ts'
import { randomBits } from '../random.ts'
import { checkSameSettings } from '../same-settings.ts'
import { lockStore, storeAt } from '../store/store.ts'
import { jsonChunks, readJson, readText, textChunks } from '../store/text.ts'
import { encodeQuestion, type Question, stopsOf } from './prompts.ts'

export interface TraceOptions extends BatchOptions {
  /** Answers drawn of each question; default 4. */
  readonly samples?: number
  /** Right answers kept of each question, the shortest first: small models learn from short traces. Default 1. */
  readonly keep?: number
  /** Whether an answer is kept at all; default: its final answer is the row's. */
  readonly isRight?: (question: Question, text: string) => boolean | Promise<boolean>
  readonly onProgress?: (progress: {
    readonly questions: number
    readonly total: number
    readonly kept: number
  }) => void
}

/** A row to train on, as `trainDataset` takes it. */
export type Trace =
  | { readonly messages: readonly { readonly role: string; readonly content: string }[] }
  | { readonly prompt: string; readonly completion: string }

const finalAnswerIsRight = async ({ answer }: Question, text: string): Promise<boolean> =>
  (await graders.exact.grade(answer, text)).correct

/** Questions of one part file: what an interruption loses at most. */
const partSize = 32

/**
 * Asks the teacher every question `samples` times and writes what is right as rows (.jsonl) to train on: distillation by text,
 * which needs no common vocabulary. Interrupted, it goes on where it stopped and ends with the same bytes.
 *
 * @returns how many rows were kept
 * @throws OptionError for options out of range
 */
export async function writeTraces(
  teacher: LanguageModel,
  questions: readonly Question[],
  output: string,
  { samples = 4, keep = 1, isRight = finalAnswerIsRight, onProgress, ...options }: TraceOptions = {},
): Promise<number> {
  if (!(Number.isInteger(samples) && samples > 0))
    throw new OptionError(`samples: ${samples} is not a positive integer`)
  if (!(Number.isInteger(keep) && keep > 0)) throw new OptionError(`keep: ${keep} is not a positive integer`)
  const parts = await storeAt(`${output}.parts`)
  const release = await lockStore(parts)
  try {
    const { seed = 0 } = options
    // Parts of another run must not be mistaken for this one's.
    const { signal: _, slots: __, ...decisive } = options
    const settings = { ...decisive, seed, samples, keep, questions: questions.length }
    const before = await readJson(parts, 'run.json')
    if (before !== null) checkSameSettings<object>(parts.name, before, settings)
    await parts.write('run.json', jsonChunks(settings))

    const texts: string[] = []
    let kept = 0
    for (let start = 0; start < questions.length; start += partSize) {
      const own = questions.slice(start, start + partSize)
      const part = `${String(start / partSize).padStart(6, '0')}.jsonl`
      let text = await readText(parts, part)
      if (text === null) {
        const partSeed = randomBits(seed, start / partSize)
        const rows = await traces(teacher, own, samples, keep, isRight, { temperature: 1, ...options, seed: partSeed })
        text = rows.map((row) => `${JSON.stringify(row)}\n`).join('')
        await parts.write(part, textChunks(text))
      }
      texts.push(text)
      kept += text.split('\n').length - 1
      onProgress?.({ questions: start + own.length, total: questions.length, kept })
    }
    await (await storeAt(output)).write('', textChunks(texts.join('')))
    await parts.remove('')
    return kept
  } finally {
    await release()
  }
}

/** The right answers to a few questions, in their order. */
async function traces(
  teacher: LanguageModel,
  questions: readonly Question[],
  samples: number,
  keep: number,
  isRight: NonNullable<TraceOptions['isRight']>,
  options: BatchOptions,
): Promise<Trace[]> {
  const prompts = questions.flatMap(({ question }) =>
    new Array<number[]>(samples).fill(encodeQuestion(teacher, question, 'chat')),
  )
  const right: { text: string; tokens: number; sample: number }[][] = questions.map(() => [])
  const stop = stopsOf(teacher, options)
  for await (const { index, text, tokenIds, finishReason } of generateBatch(teacher, prompts, { ...options, stop })) {
    const question = Math.floor(index / samples)
    // What was cut off teaches no end.
    if (finishReason === 'stop' && (await isRight(questions[question], text)))
      right[question].push({ text, tokens: tokenIds.length, sample: index })
  }
  return questions.flatMap(({ question }, i) => {
    const seen = new Set<string>()
    return right[i]
      .sort((a, b) => a.tokens - b.tokens || a.sample - b.sample)
      .filter(({ text }) => !seen.has(text) && seen.add(text))
      .slice(0, keep)
      .map(
        ({ text }): Trace =>
          teacher.chatTemplate
            ? {
                messages: [
                  { role: 'user', content: question },
                  { role: 'assistant', content: text },
                ],
              }
            : { prompt: questionPrompt(question), completion: text },
      )
  })
}
