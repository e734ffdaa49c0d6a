// The smallest model that this repository can make by itself: a random Qwen2 of two layers with a byte-level tokenizer,
// as a Hugging Face folder. It knows nothing; examples/demo.ts teaches it something.
//
//     npx tsx examples/tiny-model.ts <folder>

import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { fillNormal, nameCounter } from '../sdk/random.ts'

const hiddenSize = 64
const intermediateSize = 192
const numHiddenLayers = 2
const numAttentionHeads = 4
const numKeyValueHeads = 2
const headDim = hiddenSize / numAttentionHeads

const specialTokens = ['<|endoftext|>', '<|im_start|>', '<|im_end|>']
const tagTokens = ['<think>', '</think>', '<answer>', '</answer>']
const [endOfText, , endOfTurn] = [256, 257, 258]
/** 256 bytes and the tokens above, up to a multiple of 32, so that the table can be quantized. */
const vocabSize = 288

const chatTemplate = `{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}`

/** Writes config.json, model.safetensors, the tokenizer's files and generation_config.json. Same seed, same bytes. */
export async function writeTinyModel(folder: string, seed = 0): Promise<void> {
  await mkdir(folder, { recursive: true })
  const json = (name: string, value: object) => writeFile(join(folder, name), `${JSON.stringify(value, null, 2)}\n`)
  await json('config.json', {
    architectures: ['Qwen2ForCausalLM'],
    model_type: 'qwen2',
    vocab_size: vocabSize,
    hidden_size: hiddenSize,
    intermediate_size: intermediateSize,
    num_hidden_layers: numHiddenLayers,
    num_attention_heads: numAttentionHeads,
    num_key_value_heads: numKeyValueHeads,
    max_position_embeddings: 512,
    rope_theta: 10000,
    rms_norm_eps: 1e-6,
    hidden_act: 'silu',
    tie_word_embeddings: true,
    bos_token_id: endOfText,
    eos_token_id: endOfTurn,
    dtype: 'float32',
  })
  await json('generation_config.json', { eos_token_id: [endOfTurn, endOfText], max_new_tokens: 64 })
  await json('tokenizer_config.json', {
    tokenizer_class: 'Qwen2Tokenizer',
    eos_token: '<|im_end|>',
    pad_token: '<|endoftext|>',
    chat_template: chatTemplate,
  })
  await json('tokenizer.json', tokenizer())
  await writeFile(join(folder, 'model.safetensors'), safetensors(weights(seed)))
}

/** Byte-level BPE without merges: a token a byte. */
function tokenizer(): object {
  const addedToken = (content: string, i: number) => ({
    id: 256 + i,
    content,
    special: i < specialTokens.length,
    normalized: false,
    single_word: false,
    lstrip: false,
    rstrip: false,
  })
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false }
  return {
    version: '1.0',
    added_tokens: [...specialTokens, ...tagTokens].map(addedToken),
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: { type: 'BPE', vocab: Object.fromEntries(byteSymbols().map((c, byte) => [c, byte])), merges: [] },
  }
}

/** GPT-2's alphabet: printable bytes stand for themselves, the others for characters from U+0100 on. */
function byteSymbols(): string[] {
  let next = 0x100
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xff && byte !== 0xad)
    return String.fromCharCode(printable ? byte : next++)
  })
}

interface Weight {
  readonly name: string
  readonly shape: readonly number[]
  readonly data: Float32Array
}

function weights(seed: number): Weight[] {
  const matrix = (name: string, out: number, input: number): Weight => {
    const data = new Float32Array(out * input)
    fillNormal(data, 1 / Math.sqrt(input), seed, nameCounter(name))
    return { name, shape: [out, input], data }
  }
  const vector = (name: string, length: number, value: number): Weight => ({
    name,
    shape: [length],
    data: new Float32Array(length).fill(value),
  })
  const layer = (i: number): Weight[] => {
    const at = `model.layers.${i}`
    const [q, kv] = [numAttentionHeads * headDim, numKeyValueHeads * headDim]
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
    matrix('model.embed_tokens.weight', vocabSize, hiddenSize),
    ...Array.from({ length: numHiddenLayers }, (_, i) => layer(i)).flat(),
    vector('model.norm.weight', hiddenSize, 1),
  ]
}

/** The whole format: length of the header, the header (where each tensor lies), the tensors. */
function safetensors(tensors: readonly Weight[]): Uint8Array {
  const header: Record<string, object> = {}
  let at = 0
  for (const { name, shape, data } of tensors) {
    header[name] = { dtype: 'F32', shape, data_offsets: [at, at + data.byteLength] }
    at += data.byteLength
  }
  const text = JSON.stringify(header)
  const head = new TextEncoder().encode(text.padEnd(Math.ceil(text.length / 8) * 8))
  const file = new Uint8Array(8 + head.length + at)
  new DataView(file.buffer).setBigUint64(0, BigInt(head.length), true)
  file.set(head, 8)
  let end = 8 + head.length
  for (const { data } of tensors) {
    file.set(new Uint8Array(data.buffer), end)
    end += data.byteLength
  }
  return file
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const folder = process.argv[2]
  if (!folder) throw new Error('usage: npx tsx examples/tiny-model.ts <folder>')
  await writeTinyModel(folder)
  console.log(`${folder}: a random Qwen2 of ${numHiddenLayers} layers`)
}
