import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { DecodeStream } from '../../sdk/text/decode-stream.ts'
import type { Tokenizer } from '../../sdk/text/tokenizer.ts'
import { has, models, qwenFolder, tokenizerOf } from './golden.ts'

const qwen = tokenizerOf(qwenFolder)

function stream(tokenizer: Tokenizer, ids: readonly number[]): string[] {
  const decoder = new DecodeStream(tokenizer)
  return [...ids.map((id) => decoder.push(id)), decoder.flush()]
}

function agrees(tokenizer: Tokenizer, vocabulary: number) {
  const text = fc.string({ unit: 'binary', maxLength: 60 })
  fc.assert(
    fc.property(text, (t) => {
      const pieces = stream(tokenizer, tokenizer.encode(t))
      expect(pieces.join('')).toBe(tokenizer.decode(tokenizer.encode(t), { skipSpecialTokens: true }))
      // Whole text has no unfinished characters: nothing is given out before it is certain, nor as U+FFFD.
      if (!t.includes('\ufffd')) expect(pieces.join('')).not.toContain('\ufffd')
    }),
    { numRuns: 300 },
  )
  fc.assert(
    fc.property(fc.array(fc.nat(vocabulary - 1), { maxLength: 40 }), (ids) => {
      expect(stream(tokenizer, ids).join('')).toBe(tokenizer.decode(ids, { skipSpecialTokens: true }))
    }),
    { numRuns: 300 },
  )
}

describe('DecodeStream', () => {
  it('gives what decode gives, byte-level', () => agrees(qwen, 151936))

  it.skipIf(!has(models, 'stories260K'))(
    'gives what decode gives, SentencePiece with bytes (needs shared/models)',
    () => agrees(tokenizerOf(join(models, 'stories260K')), 512),
  )

  it('waits for the rest of a character', () => {
    const ids = qwen.encode('is 🦙!')
    const pieces = stream(qwen, ids)
    expect(pieces.filter((p) => p !== '')).toEqual(['is', ' ', '🦙', '!'])
  })

  it('gives an unfinished character at the end, once', () => {
    const llama = qwen.encode(' 🦙')
    expect(llama.length).toBe(3)
    const decoder = new DecodeStream(qwen)
    expect(decoder.push(llama[0])).toBe(' ')
    expect(decoder.push(llama[1])).toBe('')
    expect(decoder.flush()).toBe('\ufffd')
    expect(decoder.flush()).toBe('')
    expect(decoder.push(9707)).toBe('Hello')
  })

  it('has no text for control tokens', () => {
    expect(stream(qwen, [9707, 151645, 1879]).join('')).toBe('Hello world')
  })
})
