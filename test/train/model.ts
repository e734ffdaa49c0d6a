import type { FloatDType } from '../../sdk/dtype.ts'
import type { StoredTensor } from '../../sdk/formats/safetensors.ts'
import { LanguageModel } from '../../sdk/generate/language-model.ts'
import { type ModelConfig, parseConfig } from '../../sdk/model/config.ts'
import { describeOpened } from '../../sdk/model/describe.ts'
import { Model } from '../../sdk/model/model.ts'
import { weightShapes } from '../../sdk/model/names.ts'
import type { Precision } from '../../sdk/model/precision.ts'
import { fillNormal, nameCounter } from '../../sdk/random.ts'
import type { Target } from '../../sdk/target.ts'
import { loadTokenizer } from '../../sdk/text/tokenizer.ts'

// A random model of the Qwen2 architecture that exists in memory only, with a tokenizer of single bytes.

const configJson = {
  architectures: ['Qwen2ForCausalLM'],
  model_type: 'qwen2',
  vocab_size: 258,
  hidden_size: 64,
  intermediate_size: 96,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  rms_norm_eps: 1e-6,
  rope_theta: 10_000,
  max_position_embeddings: 256,
  tie_word_embeddings: true,
}

const chatTemplate =
  '{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}'

/** Byte-level BPE without merges: 256 bytes, then the two ChatML tokens. */
function tokenizerFiles() {
  // The byte-to-character table of GPT-2.
  const printable = [...Array(256).keys()].filter((b) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174)
  let spare = 256
  const character = (b: number) => String.fromCodePoint(printable.includes(b) ? b : spare++)
  const vocab = Object.fromEntries([...Array(256).keys()].map((b) => [character(b), b]))
  const added = ['<|im_start|>', '<|im_end|>'].map((content, i) => ({ id: 256 + i, content, special: true }))
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false }
  const tokenizerJson = {
    version: '1.0',
    added_tokens: added.map((t) => ({ ...t, single_word: false, lstrip: false, rstrip: false, normalized: false })),
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: { type: 'BPE', vocab, merges: [] },
  }
  return { tokenizerJson, tokenizerConfig: { eos_token: '<|im_end|>', pad_token: '<|im_end|>' } }
}

/** Every weight of a config, from a seeded generator; norms are 1. */
export function randomTensors(config: ModelConfig): Map<string, StoredTensor> {
  const tensors = new Map<string, StoredTensor>()
  for (const [name, shape] of weightShapes(config)) {
    const data = new Float32Array(shape.reduce((a, b) => a * b, 1))
    if (name.includes('norm')) data.fill(1)
    else fillNormal(data, 0.08, 7, nameCounter(name))
    const bytes = new Uint8Array(data.buffer)
    const read = async (offset = 0, length = bytes.length - offset) => bytes.slice(offset, offset + length)
    tensors.set(name, { name, dtype: 'F32', shape, bytes: bytes.length, file: 'random', read })
  }
  return tensors
}

/** With `reopen` it goes on with another target when its own was lost. */
export async function randomModel(
  target: Target,
  dtype: 'auto' | FloatDType = 'f32',
  maxPositions = configJson.max_position_embeddings,
  reopen?: () => Promise<Target>,
  precision?: Precision,
): Promise<LanguageModel> {
  const config = parseConfig({ ...configJson, max_position_embeddings: maxPositions }, 'random')
  const tensors = randomTensors(config)
  const model = await Model.load(target, config, tensors, 'random', { dtype })
  if (reopen) model.again = { openTarget: reopen, openTensors: async () => tensors }
  const files = {
    config: configJson,
    generationConfig: {},
    ...tokenizerFiles(),
    chatTemplate,
    title: null,
    license: null,
  }
  const tokenizer = loadTokenizer(files.tokenizerJson, files.tokenizerConfig)
  const template = { sources: { default: chatTemplate }, specialTokens: {} }
  const stored = { ...files, configFile: 'random', tensors, warnings: [] }
  const eosTokenIds = new Set([257])
  const description = describeOpened('random', { stored, config, tokenizer, template, eosTokenIds })
  return new LanguageModel(model, tokenizer, template, {}, eosTokenIds, files, description, precision)
}

/** Rows of different lengths. */
export const rows = Array.from({ length: 24 }, (_, i) => ({
  prompt: `${'abcdefgh'.repeat(1 + (i % 3)).slice(0, 5 + i)}? `,
  completion: `${i} times ${i % 5} is ${i * (i % 5)}.`,
}))
