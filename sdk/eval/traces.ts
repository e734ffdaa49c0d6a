import { questionPrompt } from '../data/tokenize.ts'
import { OptionError } from '../errors.ts'
import { lockFolder } from '../formats/lock.ts'
import { readTextFile, writeAtomically } from '../formats/node-file.ts'
import { type BatchOptions, generateBatch } from '../generate/batch.ts'
import type { LanguageModel } from '../generate/language-model.ts'
import { randomBits } from '../random.ts'
import { extractAnswer, sameAnswer } from './answer.ts'
import { goldAnswer, type Question } from './exact-match.ts'

export interface TraceOptions extends BatchOptions {
  /** Answers drawn of each question; default 4. */
  readonly samples?: number
  /** Right answers kept of each question, the shortest first: small models learn from short traces. Default 1. */
  readonly keep?: number
  /** Whether an answer is kept at all; default: its final answer is the row's. */
  readonly isRight?: (question: Question, text: string) => boolean
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

const finalAnswerIsRight = ({ answer }: Question, text: string): boolean => {
  const found = extractAnswer(text)
  return found !== null && sameAnswer(found, goldAnswer(answer))
}

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
  const fs = await import('node:fs/promises')
  const { join } = await import('node:path')
  const parts = `${output}.parts`
  const release = await lockFolder(parts)
  try {
    const { seed = 0 } = options
    // Parts of another run must not be mistaken for this one's.
    const { signal: _, slots: __, ...decisive } = options
    const run = JSON.stringify({ ...decisive, seed, samples, keep, questions: questions.length })
    const runFile = join(parts, 'run.json')
    const before = await readTextFile(runFile).catch(() => null)
    if (before !== null && before !== run)
      throw new OptionError(`${parts}: holds the parts of another run: delete it, or give another output`)
    await writeAtomically(runFile, [new TextEncoder().encode(run)])

    const texts: string[] = []
    let kept = 0
    for (let start = 0; start < questions.length; start += partSize) {
      const own = questions.slice(start, start + partSize)
      const part = join(parts, `${String(start / partSize).padStart(6, '0')}.jsonl`)
      let text = await readTextFile(part).catch(() => null)
      if (text === null) {
        const partSeed = randomBits(seed, start / partSize)
        const rows = await traces(teacher, own, samples, keep, isRight, { temperature: 1, ...options, seed: partSeed })
        text = rows.map((row) => `${JSON.stringify(row)}\n`).join('')
        await writeAtomically(part, [new TextEncoder().encode(text)])
      }
      texts.push(text)
      kept += text.split('\n').length - 1
      onProgress?.({ questions: start + own.length, total: questions.length, kept })
    }
    await writeAtomically(output, [new TextEncoder().encode(texts.join(''))])
    await fs.rm(parts, { recursive: true, force: true })
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
  const chat = teacher.chatTemplate !== null
  const prompts = questions.flatMap(({ question }) => {
    const ids = chat
      ? teacher.chatPrompt([{ role: 'user', content: question }])
      : teacher.encodePrompt(questionPrompt(question))
    return new Array<number[]>(samples).fill(ids)
  })
  const right: { text: string; tokens: number; sample: number }[][] = questions.map(() => [])
  const stop = options.stop ?? (chat ? [] : ['\nQuestion:'])
  for await (const { index, text, tokenIds, finishReason } of generateBatch(teacher, prompts, { ...options, stop })) {
    const question = Math.floor(index / samples)
    // What was cut off teaches no end.
    if (finishReason === 'stop' && isRight(questions[question], text))
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
          chat
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
