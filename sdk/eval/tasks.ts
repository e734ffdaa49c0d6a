import { type ColumnNames, readContent } from '../data/columns.ts'
import { type Row, readRows } from '../data/rows.ts'
import { DataError } from '../errors.ts'
import { join } from '../store/path.ts'
import { storeAt } from '../store/store.ts'
import type { Question } from './prompts.ts'

/** A test set: where it comes from, and which columns hold what. `a|b`: the first of these that a row has. */
export interface Task {
  /** On the hub: `org/name[/folder]:split`. */
  readonly dataset: string
  /** What its file is called in a folder of test sets, beside its own name. */
  readonly file?: string
  /** Joined as sentences; the last one must be there. */
  readonly question: readonly string[]
  /** The answer, or a solution that ends with it; a list is several answers. */
  readonly answer: string
  /** Answers are followed by their unit in brackets; rows with several of them are left out, as everybody does. */
  readonly hasUnits?: boolean
  /** Room for an answer with its reasoning. */
  readonly maxNewTokens: number
}

const competition = { question: ['problem|question'], answer: 'answer|solution', maxNewTokens: 2048 }
const arithmetic = { question: ['Body|body', 'Question|question'], answer: 'Answer|answer', maxNewTokens: 512 }

export const tasks = {
  gsm8k: { dataset: 'openai/gsm8k/main:test', ...competition, maxNewTokens: 512 },
  math500: { dataset: 'HuggingFaceH4/MATH-500:test', ...competition },
  minerva: { dataset: 'math-ai/minervamath:test', file: 'minerva_math', ...competition },
  olympiadbench: {
    dataset: 'math-ai/olympiadbench:test',
    ...competition,
    question: ['context', 'question'],
    answer: 'final_answer',
  },
  amc23: { dataset: 'math-ai/amc23:test', ...competition },
  aime24: { dataset: 'HuggingFaceH4/aime_2024:train', ...competition },
  svamp: { dataset: 'ChilleD/SVAMP:test', ...arithmetic },
  asdiv: { dataset: 'EleutherAI/asdiv/asdiv:validation', ...arithmetic, hasUnits: true },
} as const satisfies Record<string, Task>

export type TaskName = keyof typeof tasks
export const taskNames = Object.keys(tasks) as TaskName[]

/**
 * The questions of a test set: of `data` (a file, or a folder that has one of the task's name), else from the hub.
 *
 * @throws DataError naming the row that is no question of this task, or what was looked for in the folder
 */
export async function* readTask(name: TaskName, data?: string): AsyncGenerator<Question, void> {
  const task: Task = tasks[name]
  for await (const row of readRows(data === undefined ? task.dataset : await fileOf(name, task, data))) {
    const question = readQuestion(task, row)
    if (question) yield question
  }
}

/**
 * The questions of rows of one's own.
 *
 * @throws DataError naming the row that has no question and answer
 */
export async function* readQuestions(data: string, columns?: ColumnNames): AsyncGenerator<Question, void> {
  for await (const row of readRows(data)) {
    // Naming these columns leaves readContent no other kind of row to choose.
    const content = readContent(row, { question: 'question', answer: 'answer', ...columns })
    if (content.kind !== 'question') throw new DataError(`${row.place}: it has no question and answer`)
    yield content
  }
}

/** `data` itself, unless it is a folder. */
async function fileOf(name: TaskName, { file }: Task, data: string): Promise<string> {
  const folder = await storeAt(data)
  const entries = await folder.list()
  // A file, or a name of the hub.
  if (entries.length === 0 || entries[0].name === '') return data
  const names = [name, ...(file ? [file] : []), 'test']
  const candidates = names.flatMap((base) => ['jsonl', 'json', 'parquet'].map((end) => `${base}.${end}`))
  for (const candidate of candidates) if (await folder.open(candidate)) return join(data, candidate)
  throw new DataError(`${data}: has no rows of ${name}: looked for ${candidates.join(', ')}`)
}

function readQuestion({ question, answer, hasUnits }: Task, { values, place }: Row): Question | null {
  const get = (columns: string): unknown =>
    columns
      .split('|')
      .map((column) => (Object.hasOwn(values, column) ? values[column] : undefined))
      .find((value) => value != null && value !== '')
  const wrong = (columns: string): DataError => {
    const there = Object.keys(values).join(', ') || 'none'
    return new DataError(`${place}: no ${columns.replaceAll('|', ' or ')} to read; its columns are ${there}`)
  }
  const parts = question.map(get)
  if (parts.at(-1) === undefined) throw wrong(question.at(-1)!)
  const gold = answerText(get(answer))
  if (gold === null) throw wrong(answer)
  if (hasUnits && gold.includes(';')) return null
  return {
    question: joinSentences(parts.filter((part) => part !== undefined).map(String)),
    answer: hasUnits ? gold.replace(/\s*\([^()]*\)\s*$/, '') : gold,
  }
}

/** Null where it is neither text, a number, nor a list of these. */
function answerText(value: unknown): string | null {
  if (typeof value === 'string') return value
  if (typeof value === 'number' || typeof value === 'bigint') return String(value)
  if (!Array.isArray(value) || value.length === 0) return null
  const all = value.map(answerText)
  return all.includes(null) ? null : all.join(', ')
}

const joinSentences = (parts: readonly string[]): string =>
  parts
    .map((part, i) => {
      const text = part.trim()
      return i < parts.length - 1 && !/[.?!]$/.test(text) ? `${text}.` : text
    })
    .join(' ')
