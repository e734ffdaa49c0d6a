import { ContextError, OptionError } from '../errors.ts'
import { shown } from '../options.ts'
import { KeyValueCache } from './cache.ts'
import { decode, prefill, type Sequence } from './engine.ts'
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
}

interface Running extends Sequence {
  readonly index: number
  readonly tokenIds: number[]
  readonly logProbs: number[]
  readonly budget: number
}

/**
 * Continues many prompts (token ids) side by side: a row leaves when it ends, and the next prompt takes its slot.
 * Completions come in the order in which they end; `index` is the prompt's. Each is the same whatever else is in the batch, but
 * for last bits.
 *
 * @throws ContextError for a prompt that is empty or fills the context, OptionError for options out of range
 */
export async function* generateBatch(
  lm: LanguageModel,
  prompts: readonly (readonly number[])[],
  options: BatchOptions = {},
): AsyncGenerator<Completion & { readonly index: number }, void> {
  checkGenerateOptions(options, ['slots'])
  const { slots: most = 16 } = options
  if (!(Number.isInteger(most) && most >= 1)) throw new OptionError(`slots: ${shown(most)} is not a positive integer`)
  if (!Array.isArray(prompts))
    throw new OptionError(`prompts: wanted a list of lists of token ids, got ${shown(prompts)}`)
  const slots = Math.max(1, Math.min(most, prompts.length))
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
    let running: Running[] = []
    let waiting = 0
    const finish = (s: Running): FinishReason | null => {
      if (lm.eosTokenIds.has(s.tokenIds.at(-1)!)) return 'stop'
      if (options.stop && options.stop.length > 0) {
        const text = lm.tokenizer.decode(s.tokenIds, { skipSpecialTokens: true })
        if (options.stop.some((stop) => text.includes(stop))) return 'stop'
      }
      return s.tokenIds.length >= s.budget ? 'length' : null
    }
    while (waiting < prompts.length || running.length > 0) {
      const fresh: Running[] = []
      while (waiting < prompts.length && free.length > 0) {
        const ids = prompts[waiting]
        const s: Running = {
          index: waiting,
          slot: free.pop()!,
          sampling,
          stream: [waiting, 0],
          cached: 0,
          seen: new Set(ids),
          counts: new Map(),
          tokenIds: [],
          logProbs: [],
          budget: Math.min(maxNewTokens, room - ids.length),
        }
        record(s, await prefill(lm.model, cache, s, ids, options.signal))
        fresh.push(s)
        waiting++
      }
      if (running.length > 0) {
        const last = running.map((s) => s.tokenIds.at(-1)!)
        const next = await decode(lm.model, cache, running, last, options.signal)
        running.forEach((s, i) => {
          record(s, next[i])
        })
      }
      running.push(...fresh)
      const ended = running.map((s) => [s, finish(s)] as const)
      running = running.filter((_, i) => ended[i][1] === null)
      for (const [s, finishReason] of ended) {
        if (finishReason === null) continue
        free.push(s.slot)
        yield { index: s.index, tokenIds: s.tokenIds, logProbs: s.logProbs, finishReason, text: textOf(lm, s, options) }
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
