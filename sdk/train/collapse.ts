import type { RolloutMetrics } from './metrics.ts'

/** Consecutive steps with a symptom. */
export interface Streaks {
  noSpread: number
  littleSpread: number
  noEntropy: number
  cutOff: number
}

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

const symptoms: Readonly<Record<keyof Streaks, Symptom>> = {
  noSpread: {
    shows: (m) => m.fracRewardZeroStd === 1,
    told: (m) =>
      `no group has any spread of rewards (all completions of a prompt got the same, ${m.reward.toPrecision(3)} on average): nothing is learned`,
    remedy: moreSpread,
  },
  littleSpread: {
    shows: (m) => m.fracRewardZeroStd >= 0.85,
    told: (m) =>
      `hardly a group has any spread of rewards (in ${(100 * m.fracRewardZeroStd).toFixed(0)}% all completions of a prompt got the same, ${m.reward.toPrecision(3)} on average): little is learned`,
    remedy: moreSpread,
    mild: true,
  },
  noEntropy: {
    shows: (m) => m.fracRewardZeroStd < 1 && m.entropy < 0.01,
    told: (m) => `the entropy is ${m.entropy.toPrecision(2)} nats a token: the model always says the same`,
    remedy: 'a lower learningRate, beta above 0, a higher epsilonHigh, or go back to an earlier checkpoint',
  },
  cutOff: {
    shows: (m) => m.truncated > 0.95,
    told: (m) => `${(100 * m.truncated).toFixed(0)}% of the completions are cut off at ${m.maxLength} tokens`,
    remedy: 'a larger maxCompletionLength, maskTruncatedCompletions, a length reward, or an earlier checkpoint',
  },
}

/** Watches a run for the ways in which reinforcement learning goes nowhere. */
export class Collapse {
  streaks: Streaks = { noSpread: 0, littleSpread: 0, noEntropy: 0, cutOff: 0 }
  private readonly patience: number

  constructor(patience: number) {
    this.patience = patience
  }

  /** Steps for which something has been wrong that ends a run. */
  get longest(): number {
    const { littleSpread: _, ...grave } = this.streaks
    return Math.max(...Object.values(grave))
  }

  /** A warning at the third step with a symptom; `stop`, what it is, from the step on with which patience ends. */
  after(metrics: RolloutMetrics): { warning?: string; stop?: string } {
    const result: { warning?: string; stop?: string } = {}
    for (const [name, { shows, told, remedy, mild }] of Object.entries(symptoms)) {
      const key = name as keyof Streaks
      this.streaks[key] = shows(metrics) ? this.streaks[key] + 1 : 0
      if (this.streaks[key] === toldAfter) result.warning ??= `${told(metrics)}, for ${toldAfter} steps. Try ${remedy}`
      if (!mild && this.streaks[key] >= this.patience) result.stop = told(metrics)
    }
    return result
  }
}
