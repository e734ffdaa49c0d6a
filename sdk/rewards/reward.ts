import type { ChatMessage } from '../text/chat-template.ts'

/** A completion as rewards see it. */
export interface RewardInput {
  /** Text, or the messages before the answer. */
  readonly prompt: string | readonly ChatMessage[]
  /** Which prompt of the batch: completions of one prompt have the same number. */
  readonly group: number
  /** Without special tokens. */
  readonly completion: string
  readonly completionIds: readonly number[]
  /** Cut off before the end token. */
  readonly truncated: boolean
  /** The columns of the prompt's row; an integer beyond 2^53 is a bigint. */
  readonly row: Readonly<Record<string, unknown>>
}

/** One number for each completion; null where this reward does not apply. Its name is its name in the log. */
export type RewardFunction = (
  completions: readonly RewardInput[],
) => readonly (number | null)[] | Promise<readonly (number | null)[]>
