import { byteLength } from '../../sdk/dtype.ts'
import type { StoredDType, StoredTensor } from '../../sdk/formats/stored.ts'
import type { StoredModel } from '../../sdk/formats/stored-model.ts'
import { parseConfig } from '../../sdk/model/config.ts'
import { weightShapes } from '../../sdk/model/names.ts'
import { fromFloats } from '../../sdk/quant/convert.ts'
import { bytesSource } from '../../sdk/store/byte-source.ts'
import { integers } from './shared.ts'

// Small models in memory, as openModel would give them.

export function stored(name: string, dtype: StoredDType, shape: readonly number[], bytes: Uint8Array): StoredTensor {
  const read = (at = 0, length = bytes.length - at) => bytesSource(name, bytes).read(at, length)
  return { name, dtype, shape, bytes: bytes.length, file: 'tiny', read }
}

export function randomFloats(count: number, seed: number): Float32Array {
  const next = integers(seed)
  return Float32Array.from({ length: count }, () => (next(2 ** 20) - 2 ** 19) / 2 ** 19)
}

/** Two layers; query rows 32 of 4 heads of 8 (unless the config says otherwise), random bf16 weights. */
export const tinyConfig = {
  model_type: 'llama',
  vocab_size: 290,
  hidden_size: 32,
  intermediate_size: 64,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-6,
  rope_theta: 10_000,
  tie_word_embeddings: true,
  bos_token_id: 256,
  eos_token_id: 257,
}

const byteTokens = (): string[] => {
  const plain = [...Array(256).keys()].filter((b) => (b > 32 && b < 127) || (b > 160 && b !== 173))
  let next = 256
  return Array.from({ length: 256 }, (_, b) => String.fromCodePoint(plain.includes(b) ? b : next++))
}

/** The regular expression of Qwen2. */
export const qwen2Split =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/** Bytes, three control tokens, one that is user-defined, and a few merges. */
export function tinyTokenizer(): Record<string, unknown> {
  const made = ['he', 'll', 'hell', 'hello', 'Ġt', 'Ġthe']
  const vocab = Object.fromEntries(
    [...byteTokens(), '<|end|>', '<|im_end|>', '<|pad|>', '<think>', ...made].map((t, i) => [t, i]),
  )
  const added = (id: number, content: string, special: boolean) => ({
    id,
    content,
    special,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
  })
  return {
    version: '1.0',
    added_tokens: [
      added(256, '<|end|>', true),
      added(257, '<|im_end|>', true),
      added(258, '<|pad|>', true),
      added(259, '<think>', false),
    ],
    normalizer: { type: 'NFC' },
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        { type: 'Split', pattern: { Regex: qwen2Split }, behavior: 'Isolated', invert: false },
        { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false },
      ],
    },
    decoder: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false },
    model: {
      type: 'BPE',
      vocab,
      merges: [
        ['h', 'e'],
        ['l', 'l'],
        ['he', 'll'],
        ['hell', 'o'],
        ['Ġ', 't'],
        ['Ġt', 'he'],
      ],
    },
  }
}

export function tinySource(changes: Record<string, unknown> = {}, tokenizerJson = tinyTokenizer()): StoredModel {
  const config = { ...tinyConfig, ...changes }
  const tensors = new Map<string, StoredTensor>()
  for (const [name, shape] of weightShapes(parseConfig(config, 'tiny'))) {
    const floats = randomFloats(
      shape.reduce((a, b) => a * b, 1),
      tensors.size + 1,
    )
    const bytes = fromFloats(floats, 'bf16')
    if (bytes.length !== byteLength({ dtype: 'bf16', shape })) throw new Error(name)
    tensors.set(name, stored(name, 'BF16', shape, bytes))
  }
  return {
    config,
    configFile: 'tiny/config.json',
    title: null,
    license: null,
    generationConfig: { eos_token_id: [257, 256], temperature: 0.7 },
    tokenizerJson,
    tokenizerConfig: { eos_token: '<|im_end|>', pad_token: '<|pad|>' },
    chatTemplate: '{% for m in messages %}{{ m.content }}{% endfor %}',
    tensors,
    warnings: [],
  }
}
