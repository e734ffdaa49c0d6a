// A Qwen2 of any size with random weights, as a Hugging Face folder: what training from scratch starts from.

import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { writeSafetensors } from '../../sdk/index.ts'
import { fillNormal, nameCounter } from '../../sdk/random.ts'

export interface Shape {
  /** Rows of the vocabulary table: at least as many as the tokenizer has tokens. */
  readonly vocabSize: number
  readonly hiddenSize: number
  readonly intermediateSize: number
  readonly numHiddenLayers: number
  readonly numAttentionHeads: number
  readonly numKeyValueHeads: number
  readonly maxPositionEmbeddings: number
  /** Default 10,000. */
  readonly ropeTheta?: number
  /** Standard deviation of matrices; default 1/sqrt(columns). */
  readonly initializerRange?: number
}

export const specialTokens = ['<|endoftext|>', '<|im_start|>', '<|im_end|>']
export const tagTokens = ['<think>', '</think>', '<answer>', '</answer>']

const chatTemplate = `{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}`

/**
 * Writes config.json, model.safetensors, the tokenizer's files and generation_config.json. Same seed, same bytes.
 *
 * @param tokenizer tokenizer.json with the special tokens among its added ones
 */
export async function writeRandomQwen2(
  folder: string,
  shape: Shape,
  tokenizer: { added_tokens: { id: number; content: string }[] },
  seed: number,
): Promise<void> {
  await mkdir(folder, { recursive: true })
  const json = (name: string, value: object) => writeFile(join(folder, name), `${JSON.stringify(value, null, 2)}\n`)
  const idOf = (content: string) => tokenizer.added_tokens.find((token) => token.content === content)!.id
  const [endOfText, endOfTurn] = [idOf('<|endoftext|>'), idOf('<|im_end|>')]
  await json('config.json', {
    architectures: ['Qwen2ForCausalLM'],
    model_type: 'qwen2',
    vocab_size: shape.vocabSize,
    hidden_size: shape.hiddenSize,
    intermediate_size: shape.intermediateSize,
    num_hidden_layers: shape.numHiddenLayers,
    num_attention_heads: shape.numAttentionHeads,
    num_key_value_heads: shape.numKeyValueHeads,
    max_position_embeddings: shape.maxPositionEmbeddings,
    rope_theta: shape.ropeTheta ?? 10_000,
    rms_norm_eps: 1e-6,
    hidden_act: 'silu',
    tie_word_embeddings: true,
    bos_token_id: endOfText,
    eos_token_id: endOfTurn,
    dtype: 'float32',
  })
  await json('generation_config.json', { eos_token_id: [endOfTurn, endOfText], max_new_tokens: 128 })
  await json('tokenizer_config.json', {
    tokenizer_class: 'Qwen2Tokenizer',
    eos_token: '<|im_end|>',
    pad_token: '<|endoftext|>',
    chat_template: chatTemplate,
  })
  await json('tokenizer.json', tokenizer)
  await writeSafetensors(join(folder, 'model.safetensors'), weights(shape, seed), { format: 'pt' })
}

function weights(shape: Shape, seed: number) {
  const { hiddenSize, intermediateSize, numAttentionHeads, numKeyValueHeads, initializerRange } = shape
  const tensor = (name: string, shape: readonly number[], data: Float32Array) => ({
    name,
    dtype: 'F32' as const,
    shape,
    data: new Uint8Array(data.buffer),
  })
  const matrix = (name: string, out: number, input: number) => {
    const data = new Float32Array(out * input)
    fillNormal(data, initializerRange ?? 1 / Math.sqrt(input), seed, nameCounter(name))
    return tensor(name, [out, input], data)
  }
  const vector = (name: string, length: number, value: number) =>
    tensor(name, [length], new Float32Array(length).fill(value))
  const q = hiddenSize
  const kv = (hiddenSize / numAttentionHeads) * numKeyValueHeads
  const layer = (i: number) => {
    const at = `model.layers.${i}`
    return [
      vector(`${at}.input_layernorm.weight`, hiddenSize, 1),
      matrix(`${at}.self_attn.q_proj.weight`, q, hiddenSize),
      vector(`${at}.self_attn.q_proj.bias`, q, 0),
      matrix(`${at}.self_attn.k_proj.weight`, kv, hiddenSize),
      vector(`${at}.self_attn.k_proj.bias`, kv, 0),
      matrix(`${at}.self_attn.v_proj.weight`, kv, hiddenSize),
      vector(`${at}.self_attn.v_proj.bias`, kv, 0),
      matrix(`${at}.self_attn.o_proj.weight`, hiddenSize, q),
      vector(`${at}.post_attention_layernorm.weight`, hiddenSize, 1),
      matrix(`${at}.mlp.gate_proj.weight`, intermediateSize, hiddenSize),
      matrix(`${at}.mlp.up_proj.weight`, intermediateSize, hiddenSize),
      matrix(`${at}.mlp.down_proj.weight`, hiddenSize, intermediateSize),
    ]
  }
  return [
    matrix('model.embed_tokens.weight', shape.vocabSize, hiddenSize),
    ...Array.from({ length: shape.numHiddenLayers }, (_, i) => layer(i)).flat(),
    vector('model.norm.weight', hiddenSize, 1),
  ]
}
