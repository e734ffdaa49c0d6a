import { z } from 'zod'
import type { DistillConfig } from '../train/distill.ts'
import { fixedKeys, loraKeys, runKeys, trainerKeys } from './sft-keys.ts'

// Every key of a distillation, beside those of `halfling sft`.

const share = z.number().min(0).max(1)

const lossKeys = {
  beta: share.describe('0: KL(teacher|student), 1: KL(student|teacher), between: Jensen-Shannon; default: 0'),
  alpha: share.describe("share of the cross-entropy with the row's own tokens; default: 0"),
  temperature: z.number().positive().describe("of both distributions; default: the cache's, 1 with a live teacher"),
  lmbda: share.describe('share of the steps on which the student answers itself and a live teacher judges; default: 0'),
  maxNewTokens: z.int().positive().describe('tokens of such an answer at most; default: 128'),
  samplingTemperature: z.number().positive().describe("of the student's sampling; default: 0.9"),
  topK: z.int().min(1).max(64).describe('ids a token that are asked of a live teacher; default: 16'),
} satisfies { [K in keyof DistillConfig]?: z.ZodType<DistillConfig[K]> }

export const distillTrainerKeys = { ...trainerKeys, ...lossKeys }

const { lossType: _, ...fixed } = fixedKeys

export const distillKeys = {
  ...runKeys,
  teacher: z.string().describe('a cache (halfling teacher build), or a model that is loaded beside the student'),
  ...distillTrainerKeys,
  ...loraKeys,
  ...fixed,
}
