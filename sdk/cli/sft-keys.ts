import { z } from 'zod'
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
  learningRate: rate.describe('default: 2e-4 for LoRA, 2e-5 for --full'),
  lrSchedulerType: z.enum(['linear', 'cosine', 'constant', 'constant_with_warmup']).describe('default: linear'),
  warmupSteps: whole.min(0).describe('the learning rate rises over these'),
  warmupRatio: share.describe('the same as a share of all steps'),
  numTrainEpochs: rate.describe('default: 3'),
  maxSteps: whole.describe('overrides the epochs when positive'),
  perDeviceTrainBatchSize: positive.describe('rows computed together; default: 8'),
  perDeviceEvalBatchSize: positive.describe('default: 8'),
  gradientAccumulationSteps: positive.describe('batches an optimizer step; default: 1'),
  maxLength: positive.describe('tokens of a row at most; default: 1024'),
  truncationMode: z.enum(['keep_start', 'error', 'skip']).describe('rows longer than that; default: keep_start'),
  packing: z.boolean().describe('put short rows together up to maxLength'),
  completionOnlyLoss: z.boolean().describe('default: true for prompt + completion'),
  assistantOnlyLoss: z.boolean().describe('default: true for messages'),
  columns: z
    .record(z.string(), z.string())
    .describe("which column holds what: '{question: problem, answer: solution}'"),
  weightDecay: z.number().min(0).describe('default: 0'),
  adamBeta1: share.describe('default: 0.9'),
  adamBeta2: share.describe('default: 0.999'),
  adamEpsilon: rate.describe('default: 1e-8'),
  maxGradNorm: z.number().min(0).describe('0: no clipping; default: 1'),
  gradientCheckpointing: z.boolean().describe('less memory, a third slower; default: true'),
  trainSamplingStrategy: z.enum(['random', 'sequential']).describe('default: random'),
  seed: whole.describe('default: 42'),
  loggingSteps: positive.describe('default: 1'),
  evalStrategy: when.describe('default: epoch with --eval-data, else no'),
  evalSteps: positive.describe('default: 100'),
  saveStrategy: when.describe('default: steps'),
  saveSteps: positive.describe('default: 500'),
  saveTotalLimit: positive.nullable().describe('keep so many checkpoints; default: all'),
  loadBestModelAtEnd: z.boolean().describe('end with the lowest evalLoss'),
  earlyStoppingPatience: positive.nullable().describe('stop after so many evaluations without a better one'),
} satisfies { [K in keyof Required<SFTConfig>]: z.ZodType<SFTConfig[K]> }

export const loraKeys = {
  loraR: positive.describe('rank'),
  loraAlpha: rate.describe('the update is alpha/r B A'),
  loraDropout: share.describe('dropout on what the adapter reads'),
  loraTargetModules: z
    .union([z.string(), names])
    .describe('names, a regular expression over whole paths, or all-linear'),
  useRslora: z.boolean().describe('alpha/sqrt(r)'),
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
  device: z.enum(['auto', 'wasm', 'reference']).describe('default: auto'),
  threads: positive.describe('compute threads (default: the cores, 8 at most)'),
  dtype: z.enum(dtypes).describe('weights in memory (default: auto, as in the file; f32 with --full)'),
}

const fixed = (...values: [string, ...string[]]) => z.enum(values).describe(`as in TRL; only ${values.join(', ')}`)
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
