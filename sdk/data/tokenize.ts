import { DataError, OptionError } from '../errors.ts'
import { type ChatMessage, type ChatTemplate, renderChat, requireChatTemplate } from '../text/chat-template.ts'
import type { Tokenizer } from '../text/tokenizer.ts'
import { type ColumnNames, type Content, readContent } from './columns.ts'
import { notScored, scoredTokens, truncated } from './pack.ts'
import { type Row, type RowSource, readRows } from './rows.ts'
import { isTrained, lostText, withoutOpening, withoutSpaces } from './turns.ts'

/** A row as a model sees it. */
export interface Example {
  readonly inputIds: number[]
  /** As long as inputIds: the token itself where it is scored, -100 where it is not. */
  readonly labels: number[]
  /** Index of its row in the data, from 0. */
  readonly row: number
}

export interface TokenizeOptions {
  readonly columns?: ColumnNames
  /** Tokens; null: no limit. Default 1024. */
  readonly maxLength?: number | null
  /** Longer rows lose their end (default, as in TRL), are an error, or are left out. */
  readonly truncationMode?: 'keep_start' | 'error' | 'skip'
  /** Of prompt + completion, score the completion alone. Default true. */
  readonly completionOnlyLoss?: boolean
  /** Of messages, score what the assistant says alone, end-of-turn tokens included. Default true. */
  readonly assistantOnlyLoss?: boolean
  /** Told once for each kind of warning. Default console.warn. */
  readonly warn?: (message: string) => void
}

/** The examples of a source, in order. Throws as `rowTokenizer` does. */
export async function* tokenizeRows(
  source: RowSource,
  tokenizer: Tokenizer,
  chatTemplate: ChatTemplate | null,
  options: TokenizeOptions = {},
): AsyncGenerator<Example, void> {
  const tokenize = rowTokenizer(tokenizer, chatTemplate, options)
  for await (const row of readRows(source)) {
    const example = tokenize(row)
    if (example) yield example
  }
}

/**
 * Makes the function from a row to its tokens and labels, as TRL's SFTTrainer does it; null is a row that
 * truncationMode 'skip' leaves out. The function throws DataError naming the row when its columns are none of the kinds,
 * when nothing in it (or in what truncation leaves of it) is scored, or when it is too long and that is an error;
 * OptionError for a conversation where there is no chat template.
 */
export function rowTokenizer(
  tokenizer: Tokenizer,
  chatTemplate: ChatTemplate | null,
  options: TokenizeOptions = {},
): (row: Row) => Example | null {
  const { columns, maxLength = 1024, truncationMode = 'keep_start' } = options
  const { completionOnlyLoss = true, assistantOnlyLoss = true } = options
  if (maxLength !== null && !(Number.isInteger(maxLength) && maxLength > 1))
    throw new OptionError(`maxLength: ${maxLength} is not an integer from 2`)
  const warn = once(options.warn ?? console.warn)
  /** Once seen of the template. */
  let opensWhenAsked = false
  const endTokens = [...tokenizer.specialIds].flatMap((id) => tokenizer.idToToken(id) || [])

  return (row) => {
    const content = readContent(row, columns)
    const { inputIds, labels } = tokenizeContent(content, row.place)
    const example = { inputIds, labels, row: row.index }
    if (scoredTokens(example) === 0) throw new DataError(`${row.place}: nothing in it is scored: ${emptiness(content)}`)
    return maxLength === null || inputIds.length <= maxLength ? example : tooLong(example, row.place, maxLength)
  }

  function tokenizeContent(content: Content, place: string): Tokens {
    switch (content.kind) {
      case 'text':
        return scoreFrom(tokenizer.encode(withEos(content.text), { addSpecialTokens: true }), 0)
      case 'completion':
        return plainCompletion(content.prompt, content.completion, place)
      case 'chatCompletion':
        return chatCompletion(content.prompt, content.completion, content.tools, place)
      case 'messages':
        return conversation(content.messages, content.tools, place)
      case 'question': {
        const { question } = content
        if (!chatTemplate) return plainCompletion(questionPrompt(question), ` ${plainAnswer(content)}`, place)
        const prompt = [{ role: 'user', content: question }]
        return chatCompletion(prompt, [{ role: 'assistant', content: chatAnswer(content) }], undefined, place)
      }
    }
  }

  function withEos(text: string): string {
    const { eosToken } = tokenizer
    return eosToken === undefined || text.endsWith(eosToken) ? text : text + eosToken
  }

  function plainCompletion(prompt: string, completion: string, place: string): Tokens {
    const promptIds = tokenizer.encode(prompt, { addSpecialTokens: true })
    const ids = tokenizer.encode(prompt + withEos(completion), { addSpecialTokens: true })
    return scoreFrom(ids, completionOnlyLoss ? boundary(promptIds, ids, place) : 0)
  }

  function chatCompletion(
    prompt: readonly ChatMessage[],
    completion: readonly ChatMessage[],
    tools: readonly unknown[] | undefined,
    place: string,
  ): Tokens {
    if (!completion.every((message) => isTrained(message, place)))
      throw new DataError(`${place}: a message of its completion has the weight 0: it belongs into the prompt`)
    const messages = [...prompt, ...completion]
    const text = rendered(messages, tools, place)
    const ids = tokenizer.encode(text)
    if (!completionOnlyLoss) return scoreFrom(ids, 0)
    const shown = withoutSpaces(text)
    for (const message of completion) checkSaid(message, shown, place)
    return scoreFrom(ids, boundary(opening(messages, prompt.length, tools, text, place), ids, place))
  }

  /**
   * What comes after the last assistant turn can teach nothing and is left out, so that this turn is rendered as it is
   * when the model says it.
   */
  function conversation(
    messages: readonly ChatMessage[],
    tools: readonly unknown[] | undefined,
    place: string,
  ): Tokens {
    const turns = messages.flatMap((message, i) =>
      message.role === 'assistant' && isTrained(message, place) ? [i] : [],
    )
    if (!assistantOnlyLoss) {
      if (!messages.every((message) => isTrained(message, place)))
        throw new DataError(`${place}: a message has the weight 0, which needs assistantOnlyLoss`)
      return scoreFrom(tokenizer.encode(rendered(messages, tools, place)), 0)
    }
    const last = turns.pop()
    if (last === undefined) return { inputIds: [], labels: [] }
    const text = rendered(messages.slice(0, last + 1), tools, place)
    const inputIds = tokenizer.encode(text)
    const labels = new Array<number>(inputIds.length).fill(notScored)
    const shown = withoutSpaces(text)
    const score = (turn: number, end: number) => {
      checkSaid(messages[turn], shown, place)
      const start = boundary(opening(messages, turn, tools, text, place), inputIds, place)
      for (let t = start; t < end; t++) labels[t] = inputIds[t]
    }
    const closings = turns.map((turn) => rendered(messages.slice(0, turn + 1), tools, place))
    if (closings.every((closing) => text.startsWith(closing)))
      for (const [k, closing] of closings.entries()) score(turns[k], commonPrefix(tokenizer.encode(closing), inputIds))
    else
      warn(
        'template',
        `${place}: the chat template writes earlier assistant turns differently once more follows (Qwen3 drops their <think>): of such conversations only the last assistant turn is trained`,
      )
    score(last, inputIds.length)
    return { inputIds, labels }
  }

  function render(
    messages: readonly ChatMessage[],
    tools: readonly unknown[] | undefined,
    addGenerationPrompt: boolean,
    place: string,
  ): string {
    try {
      return renderChat(requireChatTemplate(chatTemplate), messages, { tools, addGenerationPrompt })
    } catch (error) {
      if (error instanceof DataError) throw new DataError(`${place}: ${error.message}`, { cause: error })
      throw error
    }
  }

  /** A conversation without the opening of a turn that is not in it. */
  function rendered(messages: readonly ChatMessage[], tools: readonly unknown[] | undefined, place: string): string {
    const text = render(messages, tools, false, place)
    const [before, last] = [messages.slice(0, -1), messages.at(-1)!]
    if (opensWhenAsked || last.role !== 'assistant' || before.length === 0) return text
    const unasked = render(before, tools, false, place)
    opensWhenAsked = render(before, tools, true, place) !== unasked
    return opensWhenAsked ? text : withoutOpening(text, unasked, last, endTokens)
  }

  /** The tokens before message `turn`, with its opening. */
  function opening(
    messages: readonly ChatMessage[],
    turn: number,
    tools: readonly unknown[] | undefined,
    text: string,
    place: string,
  ): number[] {
    const before = render(messages.slice(0, turn), tools, true, place)
    const said = messages[turn].content
    const rest = text.startsWith(before) ? text.slice(before.length).trimStart() : undefined
    if (typeof said === 'string' && rest !== undefined && !rest.startsWith(said.trim()))
      if (!opensWhenAsked && render(messages.slice(0, turn), tools, false, place) === before)
        warn(
          'opening',
          `${place}: the chat template does not open the assistant's turn when asked to (add_generation_prompt): its header is scored, as the model has to say it: ${JSON.stringify(rest.slice(0, 40))}`,
        )
    return tokenizer.encode(before)
  }

  function checkSaid(message: ChatMessage, shown: string, place: string): void {
    const lost = lostText(message, shown)
    if (lost !== undefined)
      warn(
        'lost',
        `${place}: the chat template throws away what the assistant says, and it is not trained: ${JSON.stringify(lost.slice(0, 60))}. Give a template that keeps it (chatTemplate), or leave it out of the rows`,
      )
  }

  /** Where the completion begins: after the tokens that the prompt alone and the whole have in common. */
  function boundary(promptIds: readonly number[], ids: readonly number[], place: string): number {
    const length = commonPrefix(promptIds, ids)
    if (length < promptIds.length)
      warn(
        'boundary',
        `${place}: the prompt's tokens are no prefix of the whole row's (tokens merge across the boundary, or the template writes the prompt differently): scored from where they part, ${JSON.stringify(tokenizer.decode(promptIds.slice(length)))} of the prompt is not seen as it is when generating. End the prompt on a token boundary`,
      )
    return length
  }

  function tooLong(example: Example, place: string, limit: number): Example | null {
    const length = example.inputIds.length
    if (truncationMode === 'error')
      throw new DataError(
        `${place}: ${length} tokens, maxLength is ${limit}: raise maxLength, or use truncationMode 'keep_start' or 'skip'`,
      )
    if (truncationMode === 'skip') {
      warn('skip', `${place}: ${length} tokens, maxLength is ${limit}: such rows are left out`)
      return null
    }
    const kept = truncated(example, limit)
    if (scoredTokens(kept) === 0)
      throw new DataError(
        `${place}: nothing is scored in its first ${limit} of ${length} tokens: raise maxLength, or use truncationMode 'skip'`,
      )
    warn('truncate', `${place}: ${length} tokens, maxLength is ${limit}: the end of such rows is cut off`)
    return kept
  }
}

/** A question as a model without a chat template knows it. */
export const questionPrompt = (question: string): string => `Question: ${question}\nAnswer:`

type Answer = { readonly answer: string; readonly solution?: string }

/** With a worked solution: the form that the format reward and the graders read. */
const chatAnswer = ({ answer, solution }: Answer): string =>
  solution === undefined ? answer : `<think>\n${solution}\n</think>\n<answer>${answer}</answer>`

const plainAnswer = ({ answer, solution }: Answer): string =>
  solution === undefined ? answer : `${solution} The answer is ${answer}.`

type Tokens = Pick<Example, 'inputIds' | 'labels'>

const scoreFrom = (inputIds: number[], start: number): Tokens => ({
  inputIds,
  labels: inputIds.map((id, t) => (t < start ? notScored : id)),
})

function commonPrefix(a: readonly number[], b: readonly number[]): number {
  let length = 0
  while (length < a.length && length < b.length && a[length] === b[length]) length++
  return length
}

function emptiness(content: Content): string {
  if (content.kind === 'messages') return 'it has no assistant message that is trained, or an empty one'
  return content.kind === 'text' ? 'its text is empty' : 'its completion is empty'
}

function once(warn: (message: string) => void): (kind: string, message: string) => void {
  const told = new Set<string>()
  return (kind, message) => {
    if (told.has(kind)) return
    told.add(kind)
    warn(`${message} (said once)`)
  }
}
