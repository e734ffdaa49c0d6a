import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { FormatError } from '../../sdk/errors.ts'
import { checkVocabulary, loadTokenizer } from '../../sdk/text/tokenizer.ts'
import { golden, has, models, qwenFolder, readJson, tokenizerOf } from './golden.ts'

const qwen = tokenizerOf(qwenFolder)

/** Byte-level BPE over a, b, ab with one control token. */
const tiny = () => ({
  model: { type: 'BPE', vocab: { a: 0, b: 1, ab: 2 }, merges: ['a b'] as unknown[] },
  decoder: { type: 'ByteLevel' },
  added_tokens: [{ id: 3, content: '<s>', special: true }],
})

describe.skipIf(!has(golden, 'tables'))('tables of cases (skipped without shared/golden)', () => {
  it.each(['tokenizer_generated_qwen2_5.json', 'tokenizer_llamacpp_qwen2.json'])('%s', (file) => {
    const cases = readJson(join(golden, 'tables', file)) as { text: string; ids: number[]; decoded?: string }[]
    for (const { text, ids, decoded } of cases) {
      expect(qwen.encode(text), text).toEqual(ids)
      if (decoded !== undefined) expect(qwen.decode(ids), text).toBe(decoded)
    }
  })

  it.skipIf(!has(models, 'stories260K'))('tokenizer_stories260K.json', () => {
    const stories = tokenizerOf(join(models, 'stories260K'))
    const { cases } = readJson(join(golden, 'tables', 'tokenizer_stories260K.json'))
    for (const { text, ids } of cases) {
      expect(stories.encode(text), text).toEqual(ids)
      expect(stories.encode(text, { addSpecialTokens: true }), text).toEqual([1, ...ids])
      expect(stories.decode(ids), text).toBe(text)
    }
  })

  const folders = has(golden) ? readdirSync(golden).filter((f) => has(golden, f, 'greedy.json')) : []
  it.each(folders.filter((f) => has(models, f, 'tokenizer.json')))('prompts and answers of %s', (folder) => {
    const tokenizer = tokenizerOf(join(models, folder))
    for (const { prompt, promptIds, outputIds, text } of readJson(join(golden, folder, 'greedy.json'))) {
      expect(tokenizer.encode(prompt)).toEqual(promptIds)
      expect(tokenizer.decode(promptIds)).toBe(prompt)
      expect(tokenizer.decode(outputIds, { skipSpecialTokens: true })).toBe(text)
    }
  })
})

describe('Tokenizer', () => {
  it('knows its special tokens and its size', () => {
    expect(qwen.vocabSize).toBe(151665)
    expect([qwen.eosToken, qwen.eosTokenId]).toEqual(['<|im_end|>', 151645])
    expect([qwen.padToken, qwen.padTokenId]).toEqual(['<|endoftext|>', 151643])
    expect(qwen.bosToken).toBeUndefined()
    expect(qwen.tokenToId('<|im_start|>')).toBe(151644)
    expect(qwen.tokenToId('no such token')).toBeUndefined()
    expect(qwen.specialIds.has(151645)).toBe(true)
    expect(qwen.specialIds.has(9707)).toBe(false)
  })

  it('decodes nothing, spare rows and control tokens', () => {
    expect(qwen.decode([])).toBe('')
    expect(qwen.decode([151935])).toBe('')
    expect(qwen.decode([9707, 151900, 151645, 1879])).toBe('Hello<|im_end|> world')
    expect(qwen.decode([9707, 151645, 1879], { skipSpecialTokens: true })).toBe('Hello world')
    expect(qwen.decode([151645], { skipSpecialTokens: true })).toBe('')
  })

  it('does not clean up spaces', () => {
    const text = "a , b . c ! it 's n't"
    expect(qwen.decode(qwen.encode(text))).toBe(text)
  })

  it('encodes long texts', () => {
    const text = 'The quick brown fox, 12345! '.repeat(20000)
    expect(qwen.decode(qwen.encode(text))).toBe(text)
    expect(qwen.encode('a'.repeat(5000)).length).toBeGreaterThan(0)
  })

  it('has a fingerprint of its vocabulary and merges, however they are written', () => {
    const strings = loadTokenizer(tiny(), {})
    const pairs = loadTokenizer({ ...tiny(), model: { ...tiny().model, merges: [['a', 'b']] } }, {})
    expect(strings.fingerprint).toMatch(/^[0-9a-f]{16}$/)
    expect(pairs.fingerprint).toBe(strings.fingerprint)
    expect(pairs.encode('aab')).toEqual([0, 2])
    expect(strings.encode('aab')).toEqual([0, 2])
    const unmerged = loadTokenizer({ ...tiny(), model: { ...tiny().model, merges: [] } }, {})
    const renamed = loadTokenizer({ ...tiny(), added_tokens: [{ id: 3, content: '<t>', special: true }] }, {})
    expect(new Set([strings, unmerged, renamed].map((t) => t.fingerprint)).size).toBe(3)
  })

  it('frames raw texts as the configuration says', () => {
    const framed = loadTokenizer(tiny(), { bos_token: { content: '<s>' }, eos_token: '<s>', add_bos_token: true })
    expect(framed.encode('ab')).toEqual([2])
    expect(framed.encode('ab', { addSpecialTokens: true })).toEqual([3, 2])
    const both = loadTokenizer(tiny(), { bos_token: '<s>', eos_token: '<s>', add_bos_token: true, add_eos_token: true })
    expect(both.encode('ab', { addSpecialTokens: true })).toEqual([3, 2, 3])
    expect(loadTokenizer(tiny(), { add_bos_token: true }).encode('ab', { addSpecialTokens: true })).toEqual([2])
  })
})

describe('bad tokenizers', () => {
  const model = tiny().model
  it.each([
    ['no model', {}, {}, "no 'model'"],
    ['an empty vocabulary', { model: { type: 'BPE', vocab: {}, merges: [] } }, {}, 'model.vocab'],
    ['no merges', { model: { type: 'BPE', vocab: { a: 0 } } }, {}, 'model.merges'],
    ['an odd merge', { model: { ...model, merges: ['a b c'] } }, {}, 'merge 0'],
    ['a merge of unknown tokens', { model: { ...model, merges: ['a b', 'ab b'] } }, {}, "lacks 'abb' of merge 1"],
    ['a huge id', { model: { ...model, vocab: { a: 1e9 } } }, {}, 'the id 1000000000'],
    ['a fractional id', { model: { ...model, vocab: { a: 0.5 } } }, {}, 'the id 0.5'],
    ['an eos token out of the vocabulary', tiny(), { eos_token: '</s>' }, "eos_token '</s>'"],
    ['an unknown decoder', { ...tiny(), decoder: { type: 'Enigma' } }, {}, 'Enigma'],
    ['an added token without content', { ...tiny(), added_tokens: [{ id: 3 }] }, {}, 'added token 0'],
  ])('%s', (_, json, config, message) => {
    expect(() => loadTokenizer(json, config)).toThrow(FormatError)
    expect(() => loadTokenizer(json, config)).toThrow(message)
  })

  it('another model has fewer rows', () => {
    expect(() => checkVocabulary(qwen, 151936)).not.toThrow()
    expect(() => checkVocabulary(loadTokenizer(tiny(), {}), 4)).not.toThrow()
    expect(() => checkVocabulary(loadTokenizer(tiny(), {}), 3)).toThrow(/'<s>' has id 3.*only 3 rows/)
  })
})
