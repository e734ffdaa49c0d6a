import { describe, expect, it } from 'vitest'
import { NumericError } from '../../sdk/errors.ts'
import { toFloats } from '../../sdk/quant/convert.ts'
import { feedbackFloats, unitFactor } from '../../sdk/quant/feedback.ts'
import { fittedFloats } from '../../sdk/quant/fit.ts'
import { fillNormal } from '../../sdk/random.ts'

const [rows, width, groups, tokens, hidden] = [24, 96, 2, 400, 12]
const columns = width * groups
const normals = (n: number, size: number, stream: number) => {
  const out = new Float32Array(n)
  fillNormal(out, size, 3, stream)
  return out
}
const weights = normals(rows * columns, 0.08, 1)
/** Inputs that go together, as those of a model do: mixtures of a few numbers, and noise. */
const inputs = normals(tokens * columns, 0.3, 2)
const [few, mixture] = [normals(tokens * hidden, 1, 3), normals(hidden * columns, 1, 4)]
for (let t = 0; t < tokens; t++)
  for (let k = 0; k < hidden; k++)
    for (let c = 0; c < columns; c++) inputs[t * columns + c] += few[t * hidden + k] * mixture[k * columns + c]

/** Second moments of a group of the inputs. */
function moments(group: number): Float32Array {
  const h = new Float32Array(width * width)
  for (let t = 0; t < tokens; t++) {
    const x = inputs.subarray(t * columns + group * width, t * columns + (group + 1) * width)
    for (let i = 0; i < width; i++) for (let j = 0; j < width; j++) h[i * width + j] += x[i] * x[j]
  }
  return h
}

/** Squared error of the outputs. */
function outputError(rounded: Float32Array): number {
  let sum = 0
  for (let r = 0; r < rows; r++)
    for (let t = 0; t < tokens; t++) {
      let error = 0
      for (let c = 0; c < columns; c++)
        error += (weights[r * columns + c] - rounded[r * columns + c]) * inputs[t * columns + c]
      sum += error ** 2
    }
  return sum
}

describe('rounding with error feedback', () => {
  it.each(['q4a', 'q4'] as const)('%s: a layer gives what it gave, five times closer', async (dtype) => {
    const factors = [await unitFactor(moments(0), 0.01), await unitFactor(moments(1), 0.01)]
    const plain = outputError(toFloats(fittedFloats(weights, dtype), dtype))
    const fed = outputError(toFloats(feedbackFloats(weights, dtype, factors), dtype))
    expect(fed / plain).toBeLessThan(0.2)
    // Pieces of rows give the same bytes.
    const half = (rows / 2) * columns
    const pieces = [weights.subarray(0, half), weights.subarray(half)].map((own) => feedbackFloats(own, dtype, factors))
    expect(Buffer.concat(pieces)).toEqual(Buffer.from(feedbackFloats(weights, dtype, factors)))
  })

  it('the factor is that of the moments: H + damping = L·D·Lᵀ', async () => {
    const [h, u] = [moments(0), await unitFactor(moments(0), 0.5)]
    let trace = 0
    for (let i = 0; i < width; i++) trace += h[i * width + i]
    for (const [i, j] of [
      [0, 0],
      [3, 71],
      [50, 51],
      [95, 95],
    ]) {
      let sum = 0
      for (let k = 0; k <= i; k++) {
        const unit = (column: number) => (column === k ? 1 : u[k * width + column])
        sum += u[k * width + k] * unit(i) * unit(j)
      }
      const want = h[i * width + j] + (i === j ? (0.5 * trace) / width : 0)
      expect(Math.abs(sum - want)).toBeLessThan((1e-6 * trace) / width)
    }
  })

  it('numbers on a grid of the type stay, and inputs that are no numbers are refused', async () => {
    const factors = [await unitFactor(moments(0), 0.1), await unitFactor(moments(1), 0.1)]
    const grid = toFloats(fittedFloats(weights, 'q4a'), 'q4a')
    expect(toFloats(feedbackFloats(grid, 'q4a', factors), 'q4a')).toEqual(grid)
    await expect(unitFactor(moments(0).fill(Number.NaN), 0.1)).rejects.toThrow(NumericError)
  })
})
