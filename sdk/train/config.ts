import type { Filled, Given, OptionTable } from '../option-table.ts'
import type { Store } from '../store/store.ts'
import { z } from '../zod.ts'

// The arguments of the trainers, one table each: TRL's names in camelCase, and its defaults where nothing else is said.

const from = (low: number) => z.int().min(low)
const share = z.number().min(0).max(1)
const when = z.enum(['no', 'steps', 'epoch'])

/** What holds where learningRate is left out: for LoRA, for all parameters. */
export const learningRates = { sft: [2e-4, 2e-5], grpo: [1e-5, 1e-6] } as const

const rate = ([lora, full]: readonly [number, number]) =>
  z
    .number()
    .gt(0)
    .optional()
    .meta({
      description: `its highest; default: ${lora.toExponential()} for LoRA, ${full.toExponential()} for all parameters`,
      examples: [lora],
    })

/** Bytes of activations that are kept where layers are recomputed, at most: a step of a 0.5B model in q8 is to take about 1.2 GB of the process. */
export const keptBytes = 48e6

/** What every trainer takes. */
export const trainingConfig = {
  outputDir: z
    .string()
    .min(1)
    .nullable()
    .meta({
      description:
        'folder for the adapter (or model), checkpoints and metrics.jsonl, made where it is missing; null writes nothing: what was trained stays on the model, and there is no going on after an interruption',
      examples: ['out'],
    }),
  learningRate: rate(learningRates.sft),
  lrSchedulerType: z
    .enum(['linear', 'cosine', 'constant', 'constant_with_warmup'])
    .default('linear')
    .describe('how the learning rate goes on after the warm-up'),
  warmupSteps: from(0).default(0).describe('the learning rate rises from 0 over so many steps'),
  warmupRatio: share.default(0).describe('the same as a share of all steps; warmupSteps wins'),
  numTrainEpochs: z.number().gt(0).default(3).describe('passes over the rows, fractions too'),
  maxSteps: z.int().default(-1).describe('optimizer steps; overrides numTrainEpochs when positive'),
  perDeviceTrainBatchSize: from(1).default(8).describe('rows computed together; memory grows with it'),
  gradientAccumulationSteps: from(1).default(1).describe('batches an optimizer step'),
  weightDecay: z.number().min(0).default(0).describe('of weights, not of biases and norms'),
  adamBeta1: z.number().min(0).lt(1).default(0.9).describe('memory of the mean of the gradients'),
  adamBeta2: z.number().min(0).lt(1).default(0.999).describe('memory of their squares'),
  adamEpsilon: z.number().gt(0).default(1e-8).describe('added to the root of the squares'),
  maxGradNorm: z.number().min(0).default(1).describe('gradients are scaled down to this global norm; 0 leaves them'),
  gradientCheckpointing: z
    .boolean()
    .default(true)
    .describe(
      `compute in the reverse pass again what of each layer does not fit ${keptBytes / 1e6} MB: up to a third slower, memory of one layer instead of all`,
    ),
  seed: from(0)
    .max(2 ** 32 - 1)
    .default(42)
    .describe("of the order of rows, the adapter's start, dropout and sampling; the same seed gives the same bits"),
  loggingSteps: from(1).default(1).describe('steps from one log line to the next'),
  evalStrategy: when
    .optional()
    .meta({ description: 'when the evaluation rows are scored; default: epoch where there are any', examples: ['no'] }),
  evalSteps: from(1).default(100).describe('for evalStrategy steps'),
  saveStrategy: when.default('steps').describe('when a checkpoint is written'),
  saveSteps: from(1).default(500).describe('for saveStrategy steps'),
  saveTotalLimit: from(1).nullable().default(null).describe('checkpoints that are kept, the newest; null keeps all'),
  loadBestModelAtEnd: z
    .boolean()
    .default(false)
    .describe('end with the checkpoint of the lowest evalLoss, or the highest evalReward'),
  earlyStoppingPatience: from(1)
    .nullable()
    .default(null)
    .describe('stop after so many evaluations without a better one; null: never'),
}

/** How a row becomes tokens. */
export const rowConfig = {
  maxLength: from(2).default(1024).describe('tokens of a row at most'),
  truncationMode: z
    .enum(['keep_start', 'error', 'skip'])
    .default('keep_start')
    .describe('longer rows lose their end, are an error, or are left out'),
  completionOnlyLoss: z.boolean().default(true).describe('of prompt + completion, score the completion alone'),
  assistantOnlyLoss: z.boolean().default(true).describe('of messages, score what the assistant says alone'),
  columns: z
    .record(z.string(), z.string())
    .optional()
    .meta({
      description: 'which column holds what: {question: problem, answer: solution}',
      examples: [{ question: 'problem', answer: 'solution' }],
    }),
}

/** What people give: the outputDir may be a Store too. */
export type Arguments<T extends OptionTable> = Omit<Given<T>, 'outputDir'> & {
  readonly outputDir: string | Store | null
}

export const sftConfig = {
  ...trainingConfig,
  ...rowConfig,
  packing: z.boolean().default(false).describe('put short rows together up to maxLength; they do not see one another'),
  trainSamplingStrategy: z
    .enum(['random', 'sequential'])
    .default('random')
    .describe('the order of the rows: another one each epoch, or that of the file'),
}

/** TRL's SFTConfig in camelCase. */
export type SFTConfig = Arguments<typeof sftConfig>

export const distillConfig = {
  ...sftConfig,
  beta: share
    .default(0)
    .describe('0: KL(teacher|student), 1: KL(student|teacher), between: Jensen-Shannon (arXiv 2306.13649)'),
  alpha: share.default(0).describe("share of the cross-entropy with the row's own tokens"),
  temperature: z
    .number()
    .gt(0)
    .max(100)
    .optional()
    .describe("of both distributions, the loss is multiplied by T²; default: the cache's, 1 with a live teacher"),
  lmbda: share
    .default(0)
    .describe(
      'share of the steps on which the student answers the prompts itself and a live teacher judges (on-policy)',
    ),
  maxNewTokens: from(1).default(128).describe('tokens of such an answer at most'),
  samplingTemperature: z.number().gt(0).max(100).default(0.9).describe("of the student's sampling"),
  topK: from(1).max(64).default(16).describe('ids a token that are asked of a live teacher'),
}

/** TRL's GKDConfig in camelCase, but for the defaults of beta (0, not 0.5) and lmbda (0, not 0.5), which suit a cached teacher. */
export type DistillConfig = Arguments<typeof distillConfig>

export const grpoConfig = {
  ...trainingConfig,
  learningRate: rate(learningRates.grpo),
  perDeviceTrainBatchSize: trainingConfig.perDeviceTrainBatchSize.describe(
    'completions that are trained on together; gradientAccumulationSteps of these make an optimizer step',
  ),
  columns: rowConfig.columns,
  numGenerations: from(2).default(8).describe('completions of each prompt: a group, in which they are compared'),
  maxCompletionLength: from(1).default(512).describe('tokens of a completion at most'),
  temperature: z.number().gt(0).max(100).default(1).describe('of sampling, and of the log-probabilities that train'),
  topK: from(0).default(0).describe('sample from the likeliest alone, which the loss does not assume; 0 is off'),
  topP: share.default(1).describe('sample from the likeliest of this mass; 1 is off'),
  minP: share.default(0).describe('sample from tokens of at least this share of the likeliest; 0 is off'),
  repetitionPenalty: z.number().min(0.001).max(1000).default(1).describe('of tokens that came already; 1 is off'),
  beta: z
    .number()
    .min(0)
    .default(0)
    .describe('weight of the divergence from the reference: the model without the adapter that trains'),
  epsilon: z.number().min(0).default(0.2).describe('the ratio is clipped to 1 - epsilon .. 1 + epsilonHigh'),
  epsilonHigh: z
    .number()
    .min(0)
    .optional()
    .meta({ description: 'default: epsilon; of DAPO: 0.28', examples: [0.28] }),
  numIterations: from(1).default(1).describe('optimizer passes over each batch of completions'),
  stepsPerGeneration: from(1)
    .optional()
    .meta({
      description: 'micro-batches of completions drawn at once, a multiple of gradientAccumulationSteps; default: that',
      examples: [1],
    }),
  lossType: z
    .enum(['grpo', 'bnpo', 'dapo', 'dr_grpo'])
    .default('dapo')
    .describe('how the losses of tokens become one number'),
  scaleRewards: z
    .enum(['group', 'batch', 'none'])
    .default('group')
    .describe("rewards are divided by the group's deviation, the batch's, or nothing (Dr. GRPO)"),
  importanceSamplingLevel: z
    .enum(['token', 'sequence'])
    .default('token')
    .describe('one ratio a token, or one a completion (GSPO, arXiv 2507.18071)'),
  rewardWeights: z
    .array(z.number())
    .readonly()
    .optional()
    .meta({ description: 'one a reward function; default: 1 each', examples: [[1]] }),
  maskTruncatedCompletions: z.boolean().default(false).describe('completions that were cut off do not train'),
  dynamicSampling: z
    .boolean()
    .default(false)
    .describe('groups without spread are dropped and others drawn (DAPO, arXiv 2503.14476)'),
  maxResamples: from(0).default(4).describe('so many times at most for one batch'),
  rolloutActivations: z
    .enum(['f32', 'int8'])
    .default('f32')
    .describe(
      'of the products that draw completions with quantized weights; int8 is faster on wasm, and counts as another model having drawn them',
    ),
  importanceSamplingCorrection: z
    .enum(['sequence_mask', 'sequence_truncate', 'token_mask', 'token_truncate'])
    .default('sequence_mask')
    .describe('how tokens are weighed that another model drew'),
  importanceSamplingCap: z.number().gt(0).default(3).describe('weights above it are cut, or left out'),
  system: z
    .string()
    .optional()
    .meta({ description: 'system message of question rows', examples: ['Think, then answer.'] }),
  slots: from(1)
    .optional()
    .meta({
      description: 'sequences decoded side by side, for which memory grows; default: all of a batch, at most 64',
      examples: [8],
    }),
  stopOnCollapse: z
    .boolean()
    .default(false)
    .describe('end with a CollapseError after steps without spread, without entropy, or cut off'),
  collapsePatience: from(1).default(10).describe('after so many such steps'),
}

/** TRL's GRPOConfig in camelCase. */
export type GRPOConfig = Arguments<typeof grpoConfig>

/** With the defaults filled in; those of `K` depend on other options. */
type Settings<T extends OptionTable, K extends keyof Filled<T>> = Omit<Filled<T>, 'outputDir'> & {
  readonly outputDir: string | Store | null
} & {
  readonly [key in K]-?: NonNullable<Filled<T>[key]>
}
export type TrainingSettings = Settings<typeof trainingConfig, 'learningRate' | 'evalStrategy'>
export type RowSettings = Filled<typeof rowConfig>
export type SFTSettings = Settings<typeof sftConfig, 'learningRate' | 'evalStrategy'>
export type DistillSettings = Settings<typeof distillConfig, 'learningRate' | 'evalStrategy'>
export type GRPOSettings = Settings<
  typeof grpoConfig,
  'learningRate' | 'evalStrategy' | 'epsilonHigh' | 'stepsPerGeneration'
>
