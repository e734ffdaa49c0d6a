import { storedTypes } from '../dtype.ts'
import { NumericError } from '../errors.ts'
import { turn } from '../turn.ts'
import { BlockFit } from './fit.ts'

// Error feedback, as in GPTQ (arXiv 2210.17323): not the weights are to change least, but what a layer makes of its inputs x. With their second
// moments H = xᵀx = L·D·Lᵀ (L unit lower triangular) the squared error of a row's outputs is the D-weighted square of (w - q)·L. So columns
// are rounded from the last to the first, each to make up for the errors of those after it: Babai's nearest plane, which is GPTQ's order
// reversed and needs no inverse of H.

const blockSize = storedTypes.q4.elements

/**
 * Lᵀ [n, n] of H [n, n], row-major, with D as its diagonal; below it are leftovers. The part `damping` of the mean second moment is added to
 * each: directions that a text hardly has are not to be bent at will. Throws NumericError for moments that are no numbers.
 */
export async function unitFactor(moments: Float32Array, damping: number): Promise<Float64Array> {
  const n = Math.sqrt(moments.length)
  const u = Float64Array.from(moments)
  let trace = 0
  for (let j = 0; j < n; j++) trace += u[j * n + j]
  if (!Number.isFinite(trace)) throw new NumericError('the inputs of a layer are not finite (broken weights?)')
  for (let j = 0; j < n; j++) u[j * n + j] += (damping * trace) / n || 1
  for (let j = 0; j < n; j++) {
    await turn()
    const inverse = 1 / u[j * n + j]
    for (let k = j + 1; k < n; k++) {
      const factor = u[j * n + k] * inverse
      for (let i = k; i < n; i++) u[k * n + i] -= factor * u[j * n + i]
    }
    for (let i = j + 1; i < n; i++) u[j * n + i] *= inverse
  }
  return u
}

/** As `fittedFloats`, of whole rows whose columns are groups of equal width with a factor each: errors are carried on within a group. */
export function feedbackFloats(
  floats: Float32Array,
  dtype: 'q4' | 'q4a',
  factors: readonly Float64Array[],
): Uint8Array {
  const { bytes: blockBytes } = storedTypes[dtype]
  const n = Math.sqrt(factors[0].length)
  const columns = n * factors.length
  const rows = floats.length / columns
  const fit = new BlockFit(dtype)
  const bytes = new Uint8Array((floats.length / blockSize) * blockBytes)
  /** w - q of a group's columns so far, by row. */
  const errors = new Float64Array(rows * n)
  const [carried, wanted, weights] = [0, 0, 0].map(() => new Float64Array(blockSize))
  for (const [group, u] of factors.entries())
    for (let block = n - blockSize; block >= 0; block -= blockSize) {
      for (let j = 0; j < blockSize; j++) weights[j] = u[(block + j) * (n + 1)]
      for (let row = 0; row < rows; row++) {
        const start = row * columns + group * n + block
        const own = errors.subarray(row * n, (row + 1) * n)
        carry(own, u, block, carried)
        // The scale suits what the numbers would be if no rounding were to come, and then each makes up for what did.
        for (const isRounding of [false, true]) {
          if (isRounding) fit.search(wanted, weights)
          for (let j = block + blockSize - 1; j >= block; j--) {
            let sum = carried[j - block]
            for (let i = j + 1; i < block + blockSize; i++) sum += own[i] * u[j * n + i]
            const x = floats[start + j - block]
            wanted[j - block] = x + sum
            own[j] = -sum
            if (!isRounding) continue
            const integer = fit.integer(x + sum)
            own[j] = x - fit.value(integer)
            fit.write(bytes, (start / blockSize) * blockBytes, j - block, integer)
          }
        }
        fit.writeHead(bytes, (start / blockSize) * blockBytes)
      }
    }
  return bytes
}

/** What the errors after a block add up to for each of its columns. */
function carry(errors: Float64Array, u: Float64Array, block: number, carried: Float64Array): void {
  const n = errors.length
  // Four at a time: they do not wait for each other's sums.
  for (let j = 0; j < blockSize; j += 4) {
    const at = (block + j) * n
    let [a, b, c, d] = [0, 0, 0, 0]
    for (let i = block + blockSize; i < n; i++) {
      const error = errors[i]
      a += error * u[at + i]
      b += error * u[at + n + i]
      c += error * u[at + 2 * n + i]
      d += error * u[at + 3 * n + i]
    }
    carried[j] = a
    carried[j + 1] = b
    carried[j + 2] = c
    carried[j + 3] = d
  }
}
