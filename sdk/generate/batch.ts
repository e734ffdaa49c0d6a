import { ContextError, OptionError } from '../errors.ts'
import { shown } from '../options.ts'
import { KeyValueCache } from './cache.ts'
import { copySlots, decode, feed, type Sequence, type SlotCopy } from './engine.ts'
import {
  type Completion,
  checkGenerateOptions,
  type FinishReason,
  type GenerateOptions,
  type LanguageModel,
} from './language-model.ts'
import { checkTokenIds, resolveSampling } from './sampling.ts'

/** What `generateBatch` takes. */
export interface BatchOptions extends GenerateOptions {
  /** Sequences decoded side by side, 1 or more; default 16. Each has its own key/value cache. */
  readonly slots?: number
  /** Answers to each prompt, which is computed once for all of them; default 1. */
  readonly numReturnSequences?: number
}

/** A completion, and what it completes: the prompt's index, and which of its answers this is. */
export interface BatchCompletion extends Completion {
  readonly index: number
  readonly sample: number
}

interface Running extends Sequence {
  readonly index: number
  readonly sample: number
  readonly tokenIds: number[]
  readonly logProbs: number[]
  readonly budget: number
}

/**
 * Continues many prompts (token ids) side by side: a row leaves when it ends, and the next one takes its slot. Completions come
 * in the order in which they end. Each is the same whatever else is in the batch, but for last bits.
 *
 * @throws ContextError for a prompt that is empty or fills the context, OptionError for options out of range
 */
export async function* generateBatch(
  lm: LanguageModel,
  prompts: readonly (readonly number[])[],
  options: BatchOptions = {},
): AsyncGenerator<BatchCompletion, void> {
  checkGenerateOptions(options, ['slots', 'numReturnSequences', 'tools', 'contextOverflow', 'templateOptions'])
  const { slots: most = 16, numReturnSequences: each = 1 } = options
  if (!(Number.isInteger(each) && each >= 1))
    throw new OptionError(`numReturnSequences: ${shown(each)} is not a positive integer`)
  if (!(Number.isInteger(most) && most >= 1)) throw new OptionError(`slots: ${shown(most)} is not a positive integer`)
  if (!Array.isArray(prompts))
    throw new OptionError(`prompts: wanted a list of lists of token ids, got ${shown(prompts)}`)
  const total = prompts.length * each
  const slots = Math.max(1, Math.min(most, total))
  const room = lm.model.config.maxPositionEmbeddings
  const { vocabSize } = lm.model.config
  checkTokenIds(Object.keys(options.logitBias ?? {}).map(Number), vocabSize, 'logitBias')
  prompts.forEach((ids, i) => {
    checkTokenIds(ids, vocabSize, `prompt ${i}`)
    if (ids.length === 0 || ids.length >= room)
      throw new ContextError(`prompt ${i}: ${ids.length} tokens, the model's context takes 1 to ${room - 1}`)
  })
  const sampling = resolveSampling(options, lm.generationConfig)
  const maxNewTokens = lm.maxNewTokens(options)
  const cache = new KeyValueCache(lm.model, slots)
  try {
    const longest = Math.max(0, ...prompts.map((ids) => ids.length))
    await cache.reserve(Math.min(longest + maxNewTokens, room))
    const free = Array.from({ length: slots }, (_, i) => slots - 1 - i)
    /** The prompt whose keys and values a slot begins with. */
    const holds = new Array<number>(slots).fill(-1)
    let running: Running[] = []
    let started = 0
    const finish = (s: Running): FinishReason | null => {
      if (lm.eosTokenIds.has(s.tokenIds.at(-1)!)) return 'stop'
      if (options.stop && options.stop.length > 0) {
        const text = lm.tokenizer.decode(s.tokenIds, { skipSpecialTokens: true })
        if (options.stop.some((stop) => text.includes(stop))) return 'stop'
      }
      return s.tokenIds.length >= s.budget ? 'length' : null
    }
    while (started < total || running.length > 0) {
      const copies: SlotCopy[] = []
      for (; started < total && free.length > 0; started++) {
        const [index, sample] = [Math.floor(started / each), started % each]
        const ids = prompts[index]
        const s: Running = {
          index,
          sample,
          slot: free.pop()!,
          sampling,
          stream: [index, sample],
          cached: 0,
          seen: new Set(ids),
          counts: new Map(),
          tokenIds: [],
          logProbs: [],
          budget: Math.min(maxNewTokens, room - ids.length),
        }
        // The last token is fed with the first step: what comes after it is drawn anew for each answer.
        const length = ids.length - 1
        const from = holds.indexOf(index)
        if (from < 0) {
          await feed(lm.model, cache, s, ids.slice(0, length), options.signal)
          lm.prefilledTokens += length
        } else if (holds[s.slot] !== index) copies.push({ from, to: s.slot, length })
        s.cached = length
        holds[s.slot] = index
        running.push(s)
      }
      await copySlots(lm.model, cache, copies)
      const last = running.map((s) => s.tokenIds.at(-1) ?? prompts[s.index].at(-1)!)
      const next = await decode(lm.model, cache, running, last, options.signal)
      running.forEach((s, i) => {
        record(s, next[i])
      })
      const ended = running.map((s) => [s, finish(s)] as const)
      running = running.filter((_, i) => ended[i][1] === null)
      for (const [s, finishReason] of ended) {
        if (finishReason === null) continue
        free.push(s.slot)
        const { index, sample, tokenIds, logProbs } = s
        yield { index, sample, tokenIds, logProbs, finishReason, text: textOf(lm, s, options) }
      }
    }
  } finally {
    cache.free()
  }
}

function record(s: Running, sampled: { id: number; logProb: number }): void {
  s.tokenIds.push(sampled.id)
  s.logProbs.push(sampled.logProb)
  s.seen.add(sampled.id)
  s.counts.set(sampled.id, (s.counts.get(sampled.id) ?? 0) + 1)
}

function textOf(lm: LanguageModel, s: Running, { stop = [] }: BatchOptions): string {
  const text = lm.tokenizer.decode(s.tokenIds, { skipSpecialTokens: true })
  const cuts = stop.map((at) => text.indexOf(at)).filter((at) => at >= 0)
  return cuts.length > 0 ? text.slice(0, Math.min(...cuts)) : text
}
