import { FormatError } from '../errors.ts'
import { architectures, interleaved, layerNames, multipliers, outerNames } from '../formats/gguf-model.ts'
import type { GgufEntry } from '../formats/gguf-write.ts'
import type { StoredTensor } from '../formats/stored.ts'
import { type ModelConfig, type Rope, yarnMagnitude } from './config.ts'
import { frequencyDivisors } from './rope.ts'

/** The metadata of a model's shape, as llama.cpp's converter writes it: the inverse of what `ggufModel` reads. */
export function ggufConfigEntries(c: ModelConfig): Map<string, GgufEntry> {
  const rope = ropeOf(c)
  const scales = {
    embedding_multiplier: c.embeddingScale,
    residual_multiplier: c.residualScale,
    attention_multiplier: c.layers[0].attentionScale,
    logits_scaling: 1 / c.logitsScale,
  }
  const own: [string, GgufEntry][] = [
    ['block_count', { u32: c.numHiddenLayers }],
    ['context_length', { u32: c.maxPositionEmbeddings }],
    ['embedding_length', { u32: c.hiddenSize }],
    ['feed_forward_length', { u32: c.intermediateSize }],
    ['attention.head_count', { u32: c.numAttentionHeads }],
    ['attention.head_count_kv', { u32: c.numKeyValueHeads }],
    ['attention.key_length', { u32: c.headDim }],
    ['attention.value_length', { u32: c.headDim }],
    ['attention.layer_norm_rms_epsilon', { f32: c.rmsNormEps }],
    ['rope.dimension_count', { u32: c.headDim }],
    ['rope.freq_base', { f32: rope.theta }],
    ['vocab_size', { u32: c.vocabSize }],
    ...Object.entries(multipliers)
      .filter(([, key]) => architectures[c.family]?.needs?.includes(key))
      .map(([name, key]): [string, GgufEntry] => [key, { f32: scales[name as keyof typeof scales] }]),
  ]
  const { scaling } = rope
  if (scaling.type === 'linear' || scaling.type === 'yarn')
    own.push(['rope.scaling.type', { string: scaling.type }], ['rope.scaling.factor', { f32: scaling.factor }])
  if (scaling.type === 'yarn')
    own.push(
      ['rope.scaling.original_context_length', { u32: scaling.originalMaxPositionEmbeddings }],
      ['rope.scaling.yarn_beta_fast', { f32: scaling.betaFast }],
      ['rope.scaling.yarn_beta_slow', { f32: scaling.betaSlow }],
    )
  return new Map([
    ['general.architecture', { string: c.family }],
    ...own.map(([key, entry]): [string, GgufEntry] => [`${c.family}.${key}`, entry]),
  ])
}

/** Of the layers that have one: the same for all in what is written. */
const ropeOf = (c: ModelConfig): Rope => c.layers.find(({ rope }) => rope)!.rope!

/**
 * By our names, the weights under GGUF's and in its order of rows, and the divisors of the rotary frequencies where there are any.
 *
 * @throws FormatError for rotary scaling that llama.cpp does not have for this family, and for layers that are not written
 */
export function ggufTensors(
  config: ModelConfig,
  weights: ReadonlyMap<string, StoredTensor>,
  file: string,
): Map<string, StoredTensor> {
  const renamed = new Map<string, StoredTensor>()
  const rope = ropeOf(config)
  if (config.family === 'gemma3_text' || config.layers.some((l) => l.window > 0 || l.activation !== 'silu'))
    throw new FormatError(
      `${file}: a ${config.family} with windows, or with another activation than silu, is not written as GGUF here`,
    )
  // llama.cpp knows these layers by their numbers alone.
  if (config.layers.some((l, i) => (l.rope === null) !== (config.family === 'smollm3' && i % 4 === 3)))
    throw new FormatError(`${file}: no_rope_layers other than every fourth have no place in GGUF`)
  const { scaling } = rope
  if (scaling.type === 'yarn' && !(scaling.truncate && scaling.attentionFactor === yarnMagnitude(scaling.factor)))
    throw new FormatError(`${file}: an attention_factor, mscale or truncate of "yarn" has no place in GGUF`)
  const divisors = frequencyDivisors(rope, config.headDim)
  if (divisors) {
    if (!architectures[config.family].isInterleaved)
      throw new FormatError(`${file}: rope scaling "${rope.scaling.type}" of a ${config.family} has no place in GGUF`)
    const bytes = new Uint8Array(divisors.buffer)
    const name = 'rope_freqs.weight'
    const read = async (from = 0, length = bytes.length - from) => bytes.slice(from, from + length)
    renamed.set(name, { name, dtype: 'F32', shape: [divisors.length], bytes: bytes.length, file, read })
  }
  for (const [name, tensor] of weights) {
    const to = ggufName(name)
    const part = /attn_[qk]\.(weight|bias)$/.exec(to)?.[0][5]
    const heads = part === 'q' ? config.numAttentionHeads : config.numKeyValueHeads
    const ordered =
      architectures[config.family].isInterleaved && part !== undefined ? interleaved(tensor, heads) : tensor
    renamed.set(name, { ...ordered, name: to })
  }
  return renamed
}

const flipped = (names: Readonly<Record<string, string>>): ReadonlyMap<string, string> =>
  new Map(Object.entries(names).map(([ours, theirs]) => [theirs, ours]))

function ggufName(name: string): string {
  const outer = flipped(outerNames).get(name)
  if (outer !== undefined) return outer
  const [, layer, part, kind] = /^model\.layers\.(\d+)\.(.*)\.(weight|bias)$/.exec(name)!
  return `blk.${layer}.${flipped(layerNames).get(part)}.${kind}`
}
