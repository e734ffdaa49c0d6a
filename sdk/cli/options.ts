import { type Command, InvalidArgumentError, Option } from 'commander'
import { parse } from 'yaml'
import { type DeviceOptions, deviceNames, wasmBuilds } from '../device.ts'
import { type FloatDType, weightDTypes } from '../dtype.ts'
import type { GenerateOptions } from '../generate/request.ts'
import { type CacheDType, cacheDTypes } from '../model/precision.ts'

export interface JsonFlag {
  readonly json?: boolean
}

export const addJson = (command: Command): Command =>
  command.option('--json', 'print one JSON object on standard output, and nothing else there')

export type DeviceFlags = Pick<DeviceOptions, 'device' | 'workload' | 'threads' | 'build'>

export interface ModelFlags extends DeviceFlags {
  readonly model?: string
  readonly adapter?: string | string[]
  readonly dtype?: 'auto' | FloatDType
  readonly cacheDtype?: CacheDType
  readonly exactActivations?: boolean
}

/** What --model takes, everywhere. */
export const modelDescription = 'nano, nano-base, a Hugging Face folder, a .gguf file, or org/name of the hub'

export const addThreads = (command: Command): Command =>
  command
    .addOption(integer('--threads <n>', 'compute threads (default: HALFLING_THREADS, then the cores, 8 at most)', 1))
    .addOption(
      new Option('--build <name>', 'kernels of wasm (default: relaxed, where its SIMD works)').choices(wasmBuilds),
    )

export const addModel = (command: Command): Command =>
  addThreads(
    command
      .option('--model <name>', `${modelDescription} (default: nano)`)
      .option('--adapter <names...>', 'PEFT folders, or org/name')
      .option('--device <name>', deviceNames.join(', ')),
  ).addOption(new Option('--dtype <type>', 'weights in memory (default: auto, as in the file)').choices(weightDTypes))

/** For commands that answer. */
export const addPrecision = (command: Command): Command =>
  command
    .addOption(
      new Option('--cache-dtype <type>', 'keys and values in memory (default: f32; f16 takes half)').choices(
        cacheDTypes,
      ),
    )
    .option('--exact-activations', 'products with quantized weights in f32 (default: int8 on wasm)')

export type SamplingFlags = Pick<
  GenerateOptions,
  | 'maxNewTokens'
  | 'temperature'
  | 'topK'
  | 'topP'
  | 'minP'
  | 'repetitionPenalty'
  | 'frequencyPenalty'
  | 'presencePenalty'
  | 'seed'
  | 'stop'
>

/** Defaults are the model's (generation_config.json); of the tokens of an answer then `most`. */
export const addSampling = (command: Command, most = 'all that the context leaves'): Command =>
  command
    .addOption(integer('--max-new-tokens <n>', `at most so many tokens (default: ${most})`, 1))
    .addOption(decimal('--temperature <t>', '0 is greedy'))
    .addOption(integer('--top-k <k>', 'keep the k likeliest tokens; 0 keeps all', 0))
    .addOption(decimal('--top-p <p>', 'keep the likeliest tokens of this mass'))
    .addOption(decimal('--min-p <p>', 'keep tokens of at least this share of the likeliest'))
    .addOption(decimal('--repetition-penalty <x>', '1 is off'))
    .addOption(decimal('--frequency-penalty <x>', 'subtracted for each occurrence'))
    .addOption(decimal('--presence-penalty <x>', 'subtracted from tokens that came already'))
    .addOption(integer('--seed <n>', 'of the sampler (default: another one each time)', 0))
    .option('--stop <texts...>', 'end the answer before one of these')

/** The sampling options among all flags. */
export function samplingOf(flags: SamplingFlags): SamplingFlags {
  const { maxNewTokens, temperature, topK, topP, minP, repetitionPenalty, frequencyPenalty, presencePenalty } = flags
  const { seed, stop } = flags
  const sampling = { maxNewTokens, temperature, topK, topP, minP, repetitionPenalty, frequencyPenalty, presencePenalty }
  return { ...sampling, seed, stop }
}

export function integer(flag: string, description: string, low: number): Option {
  return new Option(flag, description).argParser((text) => {
    const value = Number(text)
    if (text.trim() === '' || !Number.isInteger(value) || value < low)
      throw new InvalidArgumentError(`It is not a whole number from ${low}.`)
    return value
  })
}

export function decimal(flag: string, description: string): Option {
  return new Option(flag, description).argParser((text) => {
    const value = Number(text)
    if (text.trim() === '' || !Number.isFinite(value)) throw new InvalidArgumentError('It is not a number.')
    return value
  })
}

/** `--columns '{question: problem, answer: solution}'` */
export const addColumns = (command: Command): Command =>
  command.addOption(
    new Option('--columns <map>', "which column holds what: '{question: problem, answer: solution}'").argParser(
      (text) => {
        const value: unknown = parse(text)
        const isMap = typeof value === 'object' && value !== null && !Array.isArray(value)
        if (!isMap || Object.values(value).some((name) => typeof name !== 'string'))
          throw new InvalidArgumentError('It is not a map of names, such as {question: problem, answer: solution}.')
        return value
      },
    ),
  )
