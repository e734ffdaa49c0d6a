import type { ChatOptions, LanguageModel } from '../../generate/language-model.ts'
import type { ChatMessage } from '../../text/chat-template.ts'

/** A chat as it stands: what was said, how it goes on. */
export interface Conversation {
  readonly lm: LanguageModel
  /** Of the model, as it was asked for. */
  readonly name: string
  messages: ChatMessage[]
  system: string | undefined
  options: ChatOptions
  /** Speed after each answer. */
  stats: boolean
  /** An answer that did not come to its end; it can go on while it is the last message. */
  cut: { readonly message: ChatMessage; readonly tokenIds: readonly number[] } | null
  /** Set by /exit. */
  over: boolean
}

/** All messages, the system's first. */
export const allMessages = ({ system, messages }: Conversation): ChatMessage[] =>
  system === undefined ? messages : [{ role: 'system', content: system }, ...messages]

/** Takes back the last answer and its question; returns the question. */
export function undo(c: Conversation): string | undefined {
  const at = c.messages.findLastIndex((message) => message.role === 'user')
  if (at < 0) return undefined
  const [question] = c.messages.splice(at)
  return String(question.content)
}
