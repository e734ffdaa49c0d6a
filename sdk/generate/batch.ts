import { OptionError } from '../errors.ts'
import { survivingPieces } from '../model/lost.ts'
import { checkPrecision, type Precision } from '../model/precision.ts'
import { shown } from '../options.ts'
import { type Completion, joined } from './answer.ts'
import type { LanguageModel } from './language-model.ts'
import { checkGenerateOptions, type GenerateOptions, type Request, requestsOf } from './request.ts'
import { type Row, Scheduler } from './scheduler.ts'

/** What `generateBatch` takes. The precision's default is the model's (`loadModel`). */
export interface BatchOptions extends GenerateOptions, Precision {
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

/**
 * Continues many prompts (token ids) side by side: a row leaves when it ends, and the next one takes its slot. Completions come
 * in the order in which they end. Each is the same whatever else is in the batch, but for last bits.
 *
 * @throws ContextError for a prompt that fills the context, OptionError for an empty one or options out of range
 */
export async function* generateBatch(
  lm: LanguageModel,
  prompts: readonly (readonly number[])[],
  options: BatchOptions = {},
): AsyncGenerator<BatchCompletion, void> {
  checkGenerateOptions(options, ['slots', 'numReturnSequences', 'cacheDType', 'exactActivations'])
  checkPrecision(options)
  const { slots = 16, numReturnSequences: each = 1 } = options
  if (!(Number.isInteger(each) && each >= 1))
    throw new OptionError(`numReturnSequences: ${shown(each)} is not a positive integer`)
  if (!(Number.isInteger(slots) && slots >= 1))
    throw new OptionError(`slots: ${shown(slots)} is not a positive integer`)
  if (!Array.isArray(prompts))
    throw new OptionError(`prompts: wanted a list of lists of token ids, got ${shown(prompts)}`)
  const { cacheDType = lm.precision.cacheDType, exactActivations = lm.precision.exactActivations } = options
  const precision = { cacheDType, exactActivations }
  const requests = requestsOf(lm, prompts, options, { each })
  if (requests.length > 0)
    yield* survivingPieces(lm.model, () => runBatch(lm, requests, Math.min(slots, requests.length), precision))
}

async function* runBatch(
  lm: LanguageModel,
  requests: readonly Request[],
  slots: number,
  precision: Precision,
): AsyncGenerator<BatchCompletion, void> {
  const scheduler = new Scheduler(lm, slots, precision)
  try {
    await scheduler.reserve(Math.max(...requests.map(({ promptIds, budget }) => promptIds.length + budget)))
    const open = new Set<Row>(requests.map((request) => scheduler.add(request)))
    while (open.size > 0) {
      await scheduler.advance()
      for (const row of open) {
        if (row.failure) throw row.failure.error
        if (!row.answer.finishReason) continue
        open.delete(row)
        const [index, sample] = row.stream
        yield { index, sample, ...joined(row.pieces) }
      }
    }
  } finally {
    scheduler.close()
  }
}
