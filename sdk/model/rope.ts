import type { TensorType } from '../dtype.ts'
import type { Rope, RopeScaling } from './config.ts'

/**
 * Rotary table [positions, headDim], row-major: D/2 cosines, then D/2 sines a row. Made on the host because WGSL's own sin and cos are
 * too coarse. As transformers' modeling_rope_utils computes it (f32 inverse frequencies, f32 angles).
 */
export function ropeTable(rope: Rope, { shape: [positions, headDim] }: Pick<TensorType, 'shape'>): Float32Array {
  const half = headDim / 2
  const inverse = inverseFrequencies(rope, headDim)
  const magnitude = rope.scaling.type === 'yarn' ? rope.scaling.attentionFactor : 1
  const table = new Float32Array(positions * headDim)
  for (let p = 0; p < positions; p++)
    for (let i = 0; i < half; i++) {
      const angle = Math.fround(p * inverse[i])
      table[p * headDim + i] = Math.cos(angle) * magnitude
      table[p * headDim + half + i] = Math.sin(angle) * magnitude
    }
  return table
}

/** Radians that a position turns each of the D/2 pairs by. */
export function inverseFrequencies({ theta, scaling }: Rope, headDim: number): Float32Array {
  const plain = plainFrequencies(theta, headDim)
  if (scaling.type !== 'yarn') return plain.map((f, i) => scaled(f, i, scaling))
  // From the pair that turns betaFast times over the original context to the one that turns betaSlow times, f is blended with f / factor.
  const { factor, betaFast, betaSlow, originalMaxPositionEmbeddings, truncate } = scaling
  const pairOf = (turns: number) =>
    (headDim * Math.log(originalMaxPositionEmbeddings / (turns * 2 * Math.PI))) / (2 * Math.log(theta))
  const [fast, slow] = [pairOf(betaFast), pairOf(betaSlow)]
  const low = Math.max(truncate ? Math.floor(fast) : fast, 0)
  const high = Math.min(truncate ? Math.ceil(slow) : slow, headDim - 1)
  return plain.map((f, i) => {
    const share = Math.min(1, Math.max(0, (i - low) / (low === high ? 0.001 : high - low)))
    return (f / factor) * share + f * (1 - share)
  })
}

/** By what scaling divides each of the D/2 frequencies; null where it is none, or GGUF has words for it. */
export function frequencyDivisors(rope: Rope, headDim: number): Float32Array | null {
  if (['default', 'linear', 'yarn'].includes(rope.scaling.type)) return null
  const inverse = inverseFrequencies(rope, headDim)
  return plainFrequencies(rope.theta, headDim).map((f, i) => f / inverse[i])
}

const plainFrequencies = (theta: number, headDim: number): Float32Array =>
  Float32Array.from({ length: headDim / 2 }, (_, i) => 1 / Math.fround(theta ** ((2 * i) / headDim)))

function scaled(f: number, i: number, s: Exclude<RopeScaling, { type: 'yarn' }>): number {
  if (s.type === 'linear') return f / s.factor
  if (s.type === 'factors') return f / s.factors[i]
  if (s.type === 'default') return f
  // llama3: long wavelengths are divided by `factor`, short ones kept, those between blended.
  const wavelength = (2 * Math.PI) / f
  const low = s.originalMaxPositionEmbeddings / s.lowFreqFactor
  const high = s.originalMaxPositionEmbeddings / s.highFreqFactor
  if (wavelength < high) return f
  if (wavelength > low) return f / s.factor
  const smooth = (s.originalMaxPositionEmbeddings / wavelength - s.lowFreqFactor) / (s.highFreqFactor - s.lowFreqFactor)
  return ((1 - smooth) * f) / s.factor + smooth * f
}
