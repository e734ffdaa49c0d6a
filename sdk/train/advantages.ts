import type { GRPOSettings } from './config.ts'

/** The reward of each completion relative to its group of `size`, as TRL: (r - mean) / (deviation + epsilon). */
export function groupAdvantages(
  rewards: readonly number[],
  size: number,
  scale: GRPOSettings['scaleRewards'],
  epsilon = 1e-4,
): number[] {
  const batch = deviation(rewards)
  return rewards.map((reward, i) => {
    const group = rewards.slice(i - (i % size), i - (i % size) + size)
    const centred = reward - mean(group)
    return scale === 'none' ? centred : centred / ((scale === 'group' ? deviation(group) : batch) + epsilon)
  })
}

export const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length

/** Of a sample (n - 1). */
export function deviation(values: readonly number[]): number {
  if (values.length < 2) return 0
  const centre = mean(values)
  return Math.sqrt(values.reduce((sum, v) => sum + (v - centre) ** 2, 0) / (values.length - 1))
}

/**
 * What a token of each completion weighs, as TRL: the mean over each completion and then over them (`grpo`), over the tokens of
 * the micro-batch (`bnpo`) or of the whole step (`dapo`), or over the most tokens that there could be (`dr_grpo`).
 *
 * @param parts lengths (tokens that count) of the completions, one list a micro-batch
 */
export function tokenWeights(
  parts: readonly (readonly number[])[],
  lossType: GRPOSettings['lossType'],
  maxCompletionLength: number,
): number[][] {
  const sum = (lengths: readonly number[]) =>
    Math.max(
      1,
      lengths.reduce((a, b) => a + b, 0),
    )
  const all = sum(parts.flat())
  return parts.map((lengths) =>
    lengths.map((length) => {
      if (lossType === 'dapo') return 1 / all
      if (lossType === 'bnpo') return 1 / sum(lengths) / parts.length
      return 1 / (lossType === 'grpo' ? Math.max(1, length) : maxCompletionLength) / lengths.length / parts.length
    }),
  )
}

/** p_trainer / p_sampler of each token or of the completion: above `cap` it is cut to it, or the token (completion) is left out. */
export function importanceWeights(
  trainer: readonly number[],
  sampler: readonly number[],
  mode: GRPOSettings['importanceSamplingCorrection'],
  cap: number,
): number[] {
  const differences = trainer.map((logProb, t) => logProb - sampler[t])
  const whole = differences.reduce((a, b) => a + b, 0)
  return differences.map((own) => {
    const ratio = Math.exp(mode.startsWith('sequence') ? whole : own)
    return ratio <= cap ? ratio : mode.endsWith('truncate') ? cap : 0
  })
}
