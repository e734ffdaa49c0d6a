import { DataError } from '../errors.ts'
import type { ChatMessage } from '../text/chat-template.ts'

// What an assistant says in a conversation, and what a chat template makes of it.

/** ms-swift and axolotl say with a boolean what OpenAI and Mistral say with a weight. */
const flags = ['loss', 'train', 'training']

/** Whether a message is trained, or is context alone. Throws DataError for a weight that is neither 0 nor 1. */
export function isTrained(message: ChatMessage, place: string): boolean {
  const weight = message.weight ?? 1
  if (weight !== 0 && weight !== 1)
    throw new DataError(
      `${place}: a message has the weight ${JSON.stringify(weight)}: 1 (it is trained) or 0 (it is context)`,
    )
  return weight === 1 && flags.every((flag) => message[flag] !== false)
}

/** The texts of a message: what it says, thinks and calls. */
function textsOf({ content, tool_calls: calls, ...message }: ChatMessage): string[] {
  const parts = Array.isArray(content) ? content.map((part) => part?.text) : [content]
  const thoughts = ['reasoning_content', 'reasoning', 'thinking'].map((key) => message[key])
  const names = Array.isArray(calls) ? calls.map((call) => call?.function?.name) : []
  return [...parts, ...thoughts, ...names].filter((text): text is string => typeof text === 'string')
}

export const withoutSpaces = (text: string): string => text.replace(/\s+/g, '')

/** What a message says that its conversation has not, which is rendered and `withoutSpaces`. */
export function lostText(message: ChatMessage, rendered: string): string | undefined {
  return textsOf(message).find((text) => !rendered.includes(withoutSpaces(text)))
}

/**
 * A conversation that ends with this turn, without the opening of the next one, which some templates write though nobody asked.
 *
 * @param before the same without the turn, as the template writes it whether asked for an opening or not
 * @param endTokens texts of special tokens
 */
export function withoutOpening(text: string, before: string, turn: ChatMessage, endTokens: readonly string[]): string {
  if (typeof turn.content !== 'string' || turn.content.trim() === '') return text
  const said = turn.content.trim()
  const from = text.lastIndexOf(said) + said.length
  const ends = endTokens.map((token) => [text.indexOf(token, from), token.length] as const).filter(([at]) => at >= 0)
  if (from < said.length || ends.length === 0) return text
  const [at, length] = ends.reduce((first, end) => (end[0] < first[0] ? end : first))
  const end = at + length + /^\s*/.exec(text.slice(at + length))![0].length
  return before.endsWith(text.slice(end)) ? text.slice(0, end) : text
}
