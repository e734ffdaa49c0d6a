import { z } from 'zod'
import { FormatError } from '../errors.ts'

/** Frequencies of the rotary embedding; `factors` divides each of the D/2 frequencies by its own number (GGUF's rope_freqs). */
export type RopeScaling =
  | { readonly type: 'default' }
  | { readonly type: 'linear'; readonly factor: number }
  | {
      readonly type: 'llama3'
      readonly factor: number
      readonly lowFreqFactor: number
      readonly highFreqFactor: number
      readonly originalMaxPositionEmbeddings: number
    }
  | { readonly type: 'factors'; readonly factors: readonly number[] }

/** A decoder of the Llama family: the differences between families are flags. */
export interface ModelConfig {
  readonly family: 'llama' | 'qwen2' | 'qwen3'
  readonly vocabSize: number
  readonly hiddenSize: number
  readonly intermediateSize: number
  readonly numHiddenLayers: number
  readonly numAttentionHeads: number
  readonly numKeyValueHeads: number
  readonly headDim: number
  readonly rmsNormEps: number
  readonly ropeTheta: number
  readonly ropeScaling: RopeScaling
  readonly maxPositionEmbeddings: number
  readonly tieWordEmbeddings: boolean
  /** Bias of the query, key and value projections. */
  readonly qkvBias: boolean
  /** Bias of the output projection (Llama with attention_bias). */
  readonly outputBias: boolean
  readonly mlpBias: boolean
  /** RMS norm of each query and key head (Qwen3). */
  readonly qkNorm: boolean
}

const size = z.number().int().positive()
const ropeParameters = z.looseObject({
  rope_type: z.string().optional(),
  type: z.string().optional(),
  rope_theta: z.number().positive().optional(),
  factor: z.number().positive().optional(),
  factors: z.array(z.number().positive()).optional(),
  low_freq_factor: z.number().positive().optional(),
  high_freq_factor: z.number().positive().optional(),
  original_max_position_embeddings: size.optional(),
})

const schema = z.looseObject({
  model_type: z.string(),
  vocab_size: size.max(4_194_304),
  hidden_size: size.max(65_536),
  intermediate_size: size.max(1_048_576),
  num_hidden_layers: size.max(1024),
  num_attention_heads: size.max(1024),
  num_key_value_heads: size.max(1024).nullish(),
  head_dim: size.max(1024).nullish(),
  rms_norm_eps: z.number().positive(),
  rope_theta: z.number().positive().optional(),
  rope_parameters: ropeParameters.nullish(),
  rope_scaling: ropeParameters.nullish(),
  max_position_embeddings: size,
  tie_word_embeddings: z.boolean().optional(),
  attention_bias: z.boolean().optional(),
  mlp_bias: z.boolean().optional(),
  hidden_act: z.string().optional(),
  use_sliding_window: z.boolean().nullish(),
})

/**
 * Reads an HF config.json (of transformers 4 or 5).
 *
 * @param file named in errors
 * @throws FormatError for an architecture, activation or rope scaling that we do not compute, and for impossible sizes
 */
export function parseConfig(json: unknown, file: string): ModelConfig {
  const parsed = schema.safeParse(json)
  if (!parsed.success) {
    const [issue] = parsed.error.issues
    throw new FormatError(`${file}: ${issue.path.join('.') || 'config'}: ${issue.message}`)
  }
  const c = parsed.data
  const family = c.model_type
  if (family !== 'llama' && family !== 'qwen2' && family !== 'qwen3')
    throw new FormatError(`${file}: model_type "${family}" is not supported (llama, qwen2 and qwen3 are)`)
  if (c.hidden_act !== undefined && c.hidden_act !== 'silu')
    throw new FormatError(`${file}: hidden_act "${c.hidden_act}" is not supported (silu is)`)
  if (c.use_sliding_window) throw new FormatError(`${file}: use_sliding_window is not supported`)
  const headDim = c.head_dim ?? c.hidden_size / c.num_attention_heads
  const numKeyValueHeads = c.num_key_value_heads ?? c.num_attention_heads
  if (!Number.isInteger(headDim) || headDim % 2 !== 0)
    throw new FormatError(`${file}: head size ${headDim} is not an even integer (hidden_size / num_attention_heads)`)
  if (c.num_attention_heads % numKeyValueHeads !== 0)
    throw new FormatError(
      `${file}: num_attention_heads ${c.num_attention_heads} is not a multiple of num_key_value_heads ${numKeyValueHeads}`,
    )
  const rope = c.rope_parameters ?? c.rope_scaling ?? {}
  const attentionBias = c.attention_bias ?? false
  return {
    family,
    vocabSize: c.vocab_size,
    hiddenSize: c.hidden_size,
    intermediateSize: c.intermediate_size,
    numHiddenLayers: c.num_hidden_layers,
    numAttentionHeads: c.num_attention_heads,
    numKeyValueHeads,
    headDim,
    rmsNormEps: c.rms_norm_eps,
    ropeTheta: rope.rope_theta ?? c.rope_theta ?? 10_000,
    ropeScaling: parseScaling(rope, file, headDim),
    maxPositionEmbeddings: c.max_position_embeddings,
    tieWordEmbeddings: c.tie_word_embeddings ?? false,
    qkvBias: family === 'qwen2' || attentionBias,
    outputBias: family !== 'qwen2' && attentionBias,
    mlpBias: c.mlp_bias ?? false,
    qkNorm: family === 'qwen3',
  }
}

function parseScaling(rope: z.infer<typeof ropeParameters>, file: string, headDim: number): RopeScaling {
  const type = rope.rope_type ?? rope.type ?? 'default'
  const need = (key: keyof typeof rope): number => {
    const value = rope[key]
    if (typeof value !== 'number') throw new FormatError(`${file}: rope scaling "${type}" lacks ${key}`)
    return value
  }
  if (type === 'default') return { type }
  if (type === 'linear') return { type, factor: need('factor') }
  if (type === 'llama3')
    return {
      type,
      factor: need('factor'),
      lowFreqFactor: need('low_freq_factor'),
      highFreqFactor: need('high_freq_factor'),
      originalMaxPositionEmbeddings: need('original_max_position_embeddings'),
    }
  if (type === 'factors' && rope.factors?.length === headDim / 2) return { type, factors: rope.factors }
  throw new FormatError(`${file}: rope scaling "${type}" is not supported (default, linear and llama3 are)`)
}
