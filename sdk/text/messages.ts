import { DataError } from '../errors.ts'
import { isObject, shown } from '../options.ts'
import type { ChatMessage } from './chat-template.ts'

/** With one of these a message may go without content. */
const otherContent = ['tool_calls', 'function_call', 'reasoning_content', 'thinking']

/**
 * The messages of a conversation as templates take them: content that is a list of text parts becomes their text.
 *
 * @param what named in errors
 * @throws DataError for an empty list, and naming the message that has no role or no content, or a part that is no text
 */
export function readConversation(value: unknown, what: string): ChatMessage[] {
  if (!Array.isArray(value)) throw new DataError(`${what}: wanted a list of {role, content}, got ${shown(value)}`)
  if (value.length === 0) throw new DataError(`${what}: the list is empty`)
  return value.map((message, i) => readMessage(message, `${what}: message ${i}`))
}

function readMessage(message: unknown, what: string): ChatMessage {
  if (!isObject(message)) throw new DataError(`${what} is ${shown(message)}, not {role, content}`)
  const { role, content } = message
  if (typeof role !== 'string') throw new DataError(`${what}: its role is ${shown(role)}, not a string`)
  if (typeof content === 'string') return message as ChatMessage
  if (Array.isArray(content))
    return { ...message, role, content: content.map((part, k) => partText(part, k, what)).join('') }
  if (content !== undefined && content !== null)
    throw new DataError(`${what}: its content is ${shown(content)}, not a string`)
  if (otherContent.some((key) => message[key] != null)) return message as ChatMessage
  throw new DataError(`${what}: it has no content (${content})`)
}

function partText(part: unknown, index: number, what: string): string {
  if (isObject(part) && part.type === 'text' && typeof part.text === 'string') return part.text
  const kind = isObject(part) ? `of type ${shown(part.type)}` : shown(part)
  throw new DataError(`${what}: part ${index} of its content is ${kind}, not {type: "text", text}: only text is read`)
}
