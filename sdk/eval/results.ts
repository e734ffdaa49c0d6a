import { normalizeAnswer } from '../answers/extract.ts'
import type { AnsweredItem, EvalSettings } from './run-folder.ts'
import { type Estimate, estimate, passAtK } from './statistics.ts'

/** What an evaluation found. Shares are 0 to 1; errors are over questions. */
export interface EvalResults {
  readonly settings: EvalSettings
  /** Questions. */
  readonly n: number
  /** Right answers; with several samples of all of them. */
  readonly correct: number
  /** pass@1: with several samples the mean over them. */
  readonly accuracy: number
  readonly standardError: number
  /** With several samples: whether the answer that most of them give is right (maj@n). */
  readonly majority?: Estimate
  /** With several samples: whether one of k is right, for k = 1, 2, 4, ... n. */
  readonly passAt?: Readonly<Record<string, Estimate>>
  /** Share of the answers that were cut off. */
  readonly truncated: number
  /** Share of the answers in which no final answer was found. */
  readonly notExtractable: number
  /** Tokens of an answer. */
  readonly meanTokens: number
}

export function resultsOf(settings: EvalSettings, items: readonly AnsweredItem[]): EvalResults {
  const { rows, numSamples } = settings
  const groups = groupsOf(items, rows)
  const right = groups.map((group) => group.filter((item) => item.correct).length)
  const { mean, standardError } = estimate(right.map((count) => count / numSamples))
  const share = (of: (item: AnsweredItem) => boolean) => items.filter(of).length / items.length
  const passAt = (k: number) => estimate(right.map((count) => passAtK(numSamples, count, k)))
  return {
    settings,
    n: rows,
    correct: right.reduce((sum, count) => sum + count, 0),
    accuracy: mean,
    standardError,
    ...(numSamples > 1 && {
      majority: estimate(groups.map((group) => (majorityIsRight(group) ? 1 : 0))),
      passAt: Object.fromEntries(powersOfTwo(numSamples).map((k) => [k, passAt(k)])),
    }),
    truncated: share((item) => item.finishReason === 'length'),
    notExtractable: share((item) => item.answer === null),
    meanTokens: items.reduce((sum, item) => sum + item.tokens, 0) / items.length,
  }
}

/** The answers to each question, in order. */
export function groupsOf(items: readonly AnsweredItem[], rows: number): AnsweredItem[][] {
  const groups: AnsweredItem[][] = Array.from({ length: rows }, () => [])
  for (const item of [...items].sort((a, b) => a.sample - b.sample)) groups[item.index].push(item)
  return groups
}

/** Of answers that are given equally often the one that came first counts. */
function majorityIsRight(group: readonly AnsweredItem[]): boolean {
  const votes = new Map<string, { count: number; correct: boolean }>()
  for (const { answer, correct } of group) {
    if (answer === null) continue
    const key = normalizeAnswer(answer)
    const vote = votes.get(key)
    if (vote) vote.count++
    else votes.set(key, { count: 1, correct })
  }
  let best = { count: 0, correct: false }
  for (const vote of votes.values()) if (vote.count > best.count) best = vote
  return best.correct
}

function powersOfTwo(n: number): number[] {
  const powers: number[] = []
  for (let k = 1; k < n; k *= 2) powers.push(k)
  return [...powers, n]
}
