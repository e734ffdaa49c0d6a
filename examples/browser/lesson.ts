import {
  type DistillOptions,
  DistillTrainer,
  type GRPOOptions,
  GRPOTrainer,
  type LanguageModel,
  type Question,
  type ScoredRollout,
  type SFTOptions,
  SFTTrainer,
} from '../../sdk/index.ts'
import { type Points, rewardsFor } from './rewards.ts'

/** A training as plain data, so that a page that is opened again can go on with it. */
export type Job =
  | { readonly kind: 'sft'; readonly options: Omit<SFTOptions, 'model'> }
  | { readonly kind: 'grpo'; readonly options: Omit<GRPOOptions, 'model' | 'rewardFuncs'>; readonly points: Points }
  | {
      readonly kind: 'distill'
      readonly options: Omit<DistillOptions, 'model' | 'teacher'> & { readonly teacher: string }
    }

/** Something to learn. */
export interface Lesson {
  /** Of the adapter that comes of it. */
  readonly name: string
  readonly job: Job
  /** Held back from training; may be none. */
  readonly questions: readonly Question[]
}

/** What is told beside the log. */
export interface Listener {
  onWarning?(warning: string): void
  onRollouts?(rollouts: readonly ScoredRollout[]): void
}

/** Throws OptionError for what cannot be. */
export function trainerOf(model: LanguageModel, job: Job, { onWarning, onRollouts }: Listener = {}) {
  if (job.kind === 'sft') return new SFTTrainer({ ...job.options, model, onWarning })
  if (job.kind === 'distill') return new DistillTrainer({ ...job.options, model, onWarning })
  const { args } = job.options
  const { rewardFuncs, rewardWeights } = rewardsFor(job.points, args.maxCompletionLength!)
  return new GRPOTrainer({
    ...job.options,
    model,
    rewardFuncs,
    args: { ...args, rewardWeights },
    onWarning,
    onRollouts,
  })
}
