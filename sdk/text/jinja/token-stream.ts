import { type Token, type TokenType, tokenize } from './lexer.ts'

/** The tokens of a template, read one after the other. */
export class TokenStream {
  private readonly tokens: readonly Token[]
  private at = 0

  /** Throws SyntaxError. */
  constructor(source: string) {
    this.tokens = tokenize(source)
  }

  /** Where it stands. */
  get position(): number {
    return this.at
  }

  /** Was a name read since a position? */
  hasRead(name: string, since: number): boolean {
    return this.tokens.slice(since, this.at).some((token) => token.type === 'name' && token.text === name)
  }

  next(): Token {
    const token = this.peek() ?? this.fail('the template ends within a tag')
    this.at++
    return token
  }

  peek(offset = 0): Token | undefined {
    return this.tokens[this.at + offset]
  }

  /** Throws SyntaxError naming the line. */
  fail(message: string): never {
    const token = this.peek() ?? this.tokens.at(-1)
    throw new SyntaxError(`line ${token?.line ?? 1}: ${message}`)
  }

  is(type: TokenType, text?: string, offset = 0): boolean {
    const token = this.peek(offset)
    return token?.type === type && (text === undefined || token.text === text)
  }

  skip(type: TokenType, text?: string): boolean {
    if (!this.is(type, text)) return false
    this.at++
    return true
  }

  expect(type: TokenType, text?: string): string {
    const token = this.peek()
    if (!token || !this.skip(type, text))
      this.fail(
        `expected ${text === undefined ? `a ${type}` : `'${text}'`}, got ${token ? `'${token.text}'` : 'the end'}`,
      )
    return token!.text
  }

  operator(...texts: string[]): string | undefined {
    const token = this.peek()
    if (token?.type !== 'operator' || !texts.includes(token.text)) return undefined
    this.at++
    return token.text
  }

  keyword(...names: string[]): string | undefined {
    const token = this.peek()
    if (token?.type !== 'name' || !names.includes(token.text)) return undefined
    this.at++
    return token.text
  }
}
