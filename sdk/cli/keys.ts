import { z } from 'zod'
import { deviceNames, wasmBuilds } from '../device.ts'
import { weightDTypes } from '../dtype.ts'
import { loraConfig } from '../formats/lora-config.ts'
import { distillConfig, grpoConfig, sftConfig } from '../train/config.ts'
import { modelDescription } from './options.ts'
import type { Aliases } from './settings.ts'

// Every key of the commands that train, as a flag (--learning-rate) and in a file of settings (learningRate or TRL's learning_rate):
// those of the trainers and of the adapter, under the names that TRL has for them, and what a command needs beside.

/** On what, from where and on what device. */
export const runKeys = {
  model: z.string().default('nano').describe(modelDescription),
  adapter: z
    .union([z.string(), z.array(z.string())])
    .meta({ description: 'PEFT folders: goes on training the last one', examples: ['out'] }),
  data: z.string().meta({
    description:
      'rows (.jsonl, .json, .parquet, or org/name of the hub): messages, prompt + completion, question + answer, or text',
    examples: ['rows.jsonl'],
  }),
  evalData: z.string().meta({ description: 'rows for evalLoss', examples: ['held-out.jsonl'] }),
  full: z.boolean().default(false).describe('train all weights instead of an adapter'),
  resume: z
    .boolean()
    .default(false)
    .describe('go on from the newest checkpoint in the output folder, or start where there is none'),
  device: z.enum(deviceNames).default('auto').describe('what computes, where HALFLING_DEVICE says nothing else'),
  threads: z
    .int()
    .min(1)
    .meta({ description: 'compute threads; default: HALFLING_THREADS, then the cores, 8 at most', examples: [2] }),
  build: z
    .enum(wasmBuilds)
    .meta({ description: 'kernels of wasm; default: relaxed, where its SIMD works', examples: ['plain'] }),
  dtype: z.enum(weightDTypes).default('auto').describe('weights in memory, auto as in the file (f32 with full)'),
}

const { r, targetModules, baseModel: _, ...adapter } = loraConfig

export const loraKeys = { loraR: r, loraTargetModules: targetModules, ...adapter }

const only = (value: string, ...more: string[]) =>
  z.enum([value, ...more]).meta({ description: 'as in TRL', examples: [value] })
const off = z.literal(false).meta({ description: 'as in TRL; only false: training is in float32', examples: [false] })

/** Keys of TRL of which only these values are what Halfling does: accepted so that its files run as they are. */
export const trlKeys = {
  bf16: off,
  fp16: off,
  lossType: only('nll', 'chunked_nll'),
  optim: only('adamw_torch', 'adamw_torch_fused'),
  taskType: only('CAUSAL_LM'),
  reportTo: only('none'),
  perDeviceEvalBatchSize: z
    .int()
    .min(1)
    .meta({ description: 'as in TRL; no number depends on it: 1024 tokens are scored at once', examples: [8] }),
}

export const sftKeys = { ...runKeys, ...sftConfig, ...loraKeys, ...trlKeys }

const { lossType: __, ...otherTrlKeys } = trlKeys

export const distillKeys = {
  ...runKeys,
  teacher: z.string().meta({
    description: 'a cache (halfling teacher build), or a model that is loaded beside the student',
    examples: ['cache'],
  }),
  ...distillConfig,
  ...loraKeys,
  ...otherTrlKeys,
}

export const grpoKeys = {
  ...runKeys,
  data: runKeys.data.meta({
    description: 'rows with question, prompt or messages, and what the rewards need (answer, say)',
    examples: ['rows.jsonl'],
  }),
  evalData: runKeys.evalData.describe('rows for evalReward: one greedy answer each'),
  rewardFuncs: z
    .array(z.string())
    .default(['accuracy'])
    .describe('accuracy, format, length, repetition, or files that export functions (./mine.ts)'),
  rolloutDtype: z
    .enum(['q8', 'q4a', 'q4'])
    .meta({ description: 'a quantized copy draws the completions: faster, corrected for', examples: ['q8'] }),
  ...grpoConfig,
  ...loraKeys,
  ...otherTrlKeys,
}

/** Other names that TRL and PEFT have for some. */
export const aliases: Aliases = {
  modelNameOrPath: 'model',
  datasetName: 'data',
  r: 'loraR',
  loraModulesToSave: 'modulesToSave',
  targetModules: 'loraTargetModules',
}
