import * as parts from '@huggingface/tokenizers'
import { isObject } from '../options.ts'
import { gpt2Split } from '../pattern.ts'

// What @huggingface/tokenizers 0.2.0 does otherwise than Python's tokenizers, and what stands in its place.

type Json = Readonly<Record<string, unknown>>
/** `isStart`: nothing of the text stands before it. */
type Step = (text: string, isStart: boolean) => string[]

/** A normalizer or decoder. */
interface Part {
  config: Json
  readonly normalizers?: readonly (Part | null)[]
  readonly decoders?: readonly Part[]
  readonly replacement: string
  readonly byte_decoder: Readonly<Record<string, number>>
  text_decoder: TextDecoder
  normalize(text: string): string
  decode_chain(tokens: readonly string[]): string[]
  convert_tokens_to_string(tokens: readonly string[]): string
}

interface Model {
  readonly tokens_to_ids: ReadonlyMap<string, number>
  readonly unk_token?: string | null
  readonly byte_fallback?: boolean
  fuse_unk: boolean
  bpe?(word: string): string[]
  encode(words: readonly string[]): string[]
}

interface AddedToken {
  lstrip: boolean
  rstrip: boolean
  readonly single_word: boolean
}

/** Parts of the library's tokenizer that it keeps to itself. */
interface Splitters {
  readonly splitter_unnormalized: { split(text: string): string[] }
  readonly splitter_normalized: { split(text: string): string[] }
  readonly added_tokens_map: ReadonlyMap<string, AddedToken>
}

/** The library's own types are lost in its package. */
const { SplitPreTokenizer, ByteLevelPreTokenizer } = parts as unknown as {
  SplitPreTokenizer: new (config: Json) => { readonly pattern: RegExp }
  ByteLevelPreTokenizer: new (config: Json) => { pre_tokenize_text(text: string): string[] }
}

/** Puts our steps in the place of those that read texts or ids otherwise than Python's do. Throws for an unknown pre-tokenizer. */
export function mendSteps(library: parts.Tokenizer, preTokenizer: unknown): void {
  if (isObject(preTokenizer)) {
    const step = stepOf(preTokenizer)
    library.pre_tokenizer = (text: string, place: { section_index: number }) => step(text, place.section_index === 0)
  }
  mendSplitters(library as unknown as Splitters)
  if (library.normalizer) mendNormalizer(library.normalizer)
  if (library.decoder) mendDecoder(library.decoder)
  if (library.model) mendModel(library.model)
}

const punctuation = '[\\p{P}!-/:-@\\[-`{-~]'

function stepOf(config: Json): Step {
  const { type } = config
  switch (type) {
    case 'Sequence': {
      const steps = (config.pretokenizers as Json[]).map(stepOf)
      return (text, isStart) =>
        steps.reduce((pieces, step) => pieces.flatMap((piece, i) => step(piece, isStart && i === 0)), [text])
    }
    case 'ByteLevel': {
      // White space is Unicode's, to which U+FEFF does not belong.
      const split = config.use_regex === false ? (text: string) => [text] : splitStep({ Regex: gpt2Split })
      const bytes = new ByteLevelPreTokenizer({ use_regex: false })
      const prefix = config.add_prefix_space ? ' ' : ''
      return (text, isStart) =>
        split(text.startsWith(' ') ? text : prefix + text, isStart).flatMap((piece) => bytes.pre_tokenize_text(piece))
    }
    case 'Metaspace': {
      const { replacement = '▁', prepend_scheme: scheme = 'always' } = config as { [key: string]: string }
      const split =
        config.split === false ? (text: string) => [text] : splitStep({ String: replacement }, 'MergedWithNext')
      return (text, isStart) => {
        const spaced = text.replaceAll(' ', replacement)
        const prepends = !spaced.startsWith(replacement) && (scheme === 'always' || (scheme === 'first' && isStart))
        return split(prepends ? replacement + spaced : spaced, isStart)
      }
    }
    case 'Split':
      return splitStep(config.pattern as Json, String(config.behavior ?? 'Isolated'), config.invert === true)
    case 'Digits':
      return splitStep({ Regex: config.individual_digits ? '\\p{N}' : '\\p{N}+' })
    case 'Punctuation':
      return splitStep({ Regex: punctuation }, String(config.behavior ?? 'Isolated'))
    case 'Whitespace':
      return splitStep({ Regex: '\\w+|[^\\w\\s]+' }, 'Removed', true)
    case 'WhitespaceSplit':
      return splitStep({ Regex: '\\s+' }, 'Removed')
    case 'CharDelimiterSplit':
      return splitStep({ String: config.delimiter }, 'Removed')
    case 'FixedLength':
      return splitStep({ Regex: `[\\s\\S]{1,${config.length ?? 5}}` })
    case 'BertPreTokenizer':
      return stepOf({ type: 'Sequence', pretokenizers: [{ type: 'WhitespaceSplit' }, { type: 'Punctuation' }] })
    default:
      throw new Error(`Unknown PreTokenizer type: ${type}`)
  }
}

const behaviors = ['Isolated', 'Removed', 'MergedWithPrevious', 'MergedWithNext', 'Contiguous']

/** Cuts at the matches of a pattern, or with `invert` at what lies between them; `behavior` says what becomes of where it cuts. */
function splitStep(pattern: Json, behavior = 'Isolated', invert = false): Step {
  if (!behaviors.includes(behavior))
    throw new Error(`Split: the behavior ${behavior} is none of ${behaviors.join(', ')}`)
  // The library reads Oniguruma's syntax.
  const { pattern: regex } = new SplitPreTokenizer({ pattern, invert: true })
  return (text) => {
    const spans: { text: string; isCut: boolean }[] = []
    let end = 0
    for (const { 0: match, index } of text.matchAll(regex)) {
      if (index > end) spans.push({ text: text.slice(end, index), isCut: invert })
      spans.push({ text: match, isCut: !invert })
      end = index + match.length
    }
    if (end < text.length) spans.push({ text: text.slice(end), isCut: invert })
    const pieces: string[] = []
    for (const [i, { text, isCut }] of spans.entries()) {
      const before = spans[i - 1]?.isCut
      const joinsLast =
        (behavior === 'MergedWithPrevious' && isCut && before === false) ||
        (behavior === 'MergedWithNext' && !isCut && before === true) ||
        (behavior === 'Contiguous' && isCut === before)
      if (behavior === 'Removed' && isCut) continue
      if (joinsLast && pieces.length > 0) pieces[pieces.length - 1] += text
      else pieces.push(text)
    }
    return pieces.filter((piece) => piece !== '')
  }
}

const [wordStart, wordEnd] = ['^W', 'W$'].map(
  (place) => new RegExp(place.replace('W', '[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\u200c\\u200d]'), 'u'),
)

const spacesAtStart = /^\p{White_Space}+/u
const spacesAtEnd = /\p{White_Space}+$/u

/** Added tokens take white space around them, or stand between other letters, where they say so. */
function mendSplitters({ splitter_normalized, splitter_unnormalized, added_tokens_map: known }: Splitters): void {
  const flags = new Map([...known].map(([text, token]) => [text, { ...token }]))
  if (![...flags.values()].some((token) => token.lstrip || token.rstrip || token.single_word)) return
  // Then the library has nothing to strip.
  for (const token of known.values()) token.lstrip = token.rstrip = false
  for (const splitter of [splitter_normalized, splitter_unnormalized]) {
    const { split } = splitter
    splitter.split = (text) => {
      const pieces: string[] = []
      let [at, done] = [0, 0]
      for (const found of split.call(splitter, text)) {
        const [start, end] = [at, at + found.length]
        at = end
        const token = flags.get(found)
        if (!token) continue
        if (
          token.single_word &&
          (wordEnd.test(text.slice(Math.max(0, start - 2), start)) || wordStart.test(text.slice(end)))
        )
          continue
        const from = token.lstrip ? done + text.slice(done, start).replace(spacesAtEnd, '').length : start
        const to = token.rstrip ? text.length - text.slice(end).replace(spacesAtStart, '').length : end
        if (done < from) pieces.push(text.slice(done, from))
        // It may lie within what the one before took.
        if (from < to) pieces.push(found)
        done = to
      }
      return [...pieces, text.slice(done)].filter((piece) => piece !== '')
    }
  }
}

function mendNormalizer(step: Part): void {
  const { type, strip_left, strip_right } = step.config
  for (const one of step.normalizers ?? []) if (one) mendNormalizer(one)
  // A sigma at the end of a word is one like others.
  if (type === 'Lowercase') step.normalize = (text) => Array.from(text, (c) => c.toLowerCase()).join('')
  if (type === 'Strip')
    step.normalize = (text) => {
      const begun = strip_left ? text.replace(spacesAtStart, '') : text
      return strip_right ? begun.replace(spacesAtEnd, '') : begun
    }
  if (type === 'Replace') mendContent(step)
}

/** "$&" in it is no reference to the match. */
function mendContent(step: Part): void {
  step.config = { ...step.config, content: String(step.config.content ?? '').replaceAll('$', '$$$$') }
}

function mendDecoder(step: Part): void {
  const { type, prepend_scheme } = step.config
  step.decoders?.forEach(mendDecoder)
  if (type === 'ByteFallback') step.text_decoder = new TextDecoder('utf-8', { ignoreBOM: true })
  if (type === 'Replace') mendContent(step)
  if (type === 'Metaspace')
    step.decode_chain = (tokens) =>
      tokens.map((token, i) => token.replaceAll(step.replacement, i === 0 && prepend_scheme !== 'never' ? '' : ' '))
  if (type === 'ByteLevel') {
    const utf8 = new TextEncoder()
    step.convert_tokens_to_string = (tokens) => {
      const bytes = tokens.flatMap((token) => {
        const own = Array.from(token, (letter) => step.byte_decoder[letter])
        // A token of other letters than those of bytes is text.
        return own.includes(undefined as never) ? [...utf8.encode(token)] : own.map(Number)
      })
      return step.text_decoder.decode(Uint8Array.from(bytes))
    }
  }
}

/** Letters that no token has are left out before anything merges; several unknown ones make one unknown-token of each word. */
function mendModel(model: Model): void {
  if (!model.bpe) return
  const { bpe, encode, unk_token: unknown } = model
  const isKnown = (letter: string) =>
    model.tokens_to_ids.has(letter) || (model.byte_fallback && hasBytes(model, letter))
  if (unknown === undefined || unknown === null)
    model.bpe = (word) => {
      const letters = Array.from(word)
      return bpe.call(model, letters.every(isKnown) ? word : letters.filter(isKnown).join(''))
    }
  else if (model.fuse_unk) {
    model.fuse_unk = false
    const fused = (tokens: string[]) => tokens.filter((token, i) => token !== unknown || tokens[i - 1] !== unknown)
    model.encode = (words) => words.flatMap((word) => fused(encode.call(model, [word])))
  }
}

const hasBytes = (model: Model, letter: string): boolean =>
  [...new TextEncoder().encode(letter)].every((byte) =>
    model.tokens_to_ids.has(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`),
  )
