import { DataError } from '../errors.ts'
import { type ChatMessage, type ChatTemplate, renderChat } from '../text/chat-template.ts'
import type { Tokenizer } from '../text/tokenizer.ts'
import { readMessages } from './columns.ts'
import { type RowSource, readRows } from './rows.ts'
import { questionPrompt } from './tokenize.ts'

/** What a row asks, ready for the answer. */
export interface Prompt {
  readonly ids: readonly number[]
  /** As the row has it: text, or the messages before the answer. */
  readonly prompt: string | readonly ChatMessage[]
  /** The row's columns, for rewards. */
  readonly values: Readonly<Record<string, unknown>>
}

/**
 * The prompts of rows with a `prompt` (text, which is taken as it stands, or messages), a `question`, or `messages`, of which
 * what the assistant says last is left out. With `system`, questions have a system message.
 *
 * @throws DataError naming the row
 */
export async function* readPrompts(
  source: RowSource,
  tokenizer: Tokenizer,
  chatTemplate: ChatTemplate | null,
  { columns = {}, system }: { readonly columns?: Readonly<Record<string, string>>; readonly system?: string } = {},
): AsyncGenerator<Prompt, void> {
  const chat = (messages: readonly ChatMessage[], place: string): readonly number[] => {
    if (!chatTemplate) throw new DataError(`${place}: messages need a chat template, which this model does not have`)
    return tokenizer.encode(renderChat(chatTemplate, messages, { addGenerationPrompt: true }))
  }
  for await (const { values, place } of readRows(source)) {
    const get = (name: string) => values[columns[name] ?? name]
    const [prompt, question, messages] = [get('prompt'), get('question'), get('messages')]
    if (typeof prompt === 'string') yield { ids: tokenizer.encode(prompt, { addSpecialTokens: true }), prompt, values }
    else if (typeof question === 'string') {
      const opening = system === undefined ? [] : [{ role: 'system', content: system }]
      const asked = [...opening, { role: 'user', content: question }]
      if (chatTemplate) yield { ids: chat(asked, place), prompt: asked, values }
      else {
        const text = questionPrompt(question)
        yield { ids: tokenizer.encode(text, { addSpecialTokens: true }), prompt: text, values }
      }
    } else if (prompt !== undefined || messages !== undefined) {
      const all = readMessages(prompt ?? messages, place, prompt === undefined ? 'messages' : 'prompt')
      const asked = all.at(-1)!.role === 'assistant' ? all.slice(0, -1) : all
      if (asked.length === 0) throw new DataError(`${place}: no message asks for its answer`)
      yield { ids: chat(asked, place), prompt: asked, values }
    } else
      throw new DataError(
        `${place}: its columns are ${Object.keys(values).join(', ') || 'none'}; wanted: prompt (text or messages), question, or messages. Columns of other names are mapped with columns, as {question: 'q'}`,
      )
  }
}
