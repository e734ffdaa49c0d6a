import { OptionError } from '../errors.ts'
import type { RewardFunction } from './reward.ts'

/** Of words: the share of repeated n-grams times `penalty` (arXiv 2502.03373). */
export interface RepetitionOptions {
  /** Words of an n-gram; default 3. */
  readonly ngram?: number
  /** What all but one n-gram repeated would cost; default -1. */
  readonly penalty?: number
}

/** 0 without repetition, towards `penalty` when everything is the same n-gram. */
export function repetitionPenalty({ ngram = 3, penalty = -1 }: RepetitionOptions = {}): RewardFunction {
  if (!(Number.isInteger(ngram) && ngram > 0)) throw new OptionError(`ngram: ${ngram} is not a positive integer`)
  if (!(penalty <= 0)) throw new OptionError(`penalty: ${penalty} is above 0`)
  return function repetitionPenalty(completions) {
    return completions.map(({ completion }) => {
      const words = completion.toLowerCase().split(/\s+/).filter(Boolean)
      const total = words.length - ngram + 1
      if (total <= 0) return 0
      const distinct = new Set(Array.from({ length: total }, (_, i) => words.slice(i, i + ngram).join(' ')))
      return distinct.size === total ? 0 : penalty * (1 - distinct.size / total)
    })
  }
}
