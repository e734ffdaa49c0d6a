import type { Question } from '../../sdk/index.ts'

export type RowValues = Readonly<Record<string, unknown>>

/** Rows of .jsonl text, or of a JSON array. Throws an Error that names the line. */
export function parseRows(text: string): RowValues[] {
  const isRow = (value: unknown): value is RowValues =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
  if (text.trimStart().startsWith('[')) {
    const rows: unknown = JSON.parse(text)
    if (Array.isArray(rows) && rows.every(isRow)) return rows
    throw new Error('wanted a list of JSON objects')
  }
  const rows = text.split('\n').flatMap((line, i) => {
    if (line.trim() === '') return []
    try {
      const row: unknown = JSON.parse(line)
      if (isRow(row)) return [row]
    } catch (error) {
      throw new Error(`line ${i + 1}: ${(error as Error).message}`)
    }
    throw new Error(`line ${i + 1}: wanted a JSON object`)
  })
  if (rows.length === 0) throw new Error('there are no rows yet')
  return rows
}

const isQuestion = (row: RowValues): boolean =>
  typeof row.question === 'string' && (typeof row.answer === 'string' || typeof row.answer === 'number')

const asQuestion = (row: RowValues): Question => ({ question: String(row.question), answer: String(row.answer) })

/** One row in ten, at most 100, is held back from training for the test; none of few rows, or of rows without answers. */
export function holdOut(rows: readonly RowValues[]): { train: readonly RowValues[]; questions: Question[] } {
  if (rows.length < 20 || !rows.every(isQuestion)) return { train: rows, questions: [] }
  const every = Math.max(10, Math.ceil(rows.length / 100))
  return {
    train: rows.filter((_, i) => i % every !== every - 1),
    questions: rows.filter((_, i) => i % every === every - 1).map(asQuestion),
  }
}
