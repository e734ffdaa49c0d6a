import { RewardError } from '../errors.ts'
import type { RewardFunction, RewardInput } from '../rewards/reward.ts'
import { deviation, mean } from './advantages.ts'

/** A completion with its reward, as `onRollouts` is told. */
export interface ScoredRollout extends RewardInput {
  readonly reward: number
  readonly advantage: number
}

/** A completion with its rewards, before it is compared with its group. */
export interface Drawn extends RewardInput {
  readonly promptIds: readonly number[]
  readonly logProbs: readonly number[]
  readonly rewards: readonly (number | null)[]
  readonly reward: number
}

export const nameOf = (reward: RewardFunction): string => reward.name || 'reward'

/** Whether any reward applies to it. */
export const isRewarded = ({ rewards }: Drawn): boolean => rewards.some((reward) => reward !== null)

export const hasSpread = (group: readonly Drawn[]): boolean => deviation(group.map(({ reward }) => reward)) > 1e-8

/** Calls a reward function and checks what it gives. Throws RewardError. */
export async function rewardsOf(
  reward: RewardFunction,
  inputs: readonly RewardInput[],
): Promise<readonly (number | null)[]> {
  const shown = (i: number) => {
    const { prompt, completion } = inputs[i]
    const asked = typeof prompt === 'string' ? prompt : String(prompt.at(-1)?.content)
    return `prompt ${JSON.stringify(asked.slice(-300))}, completion ${JSON.stringify(completion.slice(0, 600))}`
  }
  let values: readonly (number | null)[]
  try {
    values = await reward(inputs)
  } catch (cause) {
    throw new RewardError(
      `${nameOf(reward)} threw: ${(cause as Error)?.message ?? cause}; the first of its completions: ${shown(0)}`,
      {
        cause,
      },
    )
  }
  if (!Array.isArray(values) || values.length !== inputs.length)
    throw new RewardError(
      `${nameOf(reward)} gave ${Array.isArray(values) ? `${values.length} rewards` : typeof values} for ${inputs.length} completions: one number (or null) each is wanted`,
    )
  const wrong = values.findIndex((value) => value !== null && !Number.isFinite(value))
  if (wrong >= 0) throw new RewardError(`${nameOf(reward)} gave ${values[wrong]} for: ${shown(wrong)}`)
  return values
}

export function rolloutMetrics(
  groups: readonly (readonly Drawn[])[],
  resampledGroups: number,
  rewardFuncs: readonly RewardFunction[],
): Record<string, number> {
  const all = groups.flat()
  const spreads = groups.map((group) => deviation(group.map(({ reward }) => reward)))
  const lengths = all.map(({ completionIds }) => completionIds.length)
  const rewarded = all.filter(isRewarded)
  const metrics: Record<string, number> = {
    ...(rewarded.length > 0 && { reward: mean(rewarded.map(({ reward }) => reward)), rewardStd: mean(spreads) }),
    fracRewardZeroStd: mean(spreads.map((spread) => (spread > 1e-8 ? 0 : 1))),
    meanLength: mean(lengths),
    maxLength: Math.max(...lengths),
    truncated: mean(all.map(({ truncated }) => (truncated ? 1 : 0))),
    resampledGroups,
  }
  if (rewardFuncs.length > 1)
    for (const [f, reward] of rewardFuncs.entries()) {
      const given = all.flatMap(({ rewards }) => rewards[f] ?? [])
      if (given.length > 0) metrics[`rewards/${nameOf(reward)}`] = mean(given)
    }
  return metrics
}
