import { generateBatch } from './batch.ts'
import type { LanguageModel } from './language-model.ts'
import type { SamplingOptions } from './sampling.ts'

/** What `rollout` takes: samples are drawn from the full distribution unless topK, topP or minP say otherwise. */
export interface RolloutOptions
  extends Pick<SamplingOptions, 'temperature' | 'topK' | 'topP' | 'minP' | 'repetitionPenalty'> {
  /** Completions of each prompt; default 8. */
  readonly numGenerations?: number
  /** Tokens of a completion at most; default 512. */
  readonly maxCompletionLength?: number
  /** Sequences decoded side by side; default: as many as there are, at most 64. */
  readonly slots?: number
  /** Default true: the sampler's log-probabilities are the trainer's. */
  readonly exactActivations?: boolean
  readonly seed: number
  readonly signal?: AbortSignal
  /** Told of completions that ended, and tokens drawn. */
  readonly onProgress?: (done: number, tokens: number) => void
}

/** A completion as it was drawn. */
export interface Rollout {
  /** Index of its prompt, and which of the prompt's completions it is. */
  readonly prompt: number
  readonly sample: number
  readonly promptIds: readonly number[]
  /** As drawn, never tokenized again; with the end token. */
  readonly tokenIds: readonly number[]
  /** Of each token under the full softmax at the sampling temperature. */
  readonly logProbs: readonly number[]
  /** Without special tokens. */
  readonly text: string
  /** maxCompletionLength or the context came before the end token. */
  readonly truncated: boolean
}

/**
 * Draws `numGenerations` completions of each prompt (token ids) as one batch, in the order of prompts and samples. A prompt is
 * computed once. The same seed gives the same completions on the same target, whatever the number of threads.
 *
 * @throws ContextError for a prompt that fills the context, OptionError for an empty one or options out of range
 */
export async function rollout(
  lm: LanguageModel,
  prompts: readonly (readonly number[])[],
  options: RolloutOptions,
): Promise<Rollout[]> {
  const { numGenerations = 8, maxCompletionLength = 512, temperature = 1, topK = 0, topP = 1, minP = 0 } = options
  const { repetitionPenalty = 1, seed, signal, onProgress } = options
  const total = prompts.length * numGenerations
  const rollouts = new Array<Rollout>(total)
  let [done, tokens] = [0, 0]
  const batch = generateBatch(lm, prompts, {
    ...{ temperature, topK, topP, minP, repetitionPenalty, seed, signal },
    maxNewTokens: maxCompletionLength,
    numReturnSequences: numGenerations,
    slots: options.slots ?? Math.min(64, Math.max(1, total)),
    // The sampler's log-probabilities are to be the trainer's.
    ...{ cacheDType: 'f32', exactActivations: options.exactActivations ?? true },
  })
  for await (const { index, sample, text, tokenIds, logProbs, finishReason } of batch) {
    const promptIds = prompts[index]
    const truncated = finishReason === 'length'
    rollouts[index * numGenerations + sample] = {
      prompt: index,
      sample,
      promptIds,
      tokenIds,
      logProbs,
      text,
      truncated,
    }
    done++
    tokens += tokenIds.length
    onProgress?.(done, tokens)
  }
  return rollouts
}
