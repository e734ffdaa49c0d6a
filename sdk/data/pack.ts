import type { Example } from './tokenize.ts'

/** A micro-batch as one packed sequence: N tokens of all examples in a row, R scored rows; padded to buckets. */
export interface PackedBatch {
  /** [N]; padding is 0. */
  readonly ids: Int32Array
  /** [N]; from 0 in each example; padding is 0. */
  readonly positions: Int32Array
  /** [N]; index at which the token's example begins: attention looks back no further. A padding token is its own. */
  readonly starts: Int32Array
  /** [R]; index of the hidden state that predicts the target, the token before it; padding is -1. */
  readonly rows: Int32Array
  /** [R]; token ids; padding is -1. */
  readonly targets: Int32Array
  /** Tokens that are no padding. */
  readonly tokens: number
  /** Scored rows that are no padding: they come first, in the order of the examples. */
  readonly scored: number
}

/**
 * The next length of 16, 32, 48, 64, then x1.5 and x1.33 in turn up to 512, then quarters of a power of two: Programs
 * are compiled for few lengths. Multiples of 16.
 */
export function bucketLength(n: number): number {
  if (n <= 16) return 16
  const power = 2 ** Math.floor(Math.log2(n - 1)) // power < n <= 2 * power
  const step = Math.max(16, power / (power < 512 ? 2 : 4))
  return Math.ceil(n / step) * step
}

/** The lengths of buckets between two lengths. */
export function* bucketLengths(from: number, to: number): Iterable<number> {
  for (let n = bucketLength(from); n <= to; n = bucketLength(n + 1)) yield n
}

/** Concatenates examples. `bucket`: the padded length for N tokens or R scored rows. */
export function packBatch(
  examples: readonly Pick<Example, 'inputIds' | 'labels'>[],
  bucket: (n: number) => number = bucketLength,
): PackedBatch {
  const tokens = examples.reduce((sum, e) => sum + e.inputIds.length, 0)
  const scored = examples.reduce((sum, e) => sum + scoredTokens(e), 0)
  const [n, r] = [bucket(tokens), bucket(scored)]
  const [ids, positions] = [new Int32Array(n), new Int32Array(n)]
  const starts = Int32Array.from({ length: n }, (_, i) => i)
  const [rows, targets] = [new Int32Array(r).fill(-1), new Int32Array(r).fill(-1)]
  let [start, row] = [0, 0]
  for (const { inputIds, labels } of examples) {
    ids.set(inputIds, start)
    for (let t = 0; t < inputIds.length; t++) {
      positions[start + t] = t
      starts[start + t] = start
      if (t === 0 || labels[t] === notScored) continue
      rows[row] = start + t - 1
      targets[row++] = labels[t]
    }
    start += inputIds.length
  }
  return { ids, positions, starts, rows, targets, tokens, scored }
}

/** Its first tokens. */
export const truncated = (example: Example, length: number): Example => ({
  ...example,
  inputIds: example.inputIds.slice(0, length),
  labels: example.labels.slice(0, length),
})

/** The label of a token that is not scored. */
export const notScored = -100

/** Tokens of an example that are scored: the first has nothing before it that could predict it. */
export function scoredTokens({ labels }: Pick<Example, 'labels'>): number {
  let scored = 0
  for (let t = 1; t < labels.length; t++) if (labels[t] !== notScored) scored++
  return scored
}

/**
 * TRL's `packing` with its strategy "bfd": examples by descending length (stable), each into the bin with the least
 * space that still holds it. Each bin has at most `maxLength` tokens; longer examples are truncated to it. A bin stays
 * a list of examples, between which there is no attention. TRL packs a data set in blocks of 1000 rows; here all
 * examples given are packed together.
 */
export function packBins(examples: readonly Example[], maxLength: number): Example[][] {
  const bySpace: Example[][][] = Array.from({ length: maxLength + 1 }, () => [])
  const bins: Example[][] = []
  const sorted = examples
    .filter((e) => e.inputIds.length > 0)
    .map((e) => (e.inputIds.length > maxLength ? truncated(e, maxLength) : e))
    .sort((a, b) => b.inputIds.length - a.inputIds.length)
  for (const example of sorted) {
    const length = example.inputIds.length
    let space = length
    while (space < maxLength && bySpace[space].length === 0) space++
    let bin = space < maxLength ? bySpace[space].shift() : undefined
    if (!bin) {
      bin = []
      bins.push(bin)
    }
    bin.push(example)
    if (space > length) bySpace[space - length].push(bin)
  }
  return bins
}
