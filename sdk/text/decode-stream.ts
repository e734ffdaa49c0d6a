import type { Tokenizer } from './tokenizer.ts'

/**
 * Text of a growing list of tokens, as soon as it can no longer change: `push` never gives half a character, and what
 * all pushes and `flush` give is `decode` of all ids without special tokens.
 */
export class DecodeStream {
  private readonly tokenizer: Tokenizer
  /** Tokens whose text was given out already: decoders look at what stands before (a leading space, for instance). */
  private context: number[] = []
  /** Tokens since, of whose text `given` UTF-16 units (the context's included) were given out. */
  private pending: number[] = []
  private given = 0

  constructor(tokenizer: Tokenizer) {
    this.tokenizer = tokenizer
  }

  push(id: number): string {
    if (this.tokenizer.specialIds.has(id) || this.tokenizer.idToToken(id) === undefined) return ''
    this.pending.push(id)
    const text = this.text()
    // An unfinished character decodes to one U+FFFD, at the end.
    if (text.endsWith('\ufffd')) return this.give(text, text.length - 1)
    const piece = this.give(text, text.length)
    this.context = this.pending
    this.pending = []
    this.given = this.text().length
    return piece
  }

  /** The rest: an unfinished character as U+FFFD. The stream is then empty. */
  flush(): string {
    const text = this.text()
    const piece = this.give(text, text.length)
    this.context = []
    this.pending = []
    this.given = 0
    return piece
  }

  private text(): string {
    return this.tokenizer.decode([...this.context, ...this.pending])
  }

  private give(text: string, end: number): string {
    const piece = text.slice(this.given, end)
    this.given = Math.max(this.given, end)
    return piece
  }
}
