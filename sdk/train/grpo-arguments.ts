import { OptionError } from '../errors.ts'
import { checkWord } from '../options.ts'
import type { RewardFunction } from '../rewards/reward.ts'
import type { GrpoLossType, ImportanceSamplingCorrection, ScaleRewards } from './advantages.ts'
import { check, type TrainingArguments, trainingDefaults } from './arguments.ts'

/** TRL's GRPOConfig in camelCase, with its defaults where nothing else is said. */
export interface GRPOConfig extends TrainingArguments {
  /** Completions that are trained on together; default 8. gradientAccumulationSteps of these make an optimizer step. */
  readonly perDeviceTrainBatchSize?: number
  /** Default 1e-5 for LoRA, 1e-6 for full fine-tuning. */
  readonly learningRate?: number
  /** Completions of each prompt: a group; default 8. */
  readonly numGenerations?: number
  /** Tokens of a completion at most; default 512. */
  readonly maxCompletionLength?: number
  /** Of sampling, and of the log-probabilities that train; default 1. */
  readonly temperature?: number
  /** Sampling from the likeliest alone is not what the loss assumes; default 0 (off). */
  readonly topK?: number
  /** Default 1 (off). */
  readonly topP?: number
  /** Default 0 (off). */
  readonly minP?: number
  /** Default 1 (off). */
  readonly repetitionPenalty?: number
  /** Weight of the divergence from the reference, which is the model without the adapter that trains; default 0. */
  readonly beta?: number
  /** The ratio is clipped to 1 - epsilon .. 1 + epsilonHigh; default 0.2. */
  readonly epsilon?: number
  /** Default: epsilon. DAPO's is 0.28. */
  readonly epsilonHigh?: number
  /** Optimizer passes over each batch of completions; default 1. */
  readonly numIterations?: number
  /** Micro-batches of completions that are drawn at once; default gradientAccumulationSteps, of which it is a multiple. */
  readonly stepsPerGeneration?: number
  /** Default `dapo`. */
  readonly lossType?: GrpoLossType
  /** Default `group`. */
  readonly scaleRewards?: ScaleRewards
  /** One ratio a token (default), or one a completion (GSPO, arXiv 2507.18071). */
  readonly importanceSamplingLevel?: 'token' | 'sequence'
  /** One a reward function; default: 1 each. */
  readonly rewardWeights?: readonly number[]
  /** Completions that were cut off do not train; default false. */
  readonly maskTruncatedCompletions?: boolean
  /** Groups without spread are dropped and others drawn (DAPO, arXiv 2503.14476); default false. */
  readonly dynamicSampling?: boolean
  /** So many times at most for one batch; default 4. */
  readonly maxResamples?: number
  /** With a rolloutModel; default `sequence_mask`. */
  readonly importanceSamplingCorrection?: ImportanceSamplingCorrection
  /** Default 3. */
  readonly importanceSamplingCap?: number
  /** System message of `question` rows. */
  readonly system?: string
  /** Which column holds what: `{question: 'problem'}`. */
  readonly columns?: Readonly<Record<string, string>>
  /** Sequences decoded side by side; default: all of a batch, at most 64. Memory of the key/value caches grows with it. */
  readonly slots?: number
  /** End with a CollapseError after collapsePatience steps without spread, without entropy, or cut off; default false. */
  readonly stopOnCollapse?: boolean
  /** Steps; default 10. */
  readonly collapsePatience?: number
}

export const grpoDefaults = {
  numGenerations: 8,
  maxCompletionLength: 512,
  temperature: 1,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
  beta: 0,
  epsilon: 0.2,
  numIterations: 1,
  lossType: 'dapo',
  scaleRewards: 'group',
  importanceSamplingLevel: 'token',
  maskTruncatedCompletions: false,
  dynamicSampling: false,
  maxResamples: 4,
  importanceSamplingCorrection: 'sequence_mask',
  importanceSamplingCap: 3,
  stopOnCollapse: false,
  collapsePatience: 10,
} as const satisfies Partial<GRPOConfig>

/** Arguments without a default of their own. */
export const optionalArguments = [
  'epsilonHigh',
  'stepsPerGeneration',
  'rewardWeights',
  'system',
  'columns',
  'slots',
] as const

/** With the defaults filled in. */
export type GrpoSettings = Required<Omit<GRPOConfig, 'rewardWeights' | 'system' | 'columns' | 'slots'>> &
  Pick<GRPOConfig, 'rewardWeights' | 'system' | 'columns' | 'slots'>

export function settingsOf(given: GRPOConfig, full: boolean): GrpoSettings {
  const set = Object.fromEntries(
    Object.entries(given).filter(([, value]) => value !== undefined),
  ) as unknown as GRPOConfig
  const all = { ...trainingDefaults, ...grpoDefaults, learningRate: full ? 1e-6 : 1e-5, ...set }
  return {
    ...all,
    epsilonHigh: all.epsilonHigh ?? all.epsilon,
    stepsPerGeneration: all.stepsPerGeneration ?? all.gradientAccumulationSteps,
  }
}

/** Throws OptionError naming the first argument that is out of range or goes badly with another. */
export function checkGrpoArguments(
  args: GrpoSettings,
  options: { readonly peft?: unknown; readonly refModel?: unknown; readonly rolloutModel?: unknown },
  rewardFuncs: readonly RewardFunction[],
): void {
  const positive = [
    'numGenerations',
    'maxCompletionLength',
    'numIterations',
    'stepsPerGeneration',
    'collapsePatience',
  ] as const
  check(args, positive, (v) => Number.isInteger(v) && v > 0, 'a positive integer')
  check(args, ['maxResamples'], (v) => Number.isInteger(v) && v >= 0, 'an integer from 0')
  check(args, ['temperature'], (v) => v > 0 && v <= 100, 'above 0')
  check(args, ['beta', 'epsilon', 'epsilonHigh'], (v) => v >= 0 && v < Infinity, 'a number from 0')
  check(args, ['importanceSamplingCap'], (v) => v > 0, 'a positive number')
  checkWord(args.lossType, ['grpo', 'bnpo', 'dapo', 'dr_grpo'], 'lossType')
  checkWord(args.scaleRewards, ['group', 'batch', 'none'], 'scaleRewards')
  checkWord(args.importanceSamplingLevel, ['token', 'sequence'], 'importanceSamplingLevel')
  const modes = ['sequence_mask', 'sequence_truncate', 'token_mask', 'token_truncate']
  checkWord(args.importanceSamplingCorrection, modes, 'importanceSamplingCorrection')
  const { numGenerations, perDeviceTrainBatchSize, gradientAccumulationSteps, stepsPerGeneration, rewardWeights } = args
  if (numGenerations < 2)
    throw new OptionError('numGenerations: 1 completion has nothing to be compared with: 2 or more')
  if (stepsPerGeneration % gradientAccumulationSteps !== 0)
    throw new OptionError(
      `stepsPerGeneration: ${stepsPerGeneration} is no multiple of gradientAccumulationSteps (${gradientAccumulationSteps})`,
    )
  const completions = perDeviceTrainBatchSize * stepsPerGeneration
  if (completions % numGenerations !== 0)
    throw new OptionError(
      `numGenerations: ${completions} completions at once (perDeviceTrainBatchSize x stepsPerGeneration) are no groups of ${numGenerations}`,
    )
  if (rewardFuncs.length === 0 || rewardFuncs.some((reward) => typeof reward !== 'function'))
    throw new OptionError('rewardFuncs: wanted a function of completions, or several')
  if (rewardWeights !== undefined && rewardWeights.length !== rewardFuncs.length)
    throw new OptionError(`rewardWeights: ${rewardWeights.length} weights for ${rewardFuncs.length} reward functions`)
  if (options.peft === null && args.beta !== 0 && !options.refModel)
    throw new OptionError(
      'beta: full fine-tuning changes the reference itself: give it as refModel, or use beta 0 or LoRA',
    )
  if (options.peft === null && options.rolloutModel)
    throw new OptionError('rolloutModel: full fine-tuning changes all weights, which it would not get: use LoRA')
}
