/** A mean over items, and how far it may be off: sqrt(variance / n), for yes and no sqrt(p (1 - p) / n). */
export interface Estimate {
  readonly mean: number
  readonly standardError: number
}

export function estimate(values: readonly number[]): Estimate {
  const n = values.length
  const mean = values.reduce((sum, x) => sum + x, 0) / n
  const variance = values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / n
  return { mean, standardError: Math.sqrt(variance / n) }
}

/**
 * How much larger the second perplexity is, in percent: from log-probabilities of the same tokens, window by window, so that what is hard
 * in the text cancels. The standard error is that of a ratio of sums over windows.
 */
export function perplexityChange(first: readonly ArrayLike<number>[], second: readonly ArrayLike<number>[]): Estimate {
  const sum = (values: ArrayLike<number>) => Array.from(values).reduce((a, b) => a + b, 0)
  const lost = first.map((window, i) => sum(window) - sum(second[i]))
  const tokens = sum(first.map(({ length }) => length))
  const mean = sum(lost) / tokens
  const spread = sum(first.map(({ length }, i) => (lost[i] - mean * length) ** 2))
  const ratio = Math.exp(mean)
  return { mean: 100 * (ratio - 1), standardError: (100 * ratio * Math.sqrt(spread)) / tokens }
}

/** The chance that of k answers, drawn from n of which `correct` are right, one is right: unbiased (arXiv 2107.03374). */
export function passAtK(n: number, correct: number, k: number): number {
  let noneRight = 1
  for (let i = 0; i < k; i++) noneRight *= Math.max(0, n - correct - i) / (n - i)
  return 1 - noneRight
}

/** McNemar's exact test, two-sided: the chance of so uneven a split, or a more uneven one, if both ways were as likely. */
export function mcNemar(oneWay: number, otherWay: number): number {
  const n = oneWay + otherWay
  const fewer = Math.min(oneWay, otherWay)
  // The logarithm of (n choose i) / 2^n.
  let term = -n * Math.LN2
  let tail = 0
  for (let i = 0; i <= fewer; i++) {
    tail += Math.exp(term)
    term += Math.log((n - i) / (i + 1))
  }
  return Math.min(1, 2 * tail)
}
