import { Tokenizer as Library } from '@huggingface/tokenizers'
import { FormatError } from '../errors.ts'
import { isObject } from '../options.ts'
import { waysToMatch } from '../pattern.ts'
import { mendSteps } from './tokenizer-steps.ts'

type Json = Readonly<Record<string, unknown>>

/** Ids beyond this are lies: no vocabulary is near it. */
const maxTokenId = 2 ** 24
/** Ways to match: above the largest pattern in use (o200k has 9,000), below those that take for ever. */
const maxWays = 2 ** 14

/** A token that the configuration names. */
export interface SpecialToken {
  readonly text: string
  readonly id: number
}

/** Text to token ids and back: a tokenizer.json with its tokenizer_config.json. Make one with `loadTokenizer`. */
export class Tokenizer {
  /** Every id is below it. */
  readonly vocabSize: number
  /** Ids of control tokens: they have no text of their own. */
  readonly specialIds: ReadonlySet<number>
  readonly eosToken?: string
  readonly eosTokenId?: number
  readonly bosToken?: string
  readonly bosTokenId?: number
  readonly padToken?: string
  readonly padTokenId?: number
  private readonly library: Library
  private readonly makeFingerprint: () => string
  private knownFingerprint?: string
  private readonly frame: Frame | null

  /** @internal */
  constructor(library: Library, parts: Parts) {
    this.library = library
    this.vocabSize = parts.vocabSize
    this.specialIds = parts.specialIds
    this.makeFingerprint = parts.fingerprint
    this.frame = parts.frame
    ;[this.eosToken, this.eosTokenId] = [parts.eos?.text, parts.eos?.id]
    ;[this.bosToken, this.bosTokenId] = [parts.bos?.text, parts.bos?.id]
    ;[this.padToken, this.padTokenId] = [parts.pad?.text, parts.pad?.id]
  }

  /** 64-bit hash of vocabulary, merges and added tokens as 16 hex digits: equal for tokenizers that read text alike. */
  get fingerprint(): string {
    this.knownFingerprint ??= this.makeFingerprint()
    return this.knownFingerprint
  }

  /**
   * Token ids of a text. `addSpecialTokens` (default false): also what the tokenizer puts around a raw text, such as the
   * beginning-of-sequence token. Control tokens written in the text become control tokens.
   */
  encode(text: string, { addSpecialTokens = false }: { addSpecialTokens?: boolean } = {}): number[] {
    const options = { add_special_tokens: addSpecialTokens && !this.frame }
    const { ids, tokens } = asFormatError(() => this.library.encode(text, options))
    const lost = (ids as (number | undefined)[]).indexOf(undefined)
    if (lost >= 0)
      throw new FormatError(`tokenizer.json: the vocabulary has neither '${tokens[lost]}' nor an unknown-token`)
    return addSpecialTokens && this.frame ? [...this.frame.before, ...ids, ...this.frame.after] : ids
  }

  /**
   * Text of token ids. Ids that the vocabulary does not have (a table often has spare rows) have no text. Bytes that are
   * no UTF-8 become U+FFFD. Spaces before punctuation are never "cleaned up": `decode(encode(text))` is the text.
   */
  decode(ids: readonly number[], { skipSpecialTokens = false }: { skipSpecialTokens?: boolean } = {}): string {
    const known = ids.filter(
      (id) => this.library.id_to_token(id) !== undefined && !(skipSpecialTokens && this.specialIds.has(id)),
    )
    if (known.length === 0) return ''
    const options = { skip_special_tokens: false, clean_up_tokenization_spaces: false }
    return asFormatError(() => this.library.decode(known, options))
  }

  tokenToId(token: string): number | undefined {
    return this.library.token_to_id(token)
  }

  /** The vocabulary's own spelling, such as 'Ġhello' or '▁hello'. */
  idToToken(id: number): string | undefined {
    return this.library.id_to_token(id)
  }
}

interface Parts {
  readonly vocabSize: number
  readonly specialIds: ReadonlySet<number>
  fingerprint(): string
  readonly frame: Frame | null
  readonly eos?: SpecialToken
  readonly bos?: SpecialToken
  readonly pad?: SpecialToken
}

/** What add_bos_token and add_eos_token put around a raw text. */
interface Frame {
  readonly before: readonly number[]
  readonly after: readonly number[]
}

/**
 * Reads the contents of tokenizer.json and tokenizer_config.json.
 * Throws FormatError for missing parts, merges or configured tokens that the vocabulary lacks, and unknown kinds of parts.
 */
export function loadTokenizer(tokenizerJson: object, tokenizerConfig: object): Tokenizer {
  const json = tokenizerJson as Json
  const config = tokenizerConfig as Json
  const { ids, merges, model } = readModel(json)
  const added = readAddedTokens(json)
  for (const { content, id } of added) ids.set(content, id)
  for (const part of ['normalizer', 'pre_tokenizer', 'decoder']) checkPatterns(json[part], part)
  // The library asks for these keys; a file may leave them out.
  const complete = { normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null, ...json, model }
  const library = asFormatError(() => {
    // Of tokenizer_config.json the library would take what slow tokenizers alone obey.
    const library = new Library(
      { ...complete, pre_tokenizer: null, added_tokens: added },
      { eos_token: config.eos_token },
    )
    mendSteps(library, complete.pre_tokenizer)
    return library
  })
  if (merges) giveVocabulary(library, ids)
  const find = (key: string): SpecialToken | undefined => {
    const text = tokenText(config[key])
    if (text === undefined) return undefined
    const id = ids.get(text)
    if (id === undefined)
      throw new FormatError(`tokenizer_config.json: ${key} '${text}' is not in the vocabulary of tokenizer.json`)
    return { text, id }
  }
  const [eos, bos, pad] = [find('eos_token'), find('bos_token'), find('pad_token')]
  const specialIds = new Set(added.filter((t) => t.special).map((t) => t.id))
  for (const token of [eos, bos, pad]) if (token) specialIds.add(token.id)
  return new Tokenizer(library, {
    vocabSize: largest(ids.values()) + 1,
    specialIds,
    fingerprint: () => fingerprint(ids, merges ?? []),
    frame: readFrame(config, bos, eos),
    eos,
    bos,
    pad,
  })
}

/** What the library would make of the vocabulary, in one table where it makes three: a fifth of a second for 150,000 tokens. */
function giveVocabulary({ model }: Library, ids: Map<string, number>): void {
  if (!model) return
  model.tokens_to_ids = ids
  model.unk_token_id = ids.get(model.unk_token!)
  model.vocab = []
  for (const [token, id] of ids) model.vocab[id] = token
}

/** The library believes the file: what it stumbles over is a fault in it. */
function asFormatError<T>(work: () => T): T {
  try {
    return work()
  } catch (cause) {
    throw new FormatError(`tokenizer.json: ${(cause as Error).message}`, { cause })
  }
}

/** A normalizer, pre-tokenizer or decoder, and those in it: their patterns can be read, and none takes for ever. */
function checkPatterns(part: unknown, place: string): void {
  if (typeof part !== 'object' || part === null) return
  for (const [key, value] of Object.entries(part)) {
    checkPatterns(value, `${place}.${key}`)
    if (key !== 'pattern') continue
    const { Regex: regex, String: text } = (value ?? {}) as Json
    if (typeof regex !== 'string' && (typeof text !== 'string' || regex !== undefined))
      throw new FormatError(`tokenizer.json: ${place}.pattern is neither {"Regex": ...} nor {"String": ...}`)
    if (typeof regex === 'string' && !(waysToMatch(regex) <= maxWays))
      throw new FormatError(
        `tokenizer.json: ${place}.pattern: a repetition in a repetition, or too many of them, could take for ever`,
      )
  }
}

/** Throws FormatError when the tokenizer has ids for which a model's table of `rows` rows has no row. */
export function checkVocabulary(tokenizer: Tokenizer, rows: number): void {
  const last = tokenizer.vocabSize - 1
  if (last >= rows)
    throw new FormatError(
      `tokenizer.json: token '${tokenizer.idToToken(last)}' has id ${last}, the model's token table has only ${rows} rows: the tokenizer is another model's`,
    )
}

const largest = (values: Iterable<number>): number => {
  let max = -1
  for (const value of values) if (value > max) max = value
  return max
}

/** A token of tokenizer_config.json: a string, or an object with its content. */
export function tokenText(token: unknown): string | undefined {
  if (typeof token === 'string') return token
  return isObject(token) && typeof token.content === 'string' ? token.content : undefined
}

function checkId(id: unknown, token: string): number {
  if (!Number.isInteger(id) || (id as number) < 0 || (id as number) > maxTokenId)
    throw new FormatError(`tokenizer.json: token '${token}' has the id ${id}`)
  return id as number
}

type Merge = readonly [string, string]

/** Of BPE also the merges, and the model as the library takes it: without the vocabulary, which `giveVocabulary` gives. */
function readModel(json: Json): { ids: Map<string, number>; merges?: readonly Merge[]; model: Json } {
  const { model } = json
  if (!isObject(model)) throw new FormatError("tokenizer.json: it has no 'model'")
  const { vocab, type } = model
  const ids = new Map<string, number>()
  if (Array.isArray(vocab)) for (const [id, entry] of vocab.entries()) ids.set(String(entry?.[0]), id)
  else
    for (const [token, id] of vocab instanceof Map ? vocab : Object.entries(isObject(vocab) ? vocab : {}))
      ids.set(token, checkId(id, token))
  if (ids.size === 0) throw new FormatError("tokenizer.json: 'model.vocab' is missing or empty")
  if (type !== 'BPE') return { ids, model }
  if (!Array.isArray(model.merges)) throw new FormatError("tokenizer.json: a BPE model without 'model.merges'")
  const merges = model.merges.map(readMerge)
  const prefix = typeof model.continuing_subword_prefix === 'string' ? model.continuing_subword_prefix.length : 0
  checkMerges(merges, ids, prefix)
  return { ids, merges, model: { ...model, vocab: {}, merges } }
}

/** 'a b' in older files, ['a', 'b'] in newer ones. */
function readMerge(merge: unknown, index: number): Merge {
  const parts = typeof merge === 'string' ? merge.split(' ') : merge
  if (!Array.isArray(parts) || parts.length !== 2 || parts.some((part) => typeof part !== 'string'))
    throw new FormatError(`tokenizer.json: merge ${index} is not a pair of tokens: ${JSON.stringify(merge)}`)
  return parts as unknown as Merge
}

function checkMerges(merges: readonly Merge[], vocabulary: ReadonlyMap<string, number>, prefix: number): void {
  const check = (token: string, index: number) => {
    if (vocabulary.has(token)) return
    const [a, b] = merges[index]
    throw new FormatError(`tokenizer.json: the vocabulary lacks '${token}' of merge ${index} ('${a}' + '${b}')`)
  }
  for (let i = 0; i < merges.length; i++) {
    const [a, b] = merges[i]
    check(a, i)
    check(b, i)
    check(prefix === 0 ? a + b : a + b.slice(prefix), i)
  }
}

interface AddedToken {
  readonly content: string
  readonly id: number
  readonly special: boolean
}

function readAddedTokens(json: Json): AddedToken[] {
  const list = json.added_tokens ?? []
  if (!Array.isArray(list)) throw new FormatError("tokenizer.json: 'added_tokens' is not a list")
  return list.map((token, index) => {
    if (!isObject(token) || typeof token.content !== 'string' || token.content === '')
      throw new FormatError(`tokenizer.json: added token ${index} has no content`)
    return { ...token, content: token.content, id: checkId(token.id, token.content), special: token.special === true }
  })
}

/** As transformers does: where the configuration says so, these two replace the post-processor. */
function readFrame(config: Json, bos?: SpecialToken, eos?: SpecialToken): Frame | null {
  const { add_bos_token, add_eos_token } = config
  if (typeof add_bos_token !== 'boolean' && typeof add_eos_token !== 'boolean') return null
  return { before: add_bos_token && bos ? [bos.id] : [], after: add_eos_token && eos ? [eos.id] : [] }
}

/** FNV-1a over UTF-16 units in two lanes of 32 bits. */
function fingerprint(ids: ReadonlyMap<string, number>, merges: readonly Merge[]): string {
  let a = 0x811c9dc5
  let b = 0x6c62272e
  const unit = (x: number) => {
    a = Math.imul(a ^ x, 0x01000193)
    b = Math.imul(b ^ x ^ (a >>> 15), 0x01000193)
  }
  const text = (s: string) => {
    for (let i = 0; i < s.length; i++) unit(s.charCodeAt(i))
    unit(0x10000) // no UTF-16 unit: the end
  }
  for (const [token, id] of [...ids].sort(([, i], [, j]) => i - j)) {
    text(token)
    unit(id)
  }
  for (const merge of merges) merge.forEach(text)
  return [a, b].map((lane) => (lane >>> 0).toString(16).padStart(8, '0')).join('')
}
