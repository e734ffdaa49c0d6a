import { ContextError, OptionError } from '../errors.ts'
import { checkKeys, shown } from '../options.ts'
import type { LanguageModel } from './language-model.ts'
import { checkTokenIds, resolveSampling, type Sampling, type SamplingOptions, samplingNumbers } from './sampling.ts'

/** What `generate` takes. */
export interface GenerateOptions extends SamplingOptions {
  /**
   * At most so many tokens, 1 or more; cut to what the context leaves. Default: generation_config.json's, then all that the context
   * leaves, in batches 256.
   */
  readonly maxNewTokens?: number
  /** Text at which the answer ends; it is not part of the answer. */
  readonly stop?: readonly string[]
  /** So many of the likeliest tokens with each token, 0 (default) to 64: `top` of the pieces. */
  readonly topLogProbs?: number
  /** One of the adapters that `setAdaptersByRow` made ready; default: none of them. */
  readonly adapter?: string
  /** Checked between the nodes of a step that is this answer's alone, else after each run; the iteration throws the signal's reason. */
  readonly signal?: AbortSignal
}

/** One answer that is asked for, checked. */
export interface Request {
  readonly promptIds: readonly number[]
  readonly sampling: Sampling
  /** Distinguishes samples of one seed: (prompt, sample). */
  readonly stream: readonly [prompt: number, sample: number]
  /** Tokens of the answer at most. */
  readonly budget: number
  /** The tokens that the answer begins with already, at the end of the prompt: its text goes on from theirs. */
  readonly prefix: readonly number[]
  readonly stop: readonly string[]
  readonly topLogProbs: number
  readonly adapter?: string
  readonly signal?: AbortSignal
  /** Somebody waits for each piece. */
  readonly isRead: boolean
}

/** Throws OptionError for an option of an unknown name, or of the wrong kind. */
export function checkGenerateOptions(options: GenerateOptions, more: readonly string[] = []): void {
  checkKeys(
    options,
    [...samplingNumbers, 'logitBias', 'maxNewTokens', 'stop', 'topLogProbs', 'adapter', 'signal', ...more],
    'options',
  )
  const { stop = [], signal } = options
  if (!(Array.isArray(stop) && stop.every((text) => typeof text === 'string')))
    throw new OptionError('stop: wanted a list of strings')
  if (signal !== undefined && !(signal instanceof AbortSignal))
    throw new OptionError(`signal: wanted an AbortSignal, got ${shown(signal)}`)
}

/** Tokens of an answer in a batch at most, where nothing says otherwise: all slots make room for them beforehand. */
export const batchTokens = 256

/**
 * What these options ask of each prompt, every one answered `each` times; `isRead`: somebody waits for the pieces. All draw from
 * one seed.
 *
 * @throws ContextError for a prompt that fills the context, OptionError for an empty one, an unknown adapter or options out of range
 */
export function requestsOf(
  lm: LanguageModel,
  prompts: readonly (readonly number[])[],
  options: GenerateOptions,
  { each = 1, isRead = false, prefix = [] }: { each?: number; isRead?: boolean; prefix?: readonly number[] } = {},
): Request[] {
  if (lm.isClosed) throw new OptionError('this model is closed: load it again')
  const { maxPositionEmbeddings: room, vocabSize } = lm.model.config
  const { stop = [], topLogProbs = 0, adapter, signal } = options
  checkTokenIds(Object.keys(options.logitBias ?? {}).map(Number), vocabSize, 'logitBias')
  if (!(Number.isInteger(topLogProbs) && topLogProbs >= 0 && topLogProbs <= Math.min(64, vocabSize)))
    throw new OptionError(`topLogProbs: ${topLogProbs} is not an integer from 0 to ${Math.min(64, vocabSize)}`)
  const ready = lm.model.adaptersByRow
  if (adapter !== undefined && !ready.includes(adapter))
    throw new OptionError(
      `adapter: ${shown(adapter)} is not ready for single answers (setAdaptersByRow made ready: ${ready.join(', ') || 'none'})`,
    )
  const sampling = resolveSampling(options, lm.generationConfig)
  const maxNewTokens = lm.maxNewTokens(options) ?? (isRead ? room : batchTokens)
  return prompts.flatMap((promptIds, prompt) => {
    const what = prompts.length > 1 || !isRead ? `prompt ${prompt}` : 'prompt'
    checkTokenIds(promptIds, vocabSize, what)
    if (promptIds.length === 0) throw new OptionError(`${what}: it has no tokens`)
    if (promptIds.length >= room)
      throw new ContextError(
        `${what}: ${promptIds.length} tokens, the model's context takes 1 to ${room - 1} (shorten it, or use contextOverflow: 'dropOldest' in a chat)`,
      )
    const budget = Math.min(maxNewTokens, room - promptIds.length)
    return Array.from({ length: each }, (_, sample): Request => {
      const stream = [prompt, sample] as const
      return { promptIds, sampling, stream, budget, prefix, stop, topLogProbs, adapter, signal, isRead }
    })
  })
}
