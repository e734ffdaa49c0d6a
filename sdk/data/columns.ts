import { DataError } from '../errors.ts'
import { shown } from '../options.ts'
import type { ChatMessage } from '../text/chat-template.ts'
import { readConversation } from '../text/messages.ts'
import { parseJson } from './json.ts'
import type { Row } from './rows.ts'

/** What a row says, whatever its columns were called. */
export type Content =
  | { readonly kind: 'messages'; readonly messages: readonly ChatMessage[]; readonly tools?: readonly unknown[] }
  | { readonly kind: 'completion'; readonly prompt: string; readonly completion: string }
  | {
      readonly kind: 'chatCompletion'
      readonly prompt: readonly ChatMessage[]
      readonly completion: readonly ChatMessage[]
      readonly tools?: readonly unknown[]
    }
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'question'; readonly question: string; readonly answer: string; readonly solution?: string }

/** Where a column has another name in the data: {question: 'q', answer: 'solution'}. */
export type ColumnNames = Readonly<Record<string, string>>

const kinds = [['messages'], ['prompt', 'completion'], ['text'], ['question', 'answer']] as const
const optional = ['tools', 'solution']
const accepted = 'messages (with tools), prompt + completion, text, question + answer (with solution)'

/**
 * Finds what a row says: the first kind of `messages`, `prompt`+`completion`, `text`, `question`+`answer` whose columns
 * it has; with `columns`, only kinds of which a column is named there.
 * Throws DataError naming the row, its columns and what is accepted.
 */
export function readContent(row: Row, columns: ColumnNames = {}): Content {
  const { values, place } = row
  checkColumnNames(columns)
  const named = (name: string) => columns[name] ?? name
  const get = (name: string): unknown => (Object.hasOwn(values, named(name)) ? values[named(name)] : undefined)
  const mapped = kinds.filter((kind) => kind.some((name) => columns[name] !== undefined))
  const possible = mapped.length > 0 ? mapped : kinds
  const kind = possible.find((names) => names.every((name) => get(name) != null))
  if (!kind) {
    const there = possible.find((names) => names.every((name) => get(name) !== undefined))
    if (there) throw new DataError(`${place}: column '${named(there.find((name) => get(name) === null)!)}' is null`)
    const wanted = mapped.length > 0 ? mapped.map((names) => names.map(named).join(' + ')).join(', or ') : accepted
    throw new DataError(
      `${place}: its columns are ${Object.keys(values).join(', ') || 'none'}; wanted: ${wanted}. Columns of other names are mapped with columns, as {question: 'q', answer: 'solution'}`,
    )
  }
  const text = (name: string): string => {
    const value = get(name)
    if (typeof value === 'string') return value
    if (kind[0] === 'question' && (Number.isFinite(value) || typeof value === 'bigint')) return String(value)
    throw new DataError(`${place}: column '${named(name)}' is ${shown(value)}, not a string`)
  }
  switch (kind[0]) {
    case 'messages':
      return { kind: 'messages', messages: readMessages(get('messages'), place, named('messages')), ...readTools() }
    case 'text':
      return { kind: 'text', text: text('text') }
    case 'question': {
      const worked = get('solution') != null && named('solution') !== named('answer')
      return {
        kind: 'question',
        question: text('question'),
        answer: text('answer'),
        ...(worked && { solution: text('solution') }),
      }
    }
    case 'prompt': {
      if (typeof get('prompt') === 'string' && typeof get('completion') === 'string')
        return { kind: 'completion', prompt: text('prompt'), completion: text('completion') }
      const prompt = readMessages(get('prompt'), place, named('prompt'))
      const completion = readMessages(get('completion'), place, named('completion'))
      return { kind: 'chatCompletion', prompt, completion, ...readTools() }
    }
  }

  function readTools(): { tools?: readonly unknown[] } {
    let tools = get('tools')
    if (tools == null) return {}
    if (typeof tools === 'string') tools = fromText(tools, place, named('tools'))
    if (!Array.isArray(tools)) throw new DataError(`${place}: column '${named('tools')}' is not a list of JSON schemas`)
    return { tools }
  }
}

function checkColumnNames(columns: ColumnNames): void {
  const known: string[] = [...kinds.flat(), ...optional]
  const wrong = Object.keys(columns).find((name) => !known.includes(name))
  if (wrong !== undefined) throw new DataError(`columns: '${wrong}' is none of ${known.join(', ')}`)
}

export function readMessages(value: unknown, place: string, column: string): readonly ChatMessage[] {
  const what = `${place}: column '${column}'`
  if (typeof value === 'string') {
    if (column !== 'messages' && !/^\s*\[/.test(value))
      throw new DataError(
        `${what} is text, its partner is not: prompt and completion are both plain or both conversational`,
      )
    value = fromText(value, place, column)
  }
  return readConversation(value, what)
}

/** Data sets often keep lists as JSON in a string. */
function fromText(text: string, place: string, column: string): unknown {
  try {
    return parseJson(text)
  } catch (cause) {
    throw new DataError(`${place}: column '${column}' is text, and not valid JSON: ${(cause as Error).message}`, {
      cause,
    })
  }
}
