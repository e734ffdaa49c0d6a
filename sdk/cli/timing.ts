import { type Completion, joined, type Piece } from '../generate/answer.ts'
import type { LanguageModel } from '../generate/language-model.ts'

export interface Timed extends Completion {
  /** Of the prompt's tokens that were not in the cache; includes compiling at the first call. null: too short to tell. */
  readonly prefillTokensPerSecond: number | null
  readonly decodeTokensPerSecond: number | null
}

/** Runs an answer to its end and times it. `onText` gets the text as it comes. */
export async function timed(
  lm: LanguageModel,
  pieces: AsyncIterable<Piece>,
  onText: (text: string) => void = () => {},
): Promise<Timed> {
  const all: Piece[] = []
  const [start, prefilledBefore] = [performance.now(), lm.prefilledTokens]
  let firstAt = start
  for await (const piece of pieces) {
    if (all.length === 0) firstAt = performance.now()
    all.push(piece)
    onText(piece.text)
  }
  const end = performance.now()
  const answer = joined(all)
  const { tokenIds } = answer
  // The first token comes of the prefill; a piece holds more than one where it took several to make a whole character.
  const early = all[0].tokenIds.length
  const secondsPerToken = tokenIds.length > early ? (end - firstAt) / 1000 / (tokenIds.length - early) : null
  const prefillSeconds = (firstAt - start) / 1000 - (early - 1) * (secondsPerToken ?? 0)
  const timedPrefill = prefillSeconds > 0 && (early === 1 || secondsPerToken !== null)
  return {
    ...answer,
    prefillTokensPerSecond: timedPrefill ? (lm.prefilledTokens - prefilledBefore) / prefillSeconds : null,
    decodeTokensPerSecond: secondsPerToken === null ? null : 1 / secondsPerToken,
  }
}
