import { z } from 'zod'
import type { GRPOConfig } from '../train/grpo-arguments.ts'
import { rowArguments } from '../train/rows.ts'
import { fixedKeys, loraKeys, runKeys, trainerKeys } from './sft-keys.ts'

// Every key of reinforcement learning, beside those of `halfling sft`.

const [whole, positive] = [z.int(), z.int().positive()]
const atLeast0 = z.number().min(0)

const policyKeys = {
  numGenerations: positive.describe('completions of each prompt: a group'),
  maxCompletionLength: positive.describe('tokens of a completion at most'),
  temperature: z.number().positive().describe('of sampling, and of what trains'),
  topK: whole.min(0).describe('sample from so many; 0 is off'),
  topP: z.number().min(0).max(1).describe('sample from the likeliest of this mass; 1 is off'),
  minP: z.number().min(0).max(1).describe('sample from tokens of this share of the likeliest; 0 is off'),
  repetitionPenalty: z.number().positive().describe('1 is off'),
  beta: atLeast0.describe('weight of the divergence from the model without the adapter'),
  epsilon: atLeast0.describe('the ratio is clipped to 1 - epsilon ...'),
  epsilonHigh: atLeast0.describe('... and 1 + this (default: epsilon; DAPO: 0.28)'),
  numIterations: positive.describe('passes over each batch of completions'),
  stepsPerGeneration: positive.describe('micro-batches drawn at once (default: gradientAccumulationSteps)'),
  lossType: z.enum(['grpo', 'bnpo', 'dapo', 'dr_grpo']).describe('how the losses of tokens become one number'),
  scaleRewards: z.enum(['group', 'batch', 'none']).describe('deviation that rewards are divided by'),
  importanceSamplingLevel: z.enum(['token', 'sequence']).describe('one ratio a token, or a completion (GSPO)'),
  rewardWeights: z.array(z.number()).describe('one a reward function (default: 1 each)'),
  maskTruncatedCompletions: z.boolean().describe('completions that were cut off do not train'),
  dynamicSampling: z.boolean().describe('draw others for groups without spread (DAPO)'),
  maxResamples: whole.min(0).describe('so many times at most'),
  importanceSamplingCorrection: z
    .enum(['sequence_mask', 'sequence_truncate', 'token_mask', 'token_truncate'])
    .describe('with rolloutDtype'),
  importanceSamplingCap: z.number().positive().describe('weights above it are cut, or left out'),
  system: z.string().describe('system message of questions'),
  slots: positive.describe('sequences decoded side by side (default: all, 64 at most)'),
  stopOnCollapse: z.boolean().describe('end when nothing is learned any more'),
  collapsePatience: positive.describe('for so many steps'),
} satisfies { [K in keyof GRPOConfig]?: z.ZodType<GRPOConfig[K]> }

const ofRows = new Set<string>(rowArguments.filter((name) => name !== 'columns'))
const trainingKeys = Object.fromEntries(
  Object.entries(trainerKeys).filter(([key]) => !ofRows.has(key)),
) as unknown as Omit<typeof trainerKeys, Exclude<(typeof rowArguments)[number], 'columns'>>

export const grpoTrainerKeys = { ...trainingKeys, ...policyKeys }

const { lossType: _, ...fixed } = fixedKeys

export const grpoKeys = {
  ...runKeys,
  data: z.string().describe('rows with question, prompt or messages, and what the rewards need (answer, say)'),
  evalData: z.string().describe('rows for evalReward: one greedy answer each'),
  rewardFuncs: z
    .array(z.string())
    .describe('accuracy, format, length, repetition, or files that export functions (./mine.ts); default: accuracy'),
  rolloutDtype: z.enum(['q8', 'q4']).describe('a quantized copy draws the completions: faster, corrected for'),
  ...grpoTrainerKeys,
  ...loraKeys,
  ...fixed,
}
