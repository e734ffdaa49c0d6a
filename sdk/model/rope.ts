import type { ModelConfig, RopeScaling } from './config.ts'

/**
 * Rotary table: D/2 cosines, then D/2 sines a row. Made on the host because WGSL's own sin and cos are too coarse.
 * Frequencies as transformers' modeling_rope_utils computes them (f32 inverse frequencies, f32 angles).
 *
 * @returns [positions, headDim] row-major
 */
export function ropeTable(config: ModelConfig, positions: number): Float32Array {
  const half = config.headDim / 2
  const inverse = inverseFrequencies(config)
  const table = new Float32Array(positions * config.headDim)
  for (let p = 0; p < positions; p++)
    for (let i = 0; i < half; i++) {
      const angle = Math.fround(p * inverse[i])
      table[p * config.headDim + i] = Math.cos(angle)
      table[p * config.headDim + half + i] = Math.sin(angle)
    }
  return table
}

function inverseFrequencies(config: ModelConfig): Float32Array {
  return plainFrequencies(config).map((f, i) => scaled(f, i, config.ropeScaling))
}

/** By what scaling divides each of the D/2 frequencies; null where it is none, or the same for all. */
export function frequencyDivisors(config: ModelConfig): Float32Array | null {
  const { ropeScaling: s } = config
  if (s.type === 'default' || s.type === 'linear') return null
  return plainFrequencies(config).map((f, i) => f / scaled(f, i, s))
}

const plainFrequencies = ({ headDim, ropeTheta }: ModelConfig): Float32Array =>
  Float32Array.from({ length: headDim / 2 }, (_, i) => 1 / Math.fround(ropeTheta ** ((2 * i) / headDim)))

function scaled(f: number, i: number, s: RopeScaling): number {
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
