import { sameShape } from '../dtype.ts'
import { FormatError } from '../errors.ts'
import type { StoredTensor } from '../formats/stored.ts'
import type { ModelConfig } from './config.ts'

/** The seven linear modules of a layer, by PEFT's names, with [outFeatures, inFeatures]. */
export function linearModules(c: ModelConfig): ReadonlyMap<string, readonly [out: number, input: number]> {
  const q = c.numAttentionHeads * c.headDim
  const kv = c.numKeyValueHeads * c.headDim
  return new Map([
    ['self_attn.q_proj', [q, c.hiddenSize]],
    ['self_attn.k_proj', [kv, c.hiddenSize]],
    ['self_attn.v_proj', [kv, c.hiddenSize]],
    ['self_attn.o_proj', [c.hiddenSize, q]],
    ['mlp.gate_proj', [c.intermediateSize, c.hiddenSize]],
    ['mlp.up_proj', [c.intermediateSize, c.hiddenSize]],
    ['mlp.down_proj', [c.hiddenSize, c.intermediateSize]],
  ] as const)
}

export const layerName = (layer: number): string => `model.layers.${layer}`

/** The modules of the vocabulary's two tables, and the tables, [V, C]. */
export const embeddingModule = 'model.embed_tokens'
export const outputModule = 'lm_head'
export const embeddingName = `${embeddingModule}.weight`
export const outputName = `${outputModule}.weight`
export const isTable = (name: string): boolean => name === embeddingName || name === outputName
export const finalNorm = 'model.norm.weight'

/** Every weight of the model by its name in the checkpoint, with its shape. */
export function weightShapes(c: ModelConfig): Map<string, readonly number[]> {
  const shapes = new Map<string, readonly number[]>([[embeddingName, [c.vocabSize, c.hiddenSize]]])
  for (const [layer, { norms }] of c.layers.entries()) {
    const at = layerName(layer)
    const { query, key, ...whole } = norms
    for (const name of Object.values(whole)) shapes.set(`${at}.${name}.weight`, [c.hiddenSize])
    for (const [name, shape] of linearModules(c)) {
      shapes.set(`${at}.${name}.weight`, shape)
      if (hasBias(c, name)) shapes.set(`${at}.${name}.bias`, [shape[0]])
    }
    for (const name of [query, key]) if (name) shapes.set(`${at}.${name}.weight`, [c.headDim])
  }
  shapes.set(finalNorm, [c.hiddenSize])
  if (!c.tieWordEmbeddings) shapes.set(outputName, [c.vocabSize, c.hiddenSize])
  return shapes
}

/**
 * The tensors of every weight of the model, by name.
 *
 * @param file named in errors
 * @throws FormatError for a missing or misshapen tensor
 */
export function findWeights(
  config: ModelConfig,
  tensors: ReadonlyMap<string, StoredTensor>,
  file: string,
): Map<string, StoredTensor> {
  const found = new Map<string, StoredTensor>()
  for (const [name, shape] of weightShapes(config)) {
    const stored = tensors.get(name)
    if (!stored) throw new FormatError(`${name}: not in ${file} (is this a ${config.family} checkpoint?)`)
    if (!sameShape(stored.shape, shape))
      throw new FormatError(
        `${name}: expected [${shape.join(', ')}], got [${stored.shape.join(', ')}] in ${stored.file} (does config.json belong to it?)`,
      )
    found.set(name, stored)
  }
  return found
}

/** Does this linear module (`self_attn.q_proj` ...) have a bias? */
export function hasBias(c: ModelConfig, module: string): boolean {
  if (module.startsWith('mlp.')) return c.mlpBias
  return module === 'self_attn.o_proj' ? c.outputBias : c.qkvBias
}

/** The vocabulary table that scores hidden states. */
export const headName = (c: ModelConfig): string => (c.tieWordEmbeddings ? embeddingName : outputName)
