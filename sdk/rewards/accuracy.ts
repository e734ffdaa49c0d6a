import { grade } from '../answers/grade.ts'
import type { RewardInput } from './reward.ts'

/**
 * 1 where the answer found in the completion equals the row's `answer` (or what `solution` ends with) as mathematics, else 0;
 * null for a row without either.
 */
export const accuracyReward = (completions: readonly RewardInput[]): Promise<(number | null)[]> =>
  Promise.all(
    completions.map(async ({ completion, row }) => {
      const gold = row.answer ?? row.solution
      if (!['string', 'number', 'bigint'].includes(typeof gold)) return null
      return (await grade(String(gold), completion)).equal ? 1 : 0
    }),
  )
