import { gpt2Split } from '../pattern.ts'
import type { GgufFile } from './gguf.ts'
import { boolean, fail, required, string, strings } from './gguf-metadata.ts'

export interface GgufTokenizer {
  /** As tokenizer.json has it. */
  readonly tokenizerJson: Record<string, unknown>
  /** As tokenizer_config.json has it. */
  readonly tokenizerConfig: Record<string, unknown>
  readonly bosTokenId?: number
  readonly padTokenId?: number
  /** Every token that ends a turn or a text. */
  readonly eosTokenIds: readonly number[]
  /** What of the metadata is passed over, in sentences. */
  readonly warnings: readonly string[]
}

interface Vocabulary {
  readonly tokens: readonly string[]
  readonly types: ArrayLike<number>
  /** The last of equal ones, as llama.cpp has it; rows of the table that no token has are left out. */
  readonly ids: Vocab
}

/** A Map, since an object of so many keys takes long to make; in JSON it is one. */
class Vocab extends Map<string, number> {
  toJSON(): Record<string, number> {
    return Object.fromEntries(this)
  }
}

/** tokenizer.ggml.token_type */
export const unknownType = 2
export const controlType = 3
export const userDefinedType = 4

/** What converters call a row of the table that no token has. */
export const unusedName = (id: number): string => `[PAD${id}]`

/** Tokens that end a turn or a text whatever the metadata says (llama.cpp's list, as far as our families have them). */
export const endings = [
  '<|im_end|>',
  '<|endoftext|>',
  '<|eot_id|>',
  '<|eom_id|>',
  '<|end_of_text|>',
  '<|end|>',
  '<end_of_turn>',
]

/** The tokenizer in a GGUF file's metadata as the files of an HF snapshot. Throws FormatError. */
export function ggufTokenizer(file: GgufFile): GgufTokenizer {
  const kind = required(file, 'tokenizer.ggml.model', string(file, 'tokenizer.ggml.model'))
  if (kind !== 'gpt2' && kind !== 'llama')
    fail(file, 'tokenizer.ggml.model', `"${kind}" is not supported (gpt2, that is BPE, and llama, SentencePiece, are)`)
  const vocabulary = readVocabulary(file)
  const parts = kind === 'gpt2' ? bytePairs(file) : sentencePieces(file, vocabulary)
  const warnings: string[] = []
  const id = (name: string): number | undefined => {
    const key = `tokenizer.ggml.${name}_token_id`
    const value = file.metadata.get(key)
    if (value === undefined) return undefined
    if (typeof value !== 'bigint' && !Number.isInteger(value)) fail(file, key, 'is not a token id')
    if (vocabulary.tokens[value as number] !== undefined) return value as number
    // Converters write -1, or what the vocabulary lost.
    warnings.push(`${file.name}: ${key}: no token has the id ${value}: passed over`)
    return undefined
  }
  const spm = kind === 'llama'
  const bos = id('bos') ?? (spm ? vocabulary.ids.get('<s>') : undefined)
  const eos = id('eos') ?? (spm ? vocabulary.ids.get('</s>') : undefined)
  const unknown = id('unknown') ?? (spm ? vocabulary.ids.get('<unk>') : undefined)
  const pad = id('padding')
  const eosTokenIds = new Set(
    [eos, id('eot'), id('eom'), ...endings.map((text) => vocabulary.ids.get(text))].filter((n) => n !== undefined),
  )
  const addBos = boolean(file, 'tokenizer.ggml.add_bos_token') ?? (spm || parts.addBos === true)
  const addEos = boolean(file, 'tokenizer.ggml.add_eos_token') ?? false
  const text = (n: number | undefined) => (n === undefined ? undefined : vocabulary.tokens[n])
  return {
    tokenizerJson: {
      version: '1.0',
      truncation: null,
      padding: null,
      added_tokens: addedTokens(vocabulary, new Set([bos, eos, unknown, pad, ...eosTokenIds])),
      normalizer: parts.normalizer,
      pre_tokenizer: parts.preTokenizer,
      post_processor: frame(addBos ? text(bos) : undefined, addEos ? text(eos) : undefined, vocabulary),
      decoder: parts.decoder,
      model: {
        type: 'BPE',
        dropout: null,
        unk_token: spm ? (text(unknown) ?? null) : null,
        continuing_subword_prefix: null,
        end_of_word_suffix: null,
        fuse_unk: spm,
        byte_fallback: spm,
        ignore_merges: parts.ignoreMerges === true,
        vocab: vocabulary.ids,
        merges: parts.merges,
      },
    },
    tokenizerConfig: {
      tokenizer_class: 'PreTrainedTokenizerFast',
      bos_token: text(bos) ?? null,
      eos_token: text(eos) ?? null,
      unk_token: spm ? (text(unknown) ?? null) : null,
      pad_token: text(pad) ?? null,
      add_bos_token: addBos && bos !== undefined,
      add_eos_token: addEos && eos !== undefined,
      clean_up_tokenization_spaces: false,
    },
    bosTokenId: bos,
    padTokenId: pad,
    eosTokenIds: [...eosTokenIds],
    warnings,
  }
}

function readVocabulary(file: GgufFile): Vocabulary {
  const key = 'tokenizer.ggml.tokens'
  const tokens = required(file, key, strings(file, key))
  const types = file.metadata.get('tokenizer.ggml.token_type') ?? new Int32Array(tokens.length).fill(1)
  if (!(types instanceof Int32Array || types instanceof Uint32Array) || types.length !== tokens.length)
    return fail(file, 'tokenizer.ggml.token_type', `is not a list of ${tokens.length} integers`)
  const ids = new Vocab()
  for (const [id, token] of tokens.entries()) if (!token.startsWith('[') || token !== unusedName(id)) ids.set(token, id)
  return { tokens, types, ids }
}

/** Tokens that are found in a text before anything else. `named`: those that metadata names; they count as control tokens. */
function addedTokens({ tokens, types }: Vocabulary, named: ReadonlySet<number | undefined>): unknown[] {
  const added = []
  for (const [id, content] of tokens.entries()) {
    const special = types[id] === controlType || types[id] === unknownType || named.has(id)
    if ((!special && types[id] !== userDefinedType) || content === '') continue
    added.push({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special })
  }
  return added
}

function frame(before: string | undefined, after: string | undefined, { ids }: Vocabulary): unknown {
  if (before === undefined && after === undefined) return null
  const around = (sequences: unknown[]) => [
    ...(before === undefined ? [] : [{ SpecialToken: { id: before, type_id: 0 } }]),
    ...sequences,
    ...(after === undefined ? [] : [{ SpecialToken: { id: after, type_id: 0 } }]),
  ]
  const used = [before, after].filter((token) => token !== undefined)
  return {
    type: 'TemplateProcessing',
    single: around([{ Sequence: { id: 'A', type_id: 0 } }]),
    pair: around([{ Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 1 } }]),
    special_tokens: Object.fromEntries(used.map((id) => [id, { id, ids: [ids.get(id)], tokens: [id] }])),
  }
}

interface Parts {
  readonly normalizer: unknown
  readonly preTokenizer: unknown
  readonly decoder: unknown
  readonly merges: readonly (readonly [string, string])[]
  readonly ignoreMerges?: boolean
  readonly addBos?: boolean
}

const contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
const modernSplit = (digits: string): string =>
  `${contractions}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`

interface PreTokenizer {
  /** Applied one after the other. */
  readonly splits: readonly string[]
  readonly normalizer?: { readonly type: string }
  readonly ignoreMerges?: boolean
  readonly addBos?: boolean
}

const gpt2: PreTokenizer = { splits: [gpt2Split] }
const gpt2Digits: PreTokenizer = { splits: ['\\p{N}', gpt2Split] }
const qwen2: PreTokenizer = { splits: [modernSplit('\\p{N}')], normalizer: { type: 'NFC' } }
const threeDigits: PreTokenizer = { splits: [modernSplit('\\p{N}{1,3}')] }
const llama3: PreTokenizer = { ...threeDigits, ignoreMerges: true, addBos: true }

/** By tokenizer.ggml.pre. */
export const preTokenizers: Readonly<Record<string, PreTokenizer>> = {
  default: { splits: ['[\\p{P}\\$\\+<=>\\^~\\|]+', gpt2Split, '\\p{N}+', '[0-9][0-9][0-9]'] },
  'gpt-2': gpt2,
  'phi-2': gpt2,
  mpt: gpt2,
  olmo: gpt2,
  exaone4: gpt2,
  starcoder: gpt2Digits,
  refact: gpt2Digits,
  'command-r': gpt2Digits,
  smollm: gpt2Digits,
  codeshell: gpt2Digits,
  qwen2,
  'deepseek-r1-qwen': qwen2,
  megrez: qwen2,
  'llama-bpe': llama3,
  llama3,
  'llama-v3': llama3,
  falcon3: llama3,
  dbrx: threeDigits,
  'smaug-bpe': threeDigits,
}

function bytePairs(file: GgufFile): Parts {
  const pre = string(file, 'tokenizer.ggml.pre') ?? 'default'
  if (!Object.hasOwn(preTokenizers, pre))
    fail(file, 'tokenizer.ggml.pre', `"${pre}" is not supported: use the model's folder with its tokenizer.json`)
  const { splits, normalizer = null, ignoreMerges, addBos } = preTokenizers[pre]
  const key = 'tokenizer.ggml.merges'
  const merges = required(file, key, strings(file, key)).map((merge, i): [string, string] => {
    // Neither part is empty; the first may start with a space.
    const space = merge.indexOf(' ', 1)
    if (space < 0) fail(file, key, `merge ${i} (${JSON.stringify(merge.slice(0, 40))}) is not a pair of tokens`)
    return [merge.slice(0, space), merge.slice(space + 1)]
  })
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false }
  return {
    normalizer,
    preTokenizer: {
      type: 'Sequence',
      pretokenizers: [
        ...splits.map((Regex) => ({ type: 'Split', pattern: { Regex }, behavior: 'Isolated', invert: false })),
        byteLevel,
      ],
    },
    decoder: byteLevel,
    merges,
    ignoreMerges,
    addBos,
  }
}

/** Longer tokens are never made of two others: SentencePiece's own limit is 16 characters unless told otherwise. */
const maxPiece = 512

/**
 * llama.cpp joins any two neighbours whose text together is a token, best score first. As BPE merges: every split of every
 * token into two tokens, ranked by the score of the whole.
 */
function sentencePieces(file: GgufFile, { tokens, ids }: Vocabulary): Parts {
  const key = 'tokenizer.ggml.scores'
  const scores = required(file, key, file.metadata.get(key))
  if (!(scores instanceof Float32Array) || scores.length !== tokens.length)
    return fail(file, key, `is not a list of ${tokens.length} scores`)
  if (scores.some(Number.isNaN)) return fail(file, key, 'has a score that is not a number')
  const merges: { pair: [string, string]; score: number }[] = []
  for (const [token, id] of ids) {
    if (token.length > maxPiece) continue
    for (let at = 0; ; ) {
      at += (token.codePointAt(at) ?? 0) > 0xffff ? 2 : 1
      if (at >= token.length) break
      const pair: [string, string] = [token.slice(0, at), token.slice(at)]
      if (ids.has(pair[0]) && ids.has(pair[1])) merges.push({ pair, score: scores[id] })
    }
  }
  merges.sort((a, b) => b.score - a.score)
  const prefix = boolean(file, 'tokenizer.ggml.add_space_prefix') ?? true
  const spaces = { type: 'Replace', pattern: { String: ' ' }, content: '▁' }
  return {
    normalizer: { type: 'Sequence', normalizers: [...(prefix ? [{ type: 'Prepend', prepend: '▁' }] : []), spaces] },
    preTokenizer: null,
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        ...(prefix ? [{ type: 'Strip', content: ' ', start: 1, stop: 0 }] : []),
      ],
    },
    merges: merges.map(({ pair }) => pair),
  }
}
