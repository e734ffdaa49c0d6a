import type { Store } from '../store/store.ts'
import { textChunks } from '../store/text.ts'

/** What GRPOTrainer logs beside the loss: means over the completions (or the scored tokens) of a step. Absent: none was computed. */
export interface RolloutMetrics {
  /** The weighted sum of all rewards, of completions that have any. */
  readonly reward?: number
  /** Mean over the groups of their rewards' deviation. */
  readonly rewardStd?: number
  /** Share of the groups without any spread: they teach nothing. */
  readonly fracRewardZeroStd: number
  /** Tokens of a completion. */
  readonly meanLength: number
  readonly maxLength: number
  /** Share of the completions that were cut off. */
  readonly truncated: number
  /** Nats a token of the completions that trained. */
  readonly entropy?: number
  /** Share of the tokens whose ratio the clip held back, below and above. */
  readonly clipRatioLow?: number
  readonly clipRatioHigh?: number
  /** k3 estimate of the divergence from the reference, nats a token; with beta alone. */
  readonly kl?: number
  /** |log p of the trainer - log p of the sampler|, mean and greatest. */
  readonly samplingDifference?: number
  readonly samplingDifferenceMax?: number
  /** Mean weight of the importance correction; with a rolloutModel or rolloutActivations int8 alone. */
  readonly importanceWeight?: number
  /** Groups that dynamic sampling threw away. */
  readonly resampledGroups: number
}

/** One line of metrics.jsonl; trainers add metrics of their own. */
export type MetricsLine =
  | ({
      readonly step: number
      readonly epoch: number
      readonly loss: number
      /** Global norm of the gradients before clipping. */
      readonly gradNorm: number
      readonly learningRate: number
      /** Tokens seen since the start of the run. */
      readonly tokens: number
      readonly tokensPerSecond: number
    } & Partial<RolloutMetrics>)
  | { readonly step: number; readonly evalLoss: number }
  | { readonly step: number; readonly evalReward: number }
  /** What goes wrong in a run that goes on. */
  | { readonly step: number; readonly warning: string }

const file = 'metrics.jsonl'

/** metrics.jsonl of a run: every line is on disk before the next step starts. */
export class MetricsFile {
  private readonly store: Store
  bytes = 0

  constructor(store: Store) {
    this.store = store
  }

  /** Cuts the file to what was known at a checkpoint (0: a fresh run). Throws HalflingError of code 'io'. */
  async open(bytes: number): Promise<void> {
    this.bytes = await this.store.append(file, [], bytes)
  }

  async append(line: MetricsLine): Promise<void> {
    this.bytes = await this.store.append(file, textChunks(`${JSON.stringify(line)}\n`))
  }
}
