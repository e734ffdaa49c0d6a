import { FormatError } from '../errors.ts'
import { gpt2Split } from '../pattern.ts'
import { bytesSource } from '../store/byte-source.ts'
import { openGguf } from './gguf.ts'
import {
  controlType,
  endings,
  ggufTokenizer,
  preTokenizers,
  unknownType,
  unusedName,
  userDefinedType,
} from './gguf-tokenizer.ts'
import { type GgufEntry, ggufHeader } from './gguf-write.ts'

/** What a tokenizer.json does not say by itself. */
export interface TokenizerFrame {
  /** Rows of the token table: ids beyond the vocabulary are named as unused. */
  readonly rows: number
  readonly bosTokenId?: number
  readonly padTokenId?: number
  /** The first is the one that ends a text. */
  readonly eosTokenIds: readonly number[]
  /** Does it put them around a raw text? */
  readonly addBos: boolean
  readonly addEos: boolean
}

type Json = Readonly<Record<string, unknown>>
const normalType = 1
const unusedType = 5
const byteType = 6

const fail = (message: string): never => {
  throw new FormatError(`tokenizer.json: ${message}, which GGUF cannot hold: write a folder instead`)
}

/**
 * The tokenizer.ggml entries of a tokenizer.json (valid, as `loadTokenizer` takes it): the inverse of `ggufTokenizer`.
 *
 * @throws FormatError for a kind of tokenizer that GGUF has no name for
 */
export async function ggufTokenizerEntries(
  tokenizerJson: Json,
  frame: TokenizerFrame,
): Promise<Map<string, GgufEntry>> {
  const model = tokenizerJson.model as Json
  if (model.type !== 'BPE') fail(`its model is ${model.type}, not BPE`)
  for (const key of ['continuing_subword_prefix', 'end_of_word_suffix'] as const) if (model[key]) fail(`has a ${key}`)
  const { tokens, types } = vocabulary(tokenizerJson, model, frame.rows)
  const merges = (model.merges as (string | readonly [string, string])[]).map((merge) =>
    typeof merge === 'string' ? merge : merge.join(' '),
  )
  const pieces = model.byte_fallback === true
  const entries = new Map<string, GgufEntry>([
    ['tokenizer.ggml.model', { string: pieces ? 'llama' : 'gpt2' }],
    ['tokenizer.ggml.pre', { string: pieces ? 'default' : preTokenizerName(tokenizerJson, model) }],
    ['tokenizer.ggml.tokens', { strings: tokens }],
    ['tokenizer.ggml.token_type', { i32s: types }],
  ])
  if (pieces) {
    entries.set('tokenizer.ggml.scores', { f32s: scores(tokens, merges) })
    entries.set('tokenizer.ggml.add_space_prefix', { bool: addsSpace(tokenizerJson) })
  } else entries.set('tokenizer.ggml.merges', { strings: merges })
  const [eos, ...others] = frame.eosTokenIds
  const [eot, eom, ...more] = others.filter((id) => !endings.includes(tokens[id]))
  if (more.length > 0) fail(`${frame.eosTokenIds.length} tokens end a text`)
  const unknown = pieces && typeof model.unk_token === 'string' ? tokens.indexOf(model.unk_token) : undefined
  const ids = { bos: frame.bosTokenId, eos, eot, eom, unknown, padding: frame.padTokenId }
  for (const [key, id] of Object.entries(ids))
    if (id !== undefined) entries.set(`tokenizer.ggml.${key}_token_id`, { u32: id })
  entries.set('tokenizer.ggml.add_bos_token', { bool: frame.addBos })
  entries.set('tokenizer.ggml.add_eos_token', { bool: frame.addEos })
  if (pieces) await checkMerges(entries, merges)
  return entries
}

function vocabulary(json: Json, model: Json, rows: number): { tokens: string[]; types: Int32Array } {
  const tokens: (string | undefined)[] = Array.from({ length: rows })
  const types = new Int32Array(rows).fill(unusedType)
  const put = (token: string, id: number, type: number) => {
    if (id >= rows || (tokens[id] ?? token) !== token) fail(`token '${token}' has the id ${id} of another`)
    tokens[id] = token
    types[id] = type
  }
  const vocab = model.vocab as Map<string, number> | Record<string, number>
  for (const [token, id] of vocab instanceof Map ? vocab : Object.entries(vocab))
    put(token, id, model.byte_fallback === true && /^<0x[0-9A-F]{2}>$/.test(token) ? byteType : normalType)
  const added = (json.added_tokens ?? []) as {
    content: string
    id: number
    special?: boolean
    [flag: string]: unknown
  }[]
  for (const { content, id, special, lstrip, rstrip, single_word } of added) {
    if (lstrip || rstrip || single_word)
      fail(`token '${content}' takes the spaces around it (lstrip, rstrip, single_word)`)
    put(content, id, special ? (content === model.unk_token ? unknownType : controlType) : userDefinedType)
  }
  return { tokens: tokens.map((token, id) => token ?? unusedName(id)), types }
}

/** The name under which GGUF knows how text is split into words. */
function preTokenizerName(json: Json, model: Json): string {
  const normalizer = (json.normalizer as Json | null | undefined)?.type
  if (normalizer !== undefined && normalizer !== 'NFC') fail(`its normalizer is ${normalizer}`)
  const splits = JSON.stringify(splitsOf(json.pre_tokenizer as Json | null))
  for (const [name, known] of Object.entries(preTokenizers)) {
    const reads = JSON.stringify(known.splits) === splits && known.normalizer?.type === normalizer
    if (reads && (known.ignoreMerges === true) === (model.ignore_merges === true)) return name
  }
  const named = 'none of those that have a name (gpt-2, qwen2, llama-bpe, smollm ...)'
  return fail(`its pre_tokenizer is ${named}, ${normalizer ? 'with NFC' : 'without NFC'}`)
}

/** The regular expressions of a byte-level pre-tokenizer. */
function splitsOf(pre: Json | null): string[] {
  const steps = (pre?.type === 'Sequence' ? pre.pretokenizers : [pre]) as (Json | null)[]
  const splits = steps.map((step) => {
    if (step?.type === 'ByteLevel' && !step.add_prefix_space) return step.use_regex === false ? '' : gpt2Split
    if (step?.type === 'Digits' && step.individual_digits === true) return '\\p{N}'
    const regex = step?.type === 'Split' ? (step.pattern as Json | undefined)?.Regex : undefined
    // The two are the same where every character belongs to a match.
    const keepsAll = step?.invert ? step.behavior === 'Removed' : step?.behavior === 'Isolated'
    return typeof regex === 'string' && keepsAll ? regex : fail(`its pre_tokenizer has a step ${step?.type}`)
  })
  if (steps.at(-1)?.type !== 'ByteLevel') fail('it is not byte-level')
  return splits.filter((split) => split !== '')
}

/** SentencePiece: does a text begin with a space of its own? */
function addsSpace(json: Json): boolean {
  const steps = (step: unknown, list: string): Json[] => {
    const one = step as Json | null | undefined
    return !one ? [] : one.type === 'Sequence' ? (one[list] as Json[]) : [one]
  }
  const [normalizers, pre] = [steps(json.normalizer, 'normalizers'), steps(json.pre_tokenizer, 'pretokenizers')]
  const strange = [...normalizers, ...pre].find(
    ({ type }) => !['Prepend', 'Replace', 'Metaspace'].includes(String(type)),
  )
  if (strange) fail(`it has a step ${strange.type}`)
  const metaspace = [...normalizers, ...pre].find(({ type }) => type === 'Metaspace')
  return metaspace ? metaspace.prepend_scheme !== 'never' : normalizers.some(({ type }) => type === 'Prepend')
}

/** A token that is made by an earlier merge scores higher; others are never made. */
function scores(tokens: readonly string[], merges: readonly string[]): Float32Array {
  const rank = new Map<string, number>()
  for (const merge of merges) {
    const made = merge.replace(' ', '')
    if (!rank.has(made)) rank.set(made, -1 - rank.size)
  }
  return Float32Array.from(tokens, (token) => rank.get(token) ?? 0)
}

/** SentencePiece joins whatever makes a token; merges that leave some of that out, or in another order, are no SentencePiece. */
async function checkMerges(entries: ReadonlyMap<string, GgufEntry>, merges: readonly string[]): Promise<void> {
  const file = await openGguf(bytesSource('tokenizer.json', ggufHeader(entries)))
  const { model } = ggufTokenizer(file).tokenizerJson as { model: { merges: [string, string][] } }
  const known = new Set(merges)
  const sameOrder = model.merges.every((pair, i) => pair.join('') === merges[i]?.replace(' ', ''))
  if (known.size !== model.merges.length || !sameOrder || !model.merges.every((pair) => known.has(pair.join(' '))))
    fail('its merges are not those of SentencePiece')
}
