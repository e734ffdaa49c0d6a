import { z } from '../zod.ts'
import type { RolloutMetrics } from './metrics.ts'

/** Consecutive steps with each symptom. */
export const streaks = z.record(z.enum(['noSpread', 'littleSpread', 'noEntropy', 'cutOff']), z.int().min(0))
export type Streaks = Readonly<z.infer<typeof streaks>>

/** Steps after which a symptom is told. */
const toldAfter = 3

interface Symptom {
  readonly shows: (m: RolloutMetrics) => boolean
  readonly told: (m: RolloutMetrics) => string
  readonly remedy: string
  /** Told, but no reason to stop. */
  readonly mild?: boolean
}

const moreSpread =
  'easier or harder prompts, more numGenerations, a higher temperature, a reward with partial credit, or a supervised warm-up (halfling sft) first'

const averageOf = ({ reward }: RolloutMetrics): string =>
  reward === undefined ? 'none' : `${reward.toPrecision(3)} on average`

const symptoms: Readonly<Record<keyof Streaks, Symptom>> = {
  noSpread: {
    shows: (m) => m.fracRewardZeroStd === 1,
    told: (m) =>
      `no group has any spread of rewards (all completions of a prompt got the same, ${averageOf(m)}): nothing is learned`,
    remedy: moreSpread,
  },
  littleSpread: {
    shows: (m) => m.fracRewardZeroStd >= 0.85,
    told: (m) =>
      `hardly a group has any spread of rewards (in ${(100 * m.fracRewardZeroStd).toFixed(0)}% all completions of a prompt got the same, ${averageOf(m)}): little is learned`,
    remedy: moreSpread,
    mild: true,
  },
  noEntropy: {
    shows: ({ entropy }) => entropy !== undefined && entropy < 0.01,
    told: (m) => `the entropy is ${m.entropy!.toPrecision(2)} nats a token: the model always says the same`,
    remedy: 'a lower learningRate, beta above 0, a higher epsilonHigh, or go back to an earlier checkpoint',
  },
  cutOff: {
    shows: (m) => m.truncated > 0.95,
    told: (m) => `${(100 * m.truncated).toFixed(0)}% of the completions are cut off at ${m.maxLength} tokens`,
    remedy: 'a larger maxCompletionLength, maskTruncatedCompletions, a length reward, or an earlier checkpoint',
  },
}

export const noStreaks: Streaks = { noSpread: 0, littleSpread: 0, noEntropy: 0, cutOff: 0 }

/** Whether something is wrong that ends a run in time. */
export const isAiling = (streaks: Streaks): boolean =>
  Object.entries(symptoms).some(([name, { mild }]) => !mild && streaks[name as keyof Streaks] > 0)

/**
 * Watches a run for the ways in which reinforcement learning goes nowhere: a warning at the third step with a symptom; `stop`, what
 * it is, from the step on with which patience ends.
 */
export function watchCollapse(
  before: Streaks,
  metrics: RolloutMetrics,
  patience: number,
): { streaks: Streaks; warning?: string; stop?: string } {
  const streaks = { ...before }
  let [warning, stop]: (string | undefined)[] = []
  for (const [name, { shows, told, remedy, mild }] of Object.entries(symptoms)) {
    const key = name as keyof Streaks
    streaks[key] = shows(metrics) ? streaks[key] + 1 : 0
    if (streaks[key] === toldAfter) warning ??= `${told(metrics)}, for ${toldAfter} steps. Try ${remedy}`
    if (!mild && streaks[key] >= patience) stop = told(metrics)
  }
  return { streaks, warning, stop }
}
