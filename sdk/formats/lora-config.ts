import type { Filled } from '../option-table.ts'
import { z } from '../zod.ts'

const rank = z.int().min(1).max(65_536)
const names = z.array(z.string()).readonly()
const namesOrPattern = z.union([z.string(), names])

/**
 * PEFT's LoraConfig, as far as it changes the mathematics. The defaults are TRL's (ModelConfig), except for dropout: 0 as in PEFT, so
 * that what trains is what is later used.
 */
export const loraConfig = {
  r: rank.default(16).describe('rank'),
  loraAlpha: z.number().default(32).describe('the update is loraAlpha/r times B A'),
  loraDropout: z
    .number()
    .min(0)
    .lt(1)
    .default(0)
    .describe('share of what the adapter reads that is dropped while it trains'),
  useRslora: z.boolean().default(false).describe('the update is loraAlpha/sqrt(r) times B A'),
  useDora: z
    .boolean()
    .default(false)
    .describe('weight-decomposed LoRA: directions from B A, and a trained length for each output'),
  targetModules: namesOrPattern
    .default('all-linear')
    .describe('names or path endings, a regular expression over whole paths, or all-linear'),
  excludeModules: namesOrPattern
    .optional()
    .meta({ description: 'of the targets, those left out: as targetModules', examples: [['lm_head']] }),
  layersToTransform: z
    .array(z.int().min(0))
    .readonly()
    .optional()
    .meta({ description: 'these layers alone, where targetModules is a list', examples: [[0, 1]] }),
  layersPattern: names.optional().meta({
    description: 'names (or patterns) of the list of layers; default: whatever comes before the first number of a path',
    examples: [['layers']],
  }),
  rankPattern: z
    .record(z.string(), rank)
    .default({})
    .describe('other ranks, by path ending (a regular expression): {q_proj: 32}'),
  alphaPattern: z.record(z.string(), z.number()).default({}).describe('other alphas, by path ending'),
  modulesToSave: names
    .default([])
    .describe('path endings of modules that train, and are saved, as a whole: embed_tokens, lm_head'),
  baseModel: z
    .string()
    .optional()
    .meta({ description: 'base_model_name_or_path of the file', examples: ['nano'] }),
}

export type LoraConfig = Filled<typeof loraConfig>
