import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { loadTokenizer, type Tokenizer } from '../../sdk/text/tokenizer.ts'
import { has, models, readJson, tokenizerOf } from './golden.ts'

/** Text, its ids, and what these decode to where it is not the text. */
type Case = [text: string, ids: number[], decoded?: string]

/** Made by make_tokenizer_cases.py, which says how. */
const table: {
  made: string
  vocabularies: Record<string, { vocab: string[]; merges: string[] }>
  kinds: {
    name: string
    vocab: string
    flags: object
    model: { unk_token?: string; byte_fallback?: boolean }
    cases: Case[]
  }[]
  models: Record<string, Case[]>
} = readJson(new URL('tokenizer-cases.json', import.meta.url).pathname)

const hexBytes = Array.from({ length: 256 }, (_, b) => `<0x${b.toString(16).toUpperCase().padStart(2, '0')}>`)

function tokenizerJson({ vocab: name, flags, model, ...parts }: (typeof table.kinds)[number]): object {
  const { vocab, merges } = table.vocabularies[name]
  const tokens = [...vocab, ...(model.unk_token ? [model.unk_token] : []), ...(model.byte_fallback ? hexBytes : [])]
  return {
    ...parts,
    added_tokens: ['<s>', '</s>'].map((content, i) => ({ content, id: tokens.length + i, special: true, ...flags })),
    model: { type: 'BPE', ...model, vocab: Object.fromEntries(tokens.map((token, id) => [token, id])), merges },
  }
}

function check(tokenizer: Tokenizer, cases: readonly Case[]): void {
  for (const [text, ids, decoded = text] of cases) {
    expect(tokenizer.encode(text), JSON.stringify(text)).toEqual(ids)
    expect(tokenizer.decode(ids), JSON.stringify(text)).toBe(decoded)
  }
}

describe(`odd texts by Python's ${table.made}`, () => {
  it.each(table.kinds)('$name', (kind) => check(loadTokenizer(tokenizerJson(kind), {}), kind.cases))

  for (const [name, cases] of Object.entries(table.models))
    it.skipIf(!has(models, name))(`${name} (needs shared/models)`, () => check(tokenizerOf(join(models, name)), cases))
})
