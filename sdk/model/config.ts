import { FormatError } from '../errors.ts'
import type { Activation } from '../ops/index.ts'
import { z } from '../zod.ts'

/**
 * Frequencies of the rotary embedding, under transformers' names; `factors` divides each of the D/2 frequencies by its own number (GGUF's
 * rope_freqs).
 */
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
  | {
      readonly type: 'yarn'
      readonly factor: number
      /** Multiplies cosines and sines. */
      readonly attentionFactor: number
      readonly betaFast: number
      readonly betaSlow: number
      /** Whether the range between the betas begins and ends at whole pairs. */
      readonly truncate: boolean
      readonly originalMaxPositionEmbeddings: number
    }
  | { readonly type: 'factors'; readonly factors: readonly number[] }

/** Rotary embedding. */
export interface Rope {
  readonly theta: number
  readonly scaling: RopeScaling
}

/** Norms by where they stand in a layer, as the checkpoint names them; where none is named there is none. */
export interface LayerNorms {
  readonly attentionInput: string
  /** Of each query and key head. */
  readonly query?: string
  readonly key?: string
  readonly attentionOutput?: string
  readonly mlpInput: string
  readonly mlpOutput?: string
}

/** A decoder layer. */
export interface Layer {
  readonly norms: LayerNorms
  /** Of the gated layer. */
  readonly activation: Activation
  /** Positions that a token sees, itself among them; 0: all. */
  readonly window: number
  /** null: queries and keys are not rotated (SmolLM3). */
  readonly rope: Rope | null
  /** Multiplies q·k. */
  readonly attentionScale: number
}

/** A decoder: what families differ in is data. */
export interface ModelConfig {
  readonly family: keyof typeof families
  readonly vocabSize: number
  readonly hiddenSize: number
  readonly intermediateSize: number
  readonly numHiddenLayers: number
  readonly numAttentionHeads: number
  readonly numKeyValueHeads: number
  readonly headDim: number
  readonly rmsNormEps: number
  /** Norms multiply by this plus their weight: 0, or 1. */
  readonly normOffset: number
  /** Multiplies the embeddings. */
  readonly embeddingScale: number
  /** Multiplies what attention and the gated layer add to the residual stream. */
  readonly residualScale: number
  /** Multiplies the logits. */
  readonly logitsScale: number
  readonly maxPositionEmbeddings: number
  readonly tieWordEmbeddings: boolean
  /** Bias of the query, key and value projections. */
  readonly qkvBias: boolean
  /** Bias of the output projection (Llama with attention_bias). */
  readonly outputBias: boolean
  readonly mlpBias: boolean
  /** One for each of numHiddenLayers. */
  readonly layers: readonly Layer[]
}

const size = z.number().int().positive()
const ropeSettings = z.looseObject({
  rope_type: z.string().optional(),
  type: z.string().optional(),
  rope_theta: z.number().positive().optional(),
  factor: z.number().positive().optional(),
  factors: z.array(z.number().positive()).optional(),
  short_factor: z.array(z.number().positive()).optional(),
  attention_factor: z.number().positive().nullish(),
  beta_fast: z.number().positive().nullish(),
  beta_slow: z.number().positive().nullish(),
  mscale: z.number().nonnegative().nullish(),
  mscale_all_dim: z.number().nonnegative().nullish(),
  truncate: z.boolean().optional(),
  low_freq_factor: z.number().positive().optional(),
  high_freq_factor: z.number().positive().optional(),
  original_max_position_embeddings: size.optional(),
})
/** For all layers, or by their type. */
const ropeParameters = ropeSettings.extend({
  full_attention: ropeSettings.optional(),
  sliding_attention: ropeSettings.optional(),
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
  rope_theta: z.number().positive().nullish(),
  rope_parameters: ropeParameters.nullish(),
  rope_scaling: ropeParameters.nullish(),
  max_position_embeddings: size,
  original_max_position_embeddings: size.nullish(),
  tie_word_embeddings: z.boolean().nullish(),
  attention_bias: z.boolean().nullish(),
  mlp_bias: z.boolean().nullish(),
  hidden_act: z.string().nullish(),
  hidden_activation: z.string().nullish(),
  query_pre_attn_scalar: z.number().positive().nullish(),
  attention_multiplier: z.number().positive().nullish(),
  embedding_multiplier: z.number().positive().nullish(),
  residual_multiplier: z.number().positive().nullish(),
  logits_scaling: z.number().positive().nullish(),
  scale_emb: z.number().positive().nullish(),
  scale_depth: z.number().positive().nullish(),
  dim_model_base: size.nullish(),
  no_rope_layers: z.array(z.union([z.literal(0), z.literal(1)])).nullish(),
  no_rope_layer_interval: size.nullish(),
  rope_local_base_freq: z.number().positive().nullish(),
  use_sliding_window: z.boolean().nullish(),
  sliding_window: size.nullish(),
  sliding_window_pattern: size.nullish(),
  max_window_layers: z.number().int().nonnegative().nullish(),
  layer_types: z.array(z.enum(['full_attention', 'sliding_attention'])).nullish(),
})
type ConfigJson = z.infer<typeof schema>

/** Other families that people ask for: what they have that is not computed here, and the nearest that is. */
const unlike: Readonly<Record<string, string>> = {
  gemma3: 'images (its text alone is gemma3_text)',
  granitemoehybrid: 'state spaces and experts (granite is the nearest family)',
  lfm2: 'convolutions between attention layers (llama is the nearest family)',
  minicpm3: 'latent attention (minicpm is the nearest family)',
  mistral: 'windows of its own (llama is the nearest family)',
  phi3: 'joined projections (llama is the nearest family)',
  qwen3_5: 'linear attention (qwen3 is the nearest family)',
  qwen3_5_text: 'linear attention (qwen3 is the nearest family)',
  qwen3_moe: 'experts (qwen3 is the nearest family)',
  qwen3_next: 'linear attention (qwen3 is the nearest family)',
}

const activations: Readonly<Record<string, Activation>> = { silu: 'silu', gelu_pytorch_tanh: 'gelu_tanh' }
/** Settings that change what is computed, and that we do not compute. */
const refused = ['attn_logit_softcapping', 'final_logit_softcapping', 'use_bidirectional_attention']

const twoNorms: LayerNorms = { attentionInput: 'input_layernorm', mlpInput: 'post_attention_layernorm' }
const headNorms = { query: 'self_attn.q_norm', key: 'self_attn.k_norm' }
const fourNorms: LayerNorms = {
  attentionInput: 'input_layernorm',
  attentionOutput: 'post_attention_layernorm',
  mlpInput: 'pre_feedforward_layernorm',
  mlpOutput: 'post_feedforward_layernorm',
}

interface Family {
  readonly norms: LayerNorms
  /** Query, key and value have a bias, the output has none, whatever attention_bias says. */
  readonly hasQkvBias?: true
  readonly normOffset?: 1
  /** Embeddings are multiplied by sqrt(hidden_size). */
  readonly scalesEmbedding?: true
  /** Its sizes are those of a model of `dim_model_base`, scaled (MiniCPM's scale_emb, scale_depth). */
  readonly isScaled?: true
  /** What transformers takes where config.json says nothing. */
  readonly defaults?: Partial<ConfigJson>
}

/** By model_type: what config.json does not say. */
const families = {
  llama: { norms: twoNorms },
  granite: { norms: twoNorms, defaults: { attention_multiplier: 1 } },
  minicpm: {
    norms: twoNorms,
    isScaled: true,
    defaults: { scale_emb: 1, scale_depth: 1, dim_model_base: 1, tie_word_embeddings: true },
  },
  smollm3: {
    norms: twoNorms,
    defaults: { no_rope_layer_interval: 4, rope_theta: 2e6, tie_word_embeddings: true },
  },
  qwen2: { norms: twoNorms, hasQkvBias: true, defaults: { max_window_layers: 28 } },
  qwen3: { norms: { ...twoNorms, ...headNorms }, defaults: { max_window_layers: 28 } },
  gemma3_text: {
    norms: { ...fourNorms, ...headNorms },
    normOffset: 1,
    scalesEmbedding: true,
    defaults: {
      hidden_activation: 'gelu_pytorch_tanh',
      head_dim: 256,
      query_pre_attn_scalar: 256,
      rope_theta: 1e6,
      rope_local_base_freq: 10_000,
      use_sliding_window: true,
      sliding_window: 4096,
      sliding_window_pattern: 6,
      tie_word_embeddings: true,
    },
  },
} as const satisfies Readonly<Record<string, Family>>

/**
 * Reads an HF config.json (of transformers 4 or 5).
 *
 * @param file named in errors
 * @throws FormatError for an architecture, activation, rope scaling or other setting that we do not compute, and for impossible sizes
 */
export function parseConfig(json: unknown, file: string): ModelConfig {
  const parsed = schema.safeParse(json)
  if (!parsed.success) {
    const [issue] = parsed.error.issues
    throw new FormatError(`${file}: ${issue.path.join('.') || 'config'}: ${issue.message}`)
  }
  const { model_type: type } = parsed.data
  if (!Object.hasOwn(families, type))
    throw new FormatError(
      `${file}: model_type "${type}" is not supported${Object.hasOwn(unlike, type) ? `: it has ${unlike[type]}` : ` (${Object.keys(families).join(', ')} are)`}`,
    )
  const family: Family = families[type as ModelConfig['family']]
  const c: ConfigJson = { ...family.defaults, ...parsed.data }
  for (const key of refused) if (c[key]) throw new FormatError(`${file}: ${key} is not supported`)
  const headDim = c.head_dim ?? c.hidden_size / c.num_attention_heads
  const numKeyValueHeads = c.num_key_value_heads ?? c.num_attention_heads
  if (!Number.isInteger(headDim) || headDim % 2 !== 0)
    throw new FormatError(`${file}: head size ${headDim} is not an even integer (hidden_size / num_attention_heads)`)
  if (c.num_attention_heads % numKeyValueHeads !== 0)
    throw new FormatError(
      `${file}: num_attention_heads ${c.num_attention_heads} is not a multiple of num_key_value_heads ${numKeyValueHeads}`,
    )
  const attentionBias = c.attention_bias ?? false
  const layers = parseLayers(c, family.norms, file, headDim)
  return {
    family: type as ModelConfig['family'],
    vocabSize: c.vocab_size,
    hiddenSize: c.hidden_size,
    intermediateSize: c.intermediate_size,
    numHiddenLayers: c.num_hidden_layers,
    numAttentionHeads: c.num_attention_heads,
    numKeyValueHeads,
    headDim,
    rmsNormEps: c.rms_norm_eps,
    normOffset: family.normOffset ?? 0,
    embeddingScale: family.scalesEmbedding ? Math.sqrt(c.hidden_size) : (c.embedding_multiplier ?? c.scale_emb ?? 1),
    residualScale: c.residual_multiplier ?? (family.isScaled ? c.scale_depth! / Math.sqrt(c.num_hidden_layers) : 1),
    logitsScale: 1 / (c.logits_scaling ?? (family.isScaled ? c.hidden_size / c.dim_model_base! : 1)),
    // Qwen's way of switching YaRN on leaves max_position_embeddings as it was.
    maxPositionEmbeddings: Math.max(c.max_position_embeddings, ...layers.map(({ rope }) => yarnReach(rope))),
    tieWordEmbeddings: c.tie_word_embeddings ?? false,
    qkvBias: family.hasQkvBias ?? attentionBias,
    outputBias: !family.hasQkvBias && attentionBias,
    mlpBias: c.mlp_bias ?? false,
    layers,
  }
}

function parseLayers(c: ConfigJson, norms: LayerNorms, file: string, headDim: number): Layer[] {
  const name = c.hidden_activation ?? c.hidden_act ?? 'silu'
  if (!Object.hasOwn(activations, name))
    throw new FormatError(`${file}: hidden_act "${name}" is not supported (${Object.keys(activations).join(', ')} are)`)
  const given = ropeGiven(c, file)
  const ropeOf = (own: z.infer<typeof ropeSettings>, theta = 10_000): Rope => ({
    theta: own.rope_theta ?? theta,
    scaling: parseScaling(
      {
        ...own,
        original_max_position_embeddings:
          own.original_max_position_embeddings ?? c.original_max_position_embeddings ?? c.max_position_embeddings,
      },
      file,
      headDim,
      c.max_position_embeddings,
    ),
  })
  const full: Layer = {
    norms,
    activation: activations[name],
    window: 0,
    rope: ropeOf(given.full_attention ?? given, c.rope_theta ?? undefined),
    attentionScale: c.attention_multiplier ?? 1 / Math.sqrt(c.query_pre_attn_scalar ?? headDim),
  }
  const numLayers = c.num_hidden_layers
  const { no_rope_layers: rotated, no_rope_layer_interval: interval, layer_types: types } = c
  for (const [key, entries] of Object.entries({ layer_types: types, no_rope_layers: rotated }))
    if (entries && entries.length !== numLayers)
      throw new FormatError(`${file}: ${key} has ${entries.length} entries, num_hidden_layers is ${numLayers}`)
  if (!c.use_sliding_window) {
    const still = { ...full, rope: null }
    const rotates = (i: number) => (rotated ? rotated[i] === 1 : !interval || (i + 1) % interval !== 0)
    return Array.from({ length: numLayers }, (_, i) => (rotates(i) ? full : still))
  }
  if (rotated || interval)
    throw new FormatError(`${file}: use_sliding_window with layers that are not rotated is not supported`)
  const { sliding_window: window, sliding_window_pattern: pattern, max_window_layers: first } = c
  if (!window) throw new FormatError(`${file}: use_sliding_window without a sliding_window`)
  const local = given.sliding_attention ?? (c.rope_local_base_freq ? { rope_theta: c.rope_local_base_freq } : undefined)
  const sliding: Layer = { ...full, window, rope: local ? ropeOf(local) : full.rope }
  const slides = (i: number) =>
    types ? types[i] === 'sliding_attention' : pattern ? (i + 1) % pattern !== 0 : i >= (first ?? 0)
  return Array.from({ length: numLayers }, (_, i) => (slides(i) ? sliding : full))
}

/** rope_parameters is what transformers 5 saves, rope_scaling what earlier ones did, and what people add by hand: where both stand it counts, as there. */
function ropeGiven(c: ConfigJson, file: string): z.infer<typeof ropeParameters> {
  const { rope_parameters: saved, rope_scaling: added } = c
  if (!saved || !added || Object.keys(added).length === 0) return saved ?? added ?? {}
  if (saved.full_attention) return { ...saved, full_attention: { ...saved.full_attention, ...added } }
  const theta = c.rope_theta ?? 10_000
  if (added.rope_theta !== undefined || (saved.rope_theta ?? theta) === theta) return added
  throw new FormatError(
    `${file}: rope_scaling stands in the place of rope_parameters, whose rope_theta ${saved.rope_theta} is lost with it: write rope_theta into rope_scaling`,
  )
}

function parseScaling(
  rope: z.infer<typeof ropeSettings>,
  file: string,
  headDim: number,
  maxPositions: number,
): RopeScaling {
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
  if (type === 'yarn') {
    const factor = need('factor')
    const { mscale, mscale_all_dim: all } = rope
    return {
      type,
      factor,
      attentionFactor:
        rope.attention_factor ??
        (mscale && all ? yarnMagnitude(factor, mscale) / yarnMagnitude(factor, all) : yarnMagnitude(factor)),
      betaFast: rope.beta_fast ?? 32,
      betaSlow: rope.beta_slow ?? 1,
      truncate: rope.truncate ?? true,
      originalMaxPositionEmbeddings: need('original_max_position_embeddings'),
    }
  }
  // Up to the original context, longrope is one divisor per frequency (MiniCPM4).
  const isShort = type === 'longrope' && maxPositions <= need('original_max_position_embeddings')
  const factors = type === 'factors' ? rope.factors : isShort ? rope.short_factor : undefined
  if (factors?.length === headDim / 2) return { type: 'factors', factors }
  throw new FormatError(`${file}: rope scaling "${type}" is not supported (default, linear, llama3 and yarn are)`)
}

function yarnReach(rope: Rope | null): number {
  if (rope?.scaling.type !== 'yarn') return 0
  return Math.floor(rope.scaling.factor * rope.scaling.originalMaxPositionEmbeddings)
}

/** YaRN's own factor of attention. */
export const yarnMagnitude = (factor: number, mscale = 1): number =>
  factor <= 1 ? 1 : 0.1 * mscale * Math.log(factor) + 1
