import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseJson } from '../../sdk/data/json.ts'

describe('parseJson', () => {
  it('keeps the digits of integers beyond 2^53', () => {
    expect(parseJson('{"a": 90071992547409931, "b": [-31415926535897932384]}')).toEqual({
      a: 90071992547409931n,
      b: [-31415926535897932384n],
    })
    expect(parseJson('9007199254740991')).toBe(9007199254740991)
    expect(parseJson('9007199254740992')).toBe(9007199254740992)
    expect(parseJson('9007199254740993')).toBe(9007199254740993n)
  })

  it('leaves fractions, exponents and digits in strings alone', () => {
    const text = String.raw`{"12345678901234567": "12345678901234567", "f": 0.12345678901234567, "e": 1234567890123456789e2, "q": "a\"NaN"}`
    expect(parseJson(text)).toEqual(JSON.parse(text))
    const surrogates = String.raw`["\ud800\ud800x", 12345678901234567]`
    expect(parseJson(surrogates)).toEqual(['\ud800\ud800x', 12345678901234567n])
  })

  it("reads Python's NaN and Infinity", () => {
    expect(parseJson('[NaN, Infinity, -Infinity, "NaN"]')).toEqual([
      Number.NaN,
      Number.POSITIVE_INFINITY,
      Number.NEGATIVE_INFINITY,
      'NaN',
    ])
  })

  it('reads what JSON writes, and refuses what is none', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const text = JSON.stringify([value, 'NaN'])
        const plain = (parsed: unknown) => JSON.stringify(parsed, (_, v) => (typeof v === 'bigint' ? Number(v) : v))
        expect(plain(parseJson(text))).toBe(JSON.stringify(JSON.parse(text)))
      }),
    )
    for (const text of [
      '[0000000000000000001]',
      '[1234567890123456.]',
      '[-NaN-]',
      '{"a": Infinit}',
      '[1234567890123456 ',
    ])
      expect(() => parseJson(text), text).toThrow(SyntaxError)
  })
})
