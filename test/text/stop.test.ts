import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { OptionError } from '../../sdk/errors.ts'
import { StopStrings } from '../../sdk/text/stop.ts'

function run(stops: readonly string[], pieces: readonly string[]): { text: string; match: string | null } {
  const stop = new StopStrings(stops)
  let text = ''
  for (const piece of pieces) {
    const result = stop.push(piece)
    text += result.text
    if (result.stopped) return { text, match: stop.match }
  }
  return { text: text + stop.flush(), match: null }
}

const text = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), maxLength: 30 })
const stops = fc.array(fc.string({ unit: fc.constantFrom('a', 'b', 'c'), minLength: 1, maxLength: 4 }), {
  maxLength: 3,
})

describe('StopStrings', () => {
  it('does not depend on how the text is split', () => {
    fc.assert(
      fc.property(stops, fc.array(text, { maxLength: 8 }), (stops, pieces) => {
        const whole = run(stops, [pieces.join('')])
        expect(run(stops, pieces)).toEqual(whole)
        expect(run(stops, [...pieces.join('')])).toEqual(whole)
      }),
    )
  })

  it('cuts at the stop string that is complete first', () => {
    fc.assert(
      fc.property(stops, text, (stops, text) => {
        const ends = stops.filter((s) => text.includes(s)).map((s) => text.indexOf(s) + s.length)
        const end = Math.min(...ends)
        const result = run(stops, [text])
        if (ends.length === 0) expect(result).toEqual({ text, match: null })
        else expect(result.text + result.match).toBe(text.slice(0, end))
      }),
    )
  })

  it('holds back only what may become a stop string', () => {
    const stop = new StopStrings(['</answer>', '\n\n'])
    expect(stop.push('42<').text).toBe('42')
    expect(stop.push('b>\n').text).toBe('<b>')
    expect(stop.push('x</ans').text).toBe('\nx')
    expect(stop.push('wer> more')).toEqual({ text: '', stopped: true })
    expect(stop.match).toBe('</answer>')
    expect(stop.push('more')).toEqual({ text: '', stopped: true })
    expect(stop.flush()).toBe('')
  })

  it('stops at control tokens, and at text with them in it', () => {
    const controls = [
      [7, '<|end|>'],
      [8, '<|start|>'],
    ] as const
    const stop = new StopStrings(['<|start|>user', 'END'], controls)
    expect(stop.sign(7)).toBe('')
    expect(stop.push(`a${stop.sign(8)}`)).toEqual({ text: 'a', stopped: false })
    expect(stop.push('assistant')).toEqual({ text: 'assistant', stopped: false })
    expect(stop.push(`b${stop.sign(8)}`).text).toBe('b')
    expect(stop.push('us')).toEqual({ text: '', stopped: false })
    expect(stop.push('er: hi')).toEqual({ text: '', stopped: true })
    const spelled = new StopStrings(['<|end|>'], controls)
    expect(spelled.push('x<|end|>')).toEqual({ text: 'x', stopped: true })
    const held = new StopStrings(['<|end|>!'], controls)
    expect(held.push(`x${held.sign(7)}`).text + held.flush()).toBe('x')
  })

  it('refuses an empty stop string', () => {
    expect(() => new StopStrings(['a', ''])).toThrow(OptionError)
  })
})
