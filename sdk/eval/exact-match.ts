import { questionPrompt } from '../data/tokenize.ts'
import { type BatchOptions, generateBatch } from '../generate/batch.ts'
import type { LanguageModel } from '../generate/language-model.ts'
import { extractAnswer, sameAnswer } from './answer.ts'

/** A row of a test set. */
export interface Question {
  readonly question: string
  /** The answer, or a solution that ends with one as GSM8K's do ("... #### 18"). */
  readonly answer: string
}

/** What `evaluateExactMatch` takes. */
export interface ExactMatchOptions extends BatchOptions {
  /** System message; only with a chat template. */
  readonly system?: string
}

/** One question and what became of it. */
export interface ExactMatchItem {
  /** Of the row, from 0. */
  readonly index: number
  readonly question: string
  /** The right answer. */
  readonly gold: string
  /** What the model wrote. */
  readonly text: string
  /** The answer found in it, or null. */
  readonly answer: string | null
  readonly correct: boolean
}

/** The result of `evaluateExactMatch`. */
export interface ExactMatch {
  readonly n: number
  readonly correct: number
  /** Share of right answers, 0 to 1. */
  readonly accuracy: number
  /** Of the accuracy p: sqrt(p (1 - p) / n). */
  readonly standardError: number
  /** In the order of the rows. */
  readonly items: readonly ExactMatchItem[]
}

/** Where an evaluation stands, after each answer. */
export interface ExactMatchProgress {
  readonly done: number
  readonly correct: number
  /** Tokens generated so far. */
  readonly tokens: number
}

/** The answer of a row: what `extractAnswer` finds in it, else all of it. */
export const goldAnswer = (answer: string): string => extractAnswer(answer) ?? answer.trim()

/** Without a chat template a model may go on asking itself. */
const nextQuestion = ['\nQuestion:']

/**
 * Asks every question, in the chat template where the model has one, else as "Question: ...\nAnswer:", and compares the
 * answers: what stands in `<answer>`, `\boxed{}`, after `####` or after "The answer is". Greedy unless a temperature is given.
 *
 * @throws ContextError when a question does not fit in the model's context
 */
export async function evaluateExactMatch(
  lm: LanguageModel,
  rows: readonly Question[],
  { system, ...options }: ExactMatchOptions = {},
  onProgress: (progress: ExactMatchProgress) => void = () => {},
): Promise<ExactMatch> {
  const opening = system === undefined ? [] : [{ role: 'system', content: system }]
  const prompts = rows.map(({ question }) =>
    lm.chatTemplate
      ? lm.chatPrompt([...opening, { role: 'user', content: question }], options)
      : lm.encodePrompt(questionPrompt(question)),
  )
  const stop = options.stop ?? (lm.chatTemplate ? [] : nextQuestion)
  const items: ExactMatchItem[] = []
  let [correct, tokens] = [0, 0]
  const given = { ...options, temperature: options.temperature ?? 0, stop }
  for await (const { index, text, tokenIds } of generateBatch(lm, prompts, given)) {
    const { question, answer: row } = rows[index]
    const [gold, answer] = [goldAnswer(row), extractAnswer(text)]
    const item = { index, question, gold, text, answer, correct: answer !== null && sameAnswer(answer, gold) }
    items.push(item)
    if (item.correct) correct++
    tokens += tokenIds.length
    onProgress({ done: items.length, correct, tokens })
  }
  items.sort((a, b) => a.index - b.index)
  const [n, accuracy] = [rows.length, correct / rows.length]
  return { n, correct, accuracy, standardError: Math.sqrt((accuracy * (1 - accuracy)) / n), items }
}
