import { OptionError } from '../errors.ts'
import { LOG_ZERO } from '../log-zero.ts'
import { shown } from '../options.ts'

/** How the next token is drawn; names and meanings as in transformers' GenerationConfig. */
export interface SamplingOptions {
  /** 0 to 100; 0 is greedy. Default for all of these: generation_config.json where it samples, else greedy. */
  readonly temperature?: number
  /** The k likeliest tokens; 0 keeps all. */
  readonly topK?: number
  /** 0 to 1: the likeliest tokens of this mass; 1 keeps all. */
  readonly topP?: number
  /** 0 to 1: tokens of at least this share of the likeliest one's probability; 0 keeps all. */
  readonly minP?: number
  /** 0.001 to 1000; 1 is off; logits of seen tokens are divided (positive) or multiplied (negative) by it. */
  readonly repetitionPenalty?: number
  /** -100 to 100, subtracted once for every occurrence in the answer so far. */
  readonly frequencyPenalty?: number
  /** -100 to 100, subtracted from every token that the answer holds already. */
  readonly presencePenalty?: number
  /** Added to logits by token id; -Infinity bans. */
  readonly logitBias?: Readonly<Record<number, number>>
  /** 32-bit; the same seed gives the same answer on the same target. Default: another one at each call. */
  readonly seed?: number
}

/** Those that are a number each. */
export const samplingNumbers = [
  'temperature',
  'topK',
  'topP',
  'minP',
  'repetitionPenalty',
  'frequencyPenalty',
  'presencePenalty',
  'seed',
] as const satisfies (keyof SamplingOptions)[]

export type Sampling = Required<SamplingOptions>

/** Fills in what is missing from the model's generation_config.json, then from transformers' defaults. Throws OptionError. */
export function resolveSampling(options: SamplingOptions, generationConfig: Record<string, unknown>): Sampling {
  const from = (key: string): number | undefined => {
    const value = generationConfig[key]
    return typeof value === 'number' ? value : undefined
  }
  const samples = generationConfig.do_sample === true
  const sampling: Sampling = {
    temperature: options.temperature ?? (samples ? (from('temperature') ?? 1) : 0),
    topK: options.topK ?? (samples ? (from('top_k') ?? 0) : 0),
    topP: options.topP ?? (samples ? (from('top_p') ?? 1) : 1),
    minP: options.minP ?? (samples ? (from('min_p') ?? 0) : 0),
    repetitionPenalty: options.repetitionPenalty ?? from('repetition_penalty') ?? 1,
    frequencyPenalty: options.frequencyPenalty ?? 0,
    presencePenalty: options.presencePenalty ?? 0,
    logitBias: options.logitBias ?? {},
    seed: options.seed ?? Math.floor(Math.random() * 2 ** 32),
  }
  const range = (name: keyof Sampling, low: number, high: number) => {
    const value = sampling[name]
    if (!(typeof value === 'number' && value >= low && value <= high))
      throw new OptionError(`${name}: ${shown(value)} is not within ${low} and ${high}`)
  }
  range('temperature', 0, 100)
  range('topK', 0, 2 ** 31 - 1)
  range('topP', 0, 1)
  range('minP', 0, 1)
  range('repetitionPenalty', 1e-3, 1000)
  range('frequencyPenalty', -100, 100)
  range('presencePenalty', -100, 100)
  range('seed', 0, 2 ** 32 - 1)
  for (const name of ['topK', 'seed'] as const)
    if (!Number.isInteger(sampling[name])) throw new OptionError(`${name}: ${sampling[name]} is not an integer`)
  return sampling
}

/** Whether tokens that were seen already are penalized. */
export const hasPenalties = ({ repetitionPenalty, frequencyPenalty, presencePenalty }: Sampling): boolean =>
  repetitionPenalty !== 1 || frequencyPenalty !== 0 || presencePenalty !== 0

/** Added to one logit. */
export interface Edit {
  readonly id: number
  readonly bias: number
}

/** The biases of one sequence, by ascending id. */
export const logitEdits = ({ logitBias }: Sampling): Edit[] =>
  Object.entries(logitBias)
    .map(([id, bias]) => ({ id: Number(id), bias: Math.max(bias, LOG_ZERO) }))
    .sort((a, b) => a.id - b.id)

/** Kernels trust their inputs: nothing unchecked may reach them. Throws OptionError naming the index and the id. */
export function checkTokenIds(ids: readonly number[], vocabSize: number, what: string): void {
  if (!Array.isArray(ids)) throw new OptionError(`${what}: wanted a list of token ids, got ${shown(ids)}`)
  const wrong = ids.findIndex((id) => !Number.isInteger(id) || id < 0 || id >= vocabSize)
  if (wrong >= 0)
    throw new OptionError(`${what}: token ${wrong} is ${ids[wrong]}, the vocabulary has ids 0 to ${vocabSize - 1}`)
}
