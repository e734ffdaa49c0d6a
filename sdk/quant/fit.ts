import { type FloatDType, storedTypes } from '../dtype.ts'
import { fromFloats } from './convert.ts'
import { halfToNumber, numberToHalf, writeHalf } from './float16.ts'

// Blocks of 4 bits for files: scale and minimum are searched for the least squared error, weighted by |x| + the block's root mean square
// (large weights matter more). Never worse than plain rounding (blocks.ts), and numbers that lie on a grid of the type come back as they
// are. q8 stays as ggml rounds it: a search changed its error by less than 1% and its bytes.

const blockSize = storedTypes.q4.elements
const downFrom = (n: number): number[] => Array.from({ length: n }, (_, i) => n - i)

/**
 * A block's numbers are integers from `low` to `high` times a scale, plus a minimum where it has one. `grids` and `tried` are how many
 * scales may lie between 0 and the number farthest from it, or between the least and the largest; plain rounding's first.
 */
const blockTypes = {
  q4: {
    low: -8,
    high: 7,
    hasMinimum: false,
    grids: [...downFrom(8).map((n) => -n), ...downFrom(7)],
    tried: [-8, -7, -7.5, -8.5, -9],
  },
  q4a: { low: 0, high: 15, hasMinimum: true, grids: downFrom(15), tried: [15, 13, 14, 16, 17] },
}
type BlockType = (typeof blockTypes)[keyof typeof blockTypes]

/** As `fromFloats`, but the blocks of 4 bits get the scales that suit their numbers best. */
export function fittedFloats(floats: Float32Array, dtype: FloatDType): Uint8Array {
  if (dtype !== 'q4' && dtype !== 'q4a') return fromFloats(floats, dtype)
  const { bytes: blockBytes } = storedTypes[dtype]
  const fit = new BlockFit(dtype)
  const bytes = new Uint8Array((floats.length / blockSize) * blockBytes)
  for (let start = 0, at = 0; start < floats.length; start += blockSize, at += blockBytes) {
    fit.search(floats.subarray(start, start + blockSize))
    fit.writeHead(bytes, at)
    for (let i = 0; i < blockSize; i++) fit.write(bytes, at, i, fit.integer(floats[start + i]))
  }
  return bytes
}

/** Fits one block after the other. */
export class BlockFit {
  private readonly type: BlockType
  private readonly x = new Float64Array(blockSize)
  private readonly weight = new Float64Array(blockSize)
  private weights = 0
  private weightedX = 0
  /** The best so far. All scales and minima here are f16's numbers. */
  scale = 0
  minimum = 0
  private error = 0
  /** What suits the integers that `measure` found best, and its error but for a constant. */
  private next = { scale: 0, minimum: 0, error: 0 }

  constructor(dtype: keyof typeof blockTypes) {
    this.type = blockTypes[dtype]
  }

  /** Finds the scale, and minimum, of a block. Its errors are weighted by `weights`, else by |x| + the root mean square. */
  search(floats: ArrayLike<number>, weights?: ArrayLike<number>): void {
    const { x, weight } = this
    const { high, hasMinimum, tried } = this.type
    let [least, most, squares] = [floats[0], floats[0], 0]
    for (let i = 0; i < blockSize; i++) {
      x[i] = floats[i]
      if (x[i] < least) least = x[i]
      if (x[i] > most) most = x[i]
      squares += x[i] * x[i]
    }
    const rms = Math.sqrt(squares / blockSize)
    this.weights = 0
    this.weightedX = 0
    for (let i = 0; i < blockSize; i++) {
      weight[i] = weights?.[i] ?? rms + Math.abs(x[i])
      this.weights += weight[i]
      this.weightedX += weight[i] * x[i]
    }
    const farthest = -least > most ? least : most
    const reach = hasMinimum ? most - least : farthest
    const origin = hasMinimum ? least : 0
    this.scale = half(reach / tried[0])
    this.minimum = half(origin)
    this.error = Number.POSITIVE_INFINITY
    this.measure(this.scale, this.minimum)
    // No numbers, or too large for f16: whoever looks at what is lost sees it.
    if (!Number.isFinite(this.error)) return
    if (this.error > 0) this.tryGrids(reach, origin)
    if (this.error === 0) return
    let best = { scale: 0, minimum: 0, error: Number.POSITIVE_INFINITY }
    for (const steps of tried) {
      const scale = reach / steps
      // A reach of more or less than the grid's is shared by both ends.
      this.measure(half(scale), hasMinimum ? half((least + most - high * scale) / 2) : 0)
      if (this.next.error < best.error) best = { ...this.next }
    }
    for (let refit = 0; refit < 2; refit++) {
      this.measure(best.scale, best.minimum)
      best = { ...this.next }
    }
  }

  /** Tries the scales of which all numbers are multiples, counted from the origin. */
  private tryGrids(reach: number, origin: number): void {
    const { high, hasMinimum, grids } = this.type
    for (const steps of grids) {
      if (!this.isGrid(steps / reach, origin)) continue
      const scale = half(reach / steps)
      // The least number need not be the minimum.
      for (let least = 0; least <= (hasMinimum ? high - steps : 0); least++)
        this.measure(scale, half(origin - least * scale))
      if (this.error === 0) return
    }
  }

  private isGrid(inverse: number, origin: number): boolean {
    for (let i = 0; i < blockSize; i++) {
      const q = (this.x[i] - origin) * inverse
      if (Math.abs(q - Math.floor(q + 0.5)) > 1e-3) return false
    }
    return true
  }

  /** Takes these two where they are better than what there is, and finds the next two. */
  private measure(scale: number, minimum: number): void {
    const { x, weight, weights, weightedX, next } = this
    const { low, high, hasMinimum } = this.type
    const inverse = scale === 0 ? 0 : 1 / scale
    let [error, sumQ, sumQQ, sumXQ] = [0, 0, 0, 0]
    for (let i = 0; i < blockSize; i++) {
      const rounded = Math.floor((x[i] - minimum) * inverse + 0.5)
      const q = rounded < low ? low : rounded > high ? high : rounded
      const lost = x[i] - Math.fround(scale * q + minimum)
      const weightedQ = weight[i] * q
      error += weight[i] * lost * lost
      sumQ += weightedQ
      sumQQ += weightedQ * q
      sumXQ += weightedQ * x[i]
    }
    if (error < this.error) {
      this.error = error
      this.scale = scale
      this.minimum = minimum
    }
    // Least squares, for a minimum of 0 or a free one; the second with the first as it is in f16.
    const spread = hasMinimum ? weights * sumQQ - sumQ * sumQ : sumQQ
    const d = spread > 0 ? half((hasMinimum ? weights * sumXQ - weightedX * sumQ : sumXQ) / spread) : 0
    const m = hasMinimum ? half((weightedX - d * sumQ) / weights) : 0
    next.scale = d
    next.minimum = m
    next.error = d * d * sumQQ + m * m * weights + 2 * (d * m * sumQ - d * sumXQ - m * weightedX)
  }

  /** What a number becomes: the integer, and the number that it stands for. */
  integer(x: number): number {
    const { low, high } = this.type
    const q = this.scale === 0 ? 0 : Math.floor((x - this.minimum) * (1 / this.scale) + 0.5)
    return q < low ? low : q > high ? high : q
  }

  value(integer: number): number {
    return Math.fround(this.scale * integer + this.minimum)
  }

  /** Writes scale and minimum of the block that begins at a byte, and number i of it, which is 0 so far. */
  writeHead(bytes: Uint8Array, at: number): void {
    writeHalf(bytes, at, numberToHalf(this.scale))
    if (this.type.hasMinimum) writeHalf(bytes, at + 2, numberToHalf(this.minimum))
  }

  write(bytes: Uint8Array, at: number, i: number, integer: number): void {
    // Elements 0..15 are the low nibbles.
    bytes[at + (this.type.hasMinimum ? 4 : 2) + (i & 15)] |= (integer - this.type.low) << ((i >> 4) * 4)
  }
}

const half = (x: number): number => halfToNumber(numberToHalf(x))
