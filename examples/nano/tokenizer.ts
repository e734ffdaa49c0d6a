// A byte-level BPE tokenizer of our own, learned from text: Qwen2's splitting rule (digits stand alone), so that GGUF files
// of it carry the name that llama.cpp knows the rule by.

/** Bytes under the characters that GPT-2's alphabet has for them: printable ones stand for themselves. */
function byteSymbols(): string[] {
  let next = 0x100
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xff && byte !== 0xad)
    return String.fromCharCode(printable ? byte : next++)
  })
}

const contractions = "'s|'t|'re|'ve|'m|'ll|'d"
const rest = '[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+'

/** The words of all texts, as sequences of symbols, with how often each came. */
function countWords(texts: Iterable<string>, symbols: readonly string[]): Map<string, number> {
  const words = new Map<string, number>()
  const rule = new RegExp(`${contractions}|${rest}`, 'gu')
  const encoder = new TextEncoder()
  const seen = new Map<string, number>()
  for (const text of texts) for (const [word] of text.matchAll(rule)) seen.set(word, (seen.get(word) ?? 0) + 1)
  for (const [word, count] of seen)
    words.set(Array.from(encoder.encode(word), (byte) => symbols[byte]).join(' '), count)
  return words
}

/** Merges the most frequent pair again and again (Sennrich et al. 2016), the first in order of text where two are equal. */
function learnMerges(counts: ReadonlyMap<string, number>, limit: number): [string, string][] {
  let words = [...counts].map(([word, count]) => ({ symbols: word.split(' '), count }))
  const merges: [string, string][] = []
  while (merges.length < limit) {
    const pairs = new Map<string, number>()
    for (const { symbols, count } of words)
      for (let i = 1; i < symbols.length; i++) {
        const pair = `${symbols[i - 1]} ${symbols[i]}`
        pairs.set(pair, (pairs.get(pair) ?? 0) + count)
      }
    const best = [...pairs].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1))[0]
    if (!best) break
    const [left, right] = best[0].split(' ')
    merges.push([left, right])
    words = words.map(({ symbols, count }) => ({ symbols: mergePair(symbols, left, right), count }))
  }
  return merges
}

function mergePair(symbols: readonly string[], left: string, right: string): string[] {
  const merged: string[] = []
  for (const symbol of symbols)
    if (symbol === right && merged.at(-1) === left) merged[merged.length - 1] = left + right
    else merged.push(symbol)
  return merged
}

/** tokenizer.json: bytes, merges until there are `size` tokens (or nothing left to merge), special tokens, tags. */
export function trainTokenizer(
  texts: Iterable<string>,
  size: number,
  specialTokens: readonly string[],
  tagTokens: readonly string[],
) {
  const symbols = byteSymbols()
  const merges = learnMerges(countWords(texts, symbols), size - symbols.length)
  const tokens = [...symbols, ...merges.map(([left, right]) => left + right)]
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false }
  const split = {
    type: 'Split',
    pattern: { Regex: `(?i:${contractions})|${rest}` },
    behavior: 'Isolated',
    invert: false,
  }
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: [...specialTokens, ...tagTokens].map((content, i) => ({
      id: tokens.length + i,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: i < specialTokens.length,
    })),
    normalizer: { type: 'NFC' },
    pre_tokenizer: { type: 'Sequence', pretokenizers: [split, byteLevel] },
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges,
    },
  }
}
