import { FormatError } from '../errors.ts'
import type { GgufFile } from './gguf.ts'
import { fail, integer, number, required, string } from './gguf-metadata.ts'
import { ggufTokenizer } from './gguf-tokenizer.ts'
import { readFloats, type StoredTensor } from './stored.ts'
import type { StoredModel } from './stored-model.ts'

interface Architecture {
  readonly className: string
  /** HF's model_type, where it is another word. */
  readonly modelType?: string
  /** Rows of queries and keys lie with the halves of each head interleaved. */
  readonly isInterleaved?: true
  /** Norms have 1 added, and there are four in a layer. */
  readonly isGemma?: true
  /** Numbers without which the model is another one. */
  readonly needs?: readonly string[]
}

/** By general.architecture, as llama.cpp's converter writes them. */
export const architectures: Readonly<Record<string, Architecture>> = {
  llama: { className: 'LlamaForCausalLM', isInterleaved: true },
  qwen2: { className: 'Qwen2ForCausalLM' },
  qwen3: { className: 'Qwen3ForCausalLM' },
  gemma3: { className: 'Gemma3ForCausalLM', modelType: 'gemma3_text', isGemma: true },
  smollm3: { className: 'SmolLM3ForCausalLM', isInterleaved: true },
  granite: {
    className: 'GraniteForCausalLM',
    isInterleaved: true,
    needs: ['embedding_scale', 'residual_scale', 'attention.scale', 'logit_scale'],
  },
  minicpm: {
    className: 'MiniCPMForCausalLM',
    isInterleaved: true,
    needs: ['embedding_scale', 'residual_scale', 'logit_scale'],
  },
}

/** Multipliers: config.json's words and ours. */
export const multipliers = {
  embedding_multiplier: 'embedding_scale',
  residual_multiplier: 'residual_scale',
  attention_multiplier: 'attention.scale',
  logits_scaling: 'logit_scale',
} as const

/**
 * A GGUF file as the model that an HF snapshot folder would be: config, tokenizer and tensors under HF's names.
 *
 * @throws FormatError naming file and key or tensor for what is missing or not supported
 */
export async function ggufModel(file: GgufFile): Promise<StoredModel> {
  const parts = number(file, 'split.count') ?? 1
  if (parts > 1) fail(file, 'split.count', `the model is in ${parts} files: join them with llama-gguf-split --merge`)
  const { tokenizerJson, tokenizerConfig, bosTokenId, padTokenId, eosTokenIds, warnings } = ggufTokenizer(file)
  const config = {
    ...(await ggufConfig(file)),
    bos_token_id: bosTokenId ?? null,
    eos_token_id: eosTokenIds[0] ?? null,
    pad_token_id: padTokenId ?? null,
  }
  const generationConfig: Record<string, unknown> = {}
  if (bosTokenId !== undefined) generationConfig.bos_token_id = bosTokenId
  if (eosTokenIds.length > 0) generationConfig.eos_token_id = eosTokenIds
  if (padTokenId !== undefined) generationConfig.pad_token_id = padTokenId
  return {
    config,
    configFile: file.name,
    generationConfig,
    tokenizerJson,
    tokenizerConfig,
    chatTemplate: string(file, 'tokenizer.chat_template') ?? null,
    title: said(file, 'general.name'),
    license: said(file, 'general.license'),
    tensors: renameTensors(file, config.num_attention_heads, config.num_key_value_heads),
    warnings,
  }
}

/** Words for people: of no other type do they stop anything. */
function said(file: GgufFile, key: string): string | null {
  const value = file.metadata.get(key)
  return typeof value === 'string' ? value : null
}

async function ggufConfig(file: GgufFile) {
  const type = required(file, 'general.architecture', string(file, 'general.architecture'))
  if (!Object.hasOwn(architectures, type))
    fail(file, 'general.architecture', `"${type}" is not supported (${Object.keys(architectures).join(', ')} are)`)
  const { className, modelType = type, needs = [], isGemma } = architectures[type]
  for (const key of needs) required(file, `${type}.${key}`, number(file, `${type}.${key}`))
  const size = (key: string) => integer(file, `${type}.${key}`)
  const needed = (key: string) => required(file, `${type}.${key}`, size(key))
  const positive = (key: string) => needed(key) || fail(file, `${type}.${key}`, 'is 0')
  if (size('expert_count')) fail(file, `${type}.expert_count`, 'mixtures of experts are not supported')
  const hiddenSize = positive('embedding_length')
  const numAttentionHeads = positive('attention.head_count')
  const headDim = size('attention.key_length') ?? hiddenSize / numAttentionHeads
  for (const key of ['rope.dimension_count', 'attention.value_length'])
    if ((size(key) ?? headDim) !== headDim)
      fail(file, `${type}.${key}`, `${size(key)} is not the head size, ${headDim}`)
  const table = required(file, 'token_embd.weight', file.tensors.get('token_embd.weight'))
  const given = Object.entries(multipliers).flatMap(([name, key]) => {
    const value = number(file, `${type}.${key}`)
    return value === undefined ? [] : [[name, value] as const]
  })
  return {
    architectures: [className],
    model_type: modelType,
    ...Object.fromEntries(given),
    // llama.cpp knows by itself which layers have a window, and the rotary base there.
    ...(isGemma && { sliding_window: needed('attention.sliding_window'), query_pre_attn_scalar: headDim }),
    vocab_size: table.shape[0],
    hidden_size: hiddenSize,
    intermediate_size: positive('feed_forward_length'),
    num_hidden_layers: positive('block_count'),
    num_attention_heads: numAttentionHeads,
    num_key_value_heads: size('attention.head_count_kv') ?? numAttentionHeads,
    head_dim: headDim,
    hidden_act: 'silu',
    rms_norm_eps: required(
      file,
      `${type}.attention.layer_norm_rms_epsilon`,
      number(file, `${type}.attention.layer_norm_rms_epsilon`),
    ),
    max_position_embeddings: positive('context_length'),
    rope_parameters: await ropeParameters(file, type),
    tie_word_embeddings: !file.tensors.has('output.weight'),
    attention_bias: type !== 'qwen2' && file.tensors.has('blk.0.attn_q.bias'),
    mlp_bias: file.tensors.has('blk.0.ffn_up.bias'),
  }
}

/** Scaling as config.json has it. What Llama 3 does lies in the file as one divisor per frequency: rope_type `factors`. */
async function ropeParameters(file: GgufFile, type: string): Promise<Record<string, unknown>> {
  const theta = { rope_theta: number(file, `${type}.rope.freq_base`) ?? 10_000 }
  const divisors = file.tensors.get('rope_freqs.weight')
  if (divisors) return { rope_type: 'factors', factors: [...(await readFloats(divisors))], ...theta }
  const kind = string(file, `${type}.rope.scaling.type`)
  const factor = number(file, `${type}.rope.scaling.factor`) ?? number(file, `${type}.rope.scale_linear`)
  if (kind === 'none' || (kind ?? 'linear') === 'linear')
    return kind === 'none' || factor === undefined || factor === 1
      ? { rope_type: 'default', ...theta }
      : { rope_type: 'linear', factor, ...theta }
  const scaling = (key: string) => number(file, `${type}.rope.scaling.${key}`)
  for (const key of ['attn_factor', 'yarn_attn_factor', 'yarn_ext_factor'])
    if ((scaling(key) ?? 1) !== 1) fail(file, `${type}.rope.scaling.${key}`, `${scaling(key)} is not supported (1 is)`)
  return {
    rope_type: kind,
    factor,
    original_max_position_embeddings: integer(file, `${type}.rope.scaling.original_context_length`),
    beta_fast: scaling('yarn_beta_fast'),
    beta_slow: scaling('yarn_beta_slow'),
    ...theta,
  }
}

export const outerNames: Readonly<Record<string, string>> = {
  'token_embd.weight': 'model.embed_tokens.weight',
  'output_norm.weight': 'model.norm.weight',
  'output.weight': 'lm_head.weight',
}

export const layerNames: Readonly<Record<string, string>> = {
  attn_norm: 'input_layernorm',
  ffn_norm: 'post_attention_layernorm',
  attn_q: 'self_attn.q_proj',
  attn_k: 'self_attn.k_proj',
  attn_v: 'self_attn.v_proj',
  attn_output: 'self_attn.o_proj',
  attn_q_norm: 'self_attn.q_norm',
  attn_k_norm: 'self_attn.k_norm',
  ffn_gate: 'mlp.gate_proj',
  ffn_up: 'mlp.up_proj',
  ffn_down: 'mlp.down_proj',
}

const gemmaLayerNames: Readonly<Record<string, string>> = {
  ...layerNames,
  post_attention_norm: 'post_attention_layernorm',
  ffn_norm: 'pre_feedforward_layernorm',
  post_ffw_norm: 'post_feedforward_layernorm',
}

function renameTensors(file: GgufFile, heads: number, keyValueHeads: number): Map<string, StoredTensor> {
  const { isInterleaved, isGemma } = architectures[string(file, 'general.architecture')!]
  const names = isGemma ? gemmaLayerNames : layerNames
  const ours = (tensor: StoredTensor) => (isGemma && tensor.shape.length === 1 ? lessOne(tensor) : tensor)
  const reorderedHeads = new Map(
    isInterleaved
      ? [
          ['attn_q', heads],
          ['attn_k', keyValueHeads],
        ]
      : [],
  )
  const renamed = new Map<string, StoredTensor>()
  for (const [name, tensor] of file.tensors) {
    if (name === 'rope_freqs.weight') continue
    if (Object.hasOwn(outerNames, name)) {
      renamed.set(outerNames[name], { ...ours(tensor), name: outerNames[name] })
      continue
    }
    const [, layer, part, kind] = /^blk\.(\d{1,6})\.(\w+)\.(weight|bias)$/.exec(name) ?? []
    if (part === undefined || !Object.hasOwn(names, part)) return fail(file, name, 'is no tensor of this architecture')
    const to = `model.layers.${layer}.${names[part]}.${kind}`
    const count = reorderedHeads.get(part)
    renamed.set(to, { ...(count === undefined ? ours(tensor) : halfSplit(tensor, count)), name: to })
  }
  return renamed
}

/** A norm as config.json's family has it: to be added to 1. */
function lessOne(tensor: StoredTensor): StoredTensor {
  if (tensor.dtype !== 'F32')
    throw new FormatError(`${tensor.file}: ${tensor.name}: ${tensor.dtype} where F32 is needed`)
  return {
    ...tensor,
    async read(byteOffset, byteLength) {
      const bytes = await tensor.read(byteOffset, byteLength)
      return new Uint8Array(new Float32Array(bytes.slice().buffer).map((x) => x - 1).buffer)
    },
  }
}

/** The tensor with the rows of each head back in HF's order: row 2j + i of a head in the file is row i · D/2 + j. */
const halfSplit = (tensor: StoredTensor, heads: number): StoredTensor =>
  reordered(tensor, heads, (row, size) => (row & 1) * (size / 2) + (row >>> 1))

/** The other way round. */
export const interleaved = (tensor: StoredTensor, heads: number): StoredTensor =>
  reordered(tensor, heads, (row, size) => (row < size / 2 ? 2 * row : 2 * row - size + 1))

/** The tensor with the rows of each head in other places. Throws FormatError for rows that are no heads of an even size. */
function reordered(tensor: StoredTensor, heads: number, place: (row: number, size: number) => number): StoredTensor {
  const rows = tensor.shape[0] ?? 0
  const headRows = rows / heads
  if (!Number.isInteger(headRows / 2) || headRows === 0)
    throw new FormatError(`${tensor.file}: ${tensor.name}: its ${rows} rows are not ${heads} heads of an even size`)
  const rowBytes = tensor.bytes / rows
  const headBytes = headRows * rowBytes
  return {
    ...tensor,
    /** Whole heads are read, as many as the range touches. */
    async read(byteOffset = 0, byteLength = tensor.bytes - byteOffset) {
      const first = Math.floor(byteOffset / headBytes) * headBytes
      const last = Math.ceil((byteOffset + byteLength) / headBytes) * headBytes
      const stored = await tensor.read(first, last - first)
      const ordered = new Uint8Array(stored.length)
      for (let row = 0; row * rowBytes < stored.length; row++) {
        const inHead = row % headRows
        const to = row - inHead + place(inHead, headRows)
        ordered.set(stored.subarray(row * rowBytes, (row + 1) * rowBytes), to * rowBytes)
      }
      return ordered.length === byteLength
        ? ordered
        : ordered.slice(byteOffset - first, byteOffset - first + byteLength)
    },
  }
}
