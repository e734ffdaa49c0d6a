import { accuracyReward, formatReward, type RewardFunction } from '../../sdk/index.ts'

/** What tries are rewarded for, in points; 0 is off. */
export interface Points {
  /** Its answer is the row's. */
  readonly right: number
  /** A thought, then an answer. */
  readonly work: number
  /** All points for an empty try, none for one of `most` tokens. */
  readonly short: number
  readonly phrase: number
  /** What the try is to say. */
  readonly words: string
}

export const pointNames = ['right', 'work', 'short', 'phrase'] as const

const names = { right: 'the right answer', work: 'shows its work', short: 'short', phrase: 'says the phrase' }

/** Logs and errors call a reward by its name, and bundlers shorten those in the code. */
const named = (name: string, reward: RewardFunction): RewardFunction =>
  Object.defineProperty((completions: Parameters<RewardFunction>[0]) => reward(completions), 'name', { value: name })

/** Rewards and what each counts. Throws an Error where there are none. */
export function rewardsFor(points: Points, most: number): { rewardFuncs: RewardFunction[]; rewardWeights: number[] } {
  const functions: Record<(typeof pointNames)[number], RewardFunction> = {
    right: async (completions) => {
      const lacks = completions.find(({ row }) => row.answer === undefined && row.solution === undefined)
      if (lacks) throw new Error('a row has no answer to compare with: give every row an "answer"')
      return accuracyReward(completions)
    },
    work: formatReward,
    short: (completions) => {
      return completions.map(({ completionIds }) => 1 - Math.min(1, completionIds.length / most))
    },
    phrase: (completions) => {
      const words = points.words.toLowerCase()
      return completions.map(({ completion }) => (completion.toLowerCase().includes(words) ? 1 : 0))
    },
  }
  const given = pointNames.filter((name) => points[name] !== 0)
  if (given.length === 0) throw new Error('Give points for something')
  if (given.includes('phrase') && points.words.trim() === '') throw new Error('Points for which phrase?')
  return {
    rewardFuncs: given.map((name) => named(names[name], functions[name])),
    rewardWeights: given.map((name) => points[name]),
  }
}
