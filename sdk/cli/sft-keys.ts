import { z } from 'zod'
import { deviceNames } from '../device.ts'
import type { LoraConfig } from '../model/adapter.ts'
import type { SFTConfig } from '../train/sft.ts'
import { dtypes, modelDescription } from './options.ts'
import type { Aliases, Settings } from './settings.ts'

// Every key of a training run, as a flag (--learning-rate), in a YAML file (learningRate or TRL's learning_rate) and in code.

const [whole, positive] = [z.int(), z.int().positive()]
const [share, rate] = [z.number().min(0).max(1), z.number().positive()]
const when = z.enum(['no', 'steps', 'epoch'])
const names = z.array(z.string())

export const trainerKeys = {
  outputDir: z.string().describe('where the adapter (or model), checkpoints and metrics.jsonl go'),
  learningRate: rate.describe('its highest; with full 2e-5'),
  lrSchedulerType: z
    .enum(['linear', 'cosine', 'constant', 'constant_with_warmup'])
    .describe('how the learning rate goes on'),
  warmupSteps: whole.min(0).describe('the learning rate rises over so many'),
  warmupRatio: share.describe('the same as a share of all steps; warmupSteps wins'),
  numTrainEpochs: rate.describe('passes over the rows'),
  maxSteps: whole.describe('optimizer steps; overrides the epochs when positive'),
  perDeviceTrainBatchSize: positive.describe('rows computed together; memory grows with it'),
  perDeviceEvalBatchSize: positive.describe('as in TRL; evalData is scored in runs of so many tokens, not rows'),
  gradientAccumulationSteps: positive.describe('batches an optimizer step'),
  maxLength: positive.describe('tokens of a row at most'),
  truncationMode: z
    .enum(['keep_start', 'error', 'skip'])
    .describe('longer rows lose their end, are an error, or are left out'),
  packing: z.boolean().describe('put short rows together up to maxLength'),
  completionOnlyLoss: z.boolean().describe('of prompt + completion, score the completion alone'),
  assistantOnlyLoss: z.boolean().describe('of messages, score what the assistant says alone'),
  columns: z
    .record(z.string(), z.string())
    .describe("which column holds what: '{question: problem, answer: solution}'"),
  weightDecay: z.number().min(0).describe('of weights, not of biases and norms'),
  adamBeta1: share.describe('memory of the mean of the gradients'),
  adamBeta2: share.describe('memory of their squares'),
  adamEpsilon: rate.describe('added to the root of the squares'),
  maxGradNorm: z.number().min(0).describe('gradients are scaled down to this norm; 0 leaves them'),
  gradientCheckpointing: z.boolean().describe('less memory, a third slower'),
  trainSamplingStrategy: z.enum(['random', 'sequential']).describe('the order of the rows'),
  seed: whole.describe('the same seed gives the same bits'),
  loggingSteps: positive.describe('steps from one log line to the next'),
  evalStrategy: when.describe('when evalData is scored (epoch, where there is evalData)'),
  evalSteps: positive.describe('for evalStrategy steps'),
  saveStrategy: when.describe('when a checkpoint is written'),
  saveSteps: positive.describe('for saveStrategy steps'),
  saveTotalLimit: positive.nullable().describe('keep so many checkpoints; null keeps all'),
  loadBestModelAtEnd: z.boolean().describe('end with the lowest evalLoss'),
  earlyStoppingPatience: positive
    .nullable()
    .describe('stop after so many evaluations without a better one; null: never'),
} satisfies { [K in keyof Required<SFTConfig>]: z.ZodType<SFTConfig[K]> }

export const loraKeys = {
  loraR: positive.describe('rank'),
  loraAlpha: rate.describe('the update is alpha/r times B A'),
  loraDropout: share.describe('dropout on what the adapter reads'),
  loraTargetModules: z
    .union([z.string(), names])
    .describe('names, a regular expression over whole paths, or all-linear'),
  useRslora: z.boolean().describe('alpha/sqrt(r) instead'),
  useDora: z.boolean().describe('weight-decomposed LoRA'),
  modulesToSave: names.describe('modules that train whole: embed_tokens, lm_head'),
  rankPattern: z.record(z.string(), positive).describe('other ranks by module: {q_proj: 32}'),
  alphaPattern: z.record(z.string(), rate).describe('other alphas by module'),
}

export const runKeys = {
  model: z.string().describe(modelDescription),
  adapter: z.union([z.string(), names]).describe('PEFT folders: goes on training the last one'),
  data: z
    .string()
    .describe(
      'rows (.jsonl, .json, .parquet, or org/name of the hub): messages, prompt + completion, question + answer, or text',
    ),
  evalData: z.string().describe('rows for evalLoss'),
  full: z.boolean().describe('train all weights instead of an adapter'),
  resume: z.boolean().describe('go on from the newest checkpoint in the output folder, or start where there is none'),
  device: z.enum(deviceNames).describe('what computes, where HALFLING_DEVICE says nothing else'),
  threads: positive.describe('compute threads (default: the cores, 8 at most)'),
  dtype: z.enum(dtypes).describe('weights in memory, auto as in the file (f32 with full)'),
}

const fixed = (...values: [string, ...string[]]) => z.enum(values).describe('as in TRL; only')
const off = z.literal(false).describe('as in TRL; only false: training is in float32')

/** TRL's keys of which only these values are what Halfling does: accepted so that its configs run as they are. */
export const fixedKeys = {
  bf16: off,
  fp16: off,
  lossType: fixed('nll', 'chunked_nll'),
  optim: fixed('adamw_torch', 'adamw_torch_fused'),
  taskType: fixed('CAUSAL_LM'),
  reportTo: fixed('none'),
}

export const sftKeys = { ...runKeys, ...trainerKeys, ...loraKeys, ...fixedKeys }
export type SftSettings = Settings<typeof sftKeys>

/** Other names that TRL and PEFT have for some. */
export const aliases: Aliases = {
  modelNameOrPath: 'model',
  datasetName: 'data',
  r: 'loraR',
  loraModulesToSave: 'modulesToSave',
  targetModules: 'loraTargetModules',
}

/** The LoRA settings under PEFT's names. */
export function loraConfig(s: Settings<typeof loraKeys>): Partial<LoraConfig> {
  const all = {
    r: s.loraR,
    loraAlpha: s.loraAlpha,
    loraDropout: s.loraDropout,
    targetModules: targets(s.loraTargetModules),
    useRslora: s.useRslora,
    useDora: s.useDora,
    modulesToSave: s.modulesToSave,
    rankPattern: s.rankPattern,
    alphaPattern: s.alphaPattern,
  }
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined))
}

/** A single plain word is a name; PEFT would take it for a regular expression that matches no path. */
function targets(given: string | string[] | undefined): string | string[] | undefined {
  const one = Array.isArray(given) && given.length === 1 ? given[0] : given
  if (typeof one !== 'string' || one === 'all-linear') return one
  return /^\w+$/.test(one) ? [one] : one
}
