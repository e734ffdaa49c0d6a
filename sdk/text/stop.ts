import { OptionError } from '../errors.ts'

/**
 * Cuts a stream of text at the first of several stop strings, and holds back what may be the beginning of one. The cut
 * does not depend on how the text was split into pieces: the stop string that is complete first wins, of several that
 * end together the longest. A control token has no text in an answer: `sign` puts a mark of its own in its place, for which stop
 * strings with its text stop too. Throws OptionError for an empty stop string.
 */
export class StopStrings {
  /** The stop string at which the text was cut. */
  match: string | null = null
  private readonly stops: readonly string[]
  private readonly signs = new Map<number, string>()
  private held = ''

  /** @param controls texts of control tokens by id */
  constructor(stops: readonly string[], controls: Iterable<readonly [id: number, text: string]> = []) {
    if (stops.includes('')) throw new OptionError('stop: an empty string would stop at once')
    let signed = stops
    for (const [id, text] of [...controls].sort(([, a], [, b]) => b.length - a.length)) {
      if (!signed.some((stop) => stop.includes(text))) continue
      // Half a surrogate pair, which no decoded text has.
      const sign = String.fromCharCode(0xdc00 + this.signs.size)
      this.signs.set(id, sign)
      signed = signed.map((stop) => stop.replaceAll(text, sign))
    }
    this.stops = [...new Set([...stops, ...signed])].sort((a, b) => b.length - a.length)
  }

  /** What to push for a control token. */
  sign(id: number): string {
    return this.signs.get(id) ?? ''
  }

  /** The text that is certain now; `stopped` once a stop string was found, which is not part of the text. */
  push(piece: string): { text: string; stopped: boolean } {
    if (this.match !== null) return { text: '', stopped: true }
    const text = this.held + piece
    let end = Number.POSITIVE_INFINITY
    for (const stop of this.stops) {
      const at = text.indexOf(stop)
      if (at >= 0 && at + stop.length < end) {
        end = at + stop.length
        this.match = stop
      }
    }
    if (this.match !== null) {
      this.held = ''
      return { text: withoutSigns(text.slice(0, end - this.match.length)), stopped: true }
    }
    const certain = text.length - this.possibleStart(text)
    this.held = text.slice(certain)
    return { text: withoutSigns(text.slice(0, certain)), stopped: false }
  }

  /** What was held back, when no more text comes. */
  flush(): string {
    const rest = this.held
    this.held = ''
    return withoutSigns(rest)
  }

  /** Length of the longest end of the text with which a stop string begins. */
  private possibleStart(text: string): number {
    let longest = 0
    for (const stop of this.stops)
      for (let n = Math.min(stop.length - 1, text.length); n > longest; n--)
        if (text.endsWith(stop.slice(0, n))) longest = n
    return longest
  }
}

const withoutSigns = (text: string): string => text.replace(/[\udc00-\udfff]/gu, '')
