import { OptionError } from '../errors.ts'
import { accuracyReward } from './accuracy.ts'
import type { RewardFunction, RewardInput } from './reward.ts'

/**
 * By length among the answers to the same prompt (Kimi k1.5, arXiv 2501.12599): 0.5 for the shortest right one, -0.5 for the
 * longest; wrong ones never above 0. null where accuracyReward does not apply.
 */
export async function lengthReward(completions: readonly RewardInput[]): Promise<(number | null)[]> {
  const right = await accuracyReward(completions)
  const lengths = new Map<number, number[]>()
  for (const { group, completionIds } of completions)
    lengths.set(group, [...(lengths.get(group) ?? []), completionIds.length])
  return completions.map(({ group, completionIds }, i) => {
    if (right[i] === null) return null
    const [shortest, longest] = [Math.min(...lengths.get(group)!), Math.max(...lengths.get(group)!)]
    if (shortest === longest) return 0
    const share = 0.5 - (completionIds.length - shortest) / (longest - shortest)
    return right[i] === 1 ? share : Math.min(0, share)
  })
}

/** Values at length 0 and at maxLength. */
export interface CosineOptions {
  /** Tokens. */
  readonly maxLength: number
  /** Default [1, 0.5]: a short right answer is worth more. */
  readonly right?: readonly [number, number]
  /** Default [-1, -0.5]: a short wrong answer is worse. */
  readonly wrong?: readonly [number, number]
}

/** Right or wrong, bent by length along a cosine (arXiv 2502.03373). */
export function cosineReward({ maxLength, right = [1, 0.5], wrong = [-1, -0.5] }: CosineOptions): RewardFunction {
  if (!(maxLength > 0)) throw new OptionError(`maxLength: ${maxLength} is not a positive number`)
  return async function cosineReward(completions) {
    const isRight = await accuracyReward(completions)
    return completions.map(({ completionIds }, i) => {
      if (isRight[i] === null) return null
      const [short, long] = isRight[i] === 1 ? right : wrong
      const share = Math.min(1, completionIds.length / maxLength)
      return long + 0.5 * (short - long) * (1 + Math.cos(Math.PI * share))
    })
  }
}

/** 0 up to `maxLength - cache` tokens, then down to -1 at maxLength: DAPO's soft overlong punishment (arXiv 2503.14476). */
export function softOverlongPenalty({ maxLength, cache }: { maxLength: number; cache: number }): RewardFunction {
  if (!(cache > 0 && cache <= maxLength)) throw new OptionError(`cache: ${cache} is not within 0 and maxLength`)
  return function softOverlongPenalty(completions) {
    return completions.map(({ completionIds }) =>
      Math.max(-1, Math.min(0, (maxLength - cache - completionIds.length) / cache)),
    )
  }
}
