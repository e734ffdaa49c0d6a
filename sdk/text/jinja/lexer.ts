import { space } from './methods.ts'

export type TokenType =
  | 'data'
  | 'begin'
  | 'end'
  | 'variable begin'
  | 'variable end'
  | 'name'
  | 'string'
  | 'integer'
  | 'float'
  | 'operator'

export interface Token {
  readonly type: TokenType
  readonly text: string
  readonly line: number
}

/** Escapes of string literals; others stay as they are written. */
const letters: Readonly<Record<string, string>> = {
  ...{ n: '\n', r: '\r', t: '\t', b: '\b', f: '\f', v: '\v', a: '\x07', '\\': '\\', "'": "'", '"': '"', '\n': '' },
}

const unescaped = (literal: string): string =>
  literal.replace(
    /\\(?:x([\da-fA-F]{2})|u([\da-fA-F]{4})|U([\da-fA-F]{8})|([0-7]{1,3})|([\s\S]))/g,
    (all, x, u, long, octal, letter) => {
      const hex = x ?? u ?? long
      if (hex !== undefined) return String.fromCodePoint(Number.parseInt(hex, 16))
      if (octal !== undefined) return String.fromCharCode(Number.parseInt(octal, 8))
      return letters[letter] ?? all
    },
  )

const spaces = `[${space}]`
const opening = new RegExp(
  `\\{%([-+]?)${spaces}*raw${spaces}*(?:-%\\}${spaces}*|%\\})|\\{#([-+]?)|\\{%([-+]?)|\\{\\{([-+]?)`,
  'g',
)
const rawEnd = new RegExp(`\\{%([-+]?)${spaces}*endraw${spaces}*(?:\\+%\\}|-%\\}${spaces}*|%\\}\\n?)`, 'g')
const commentEnd = new RegExp(`\\+#\\}|-#\\}${spaces}*|#\\}\\n?`, 'g')
const blockEnd = new RegExp(`\\+%\\}|-%\\}${spaces}*|%\\}\\n?`, 'y')
const variableEnd = new RegExp(`-\\}\\}${spaces}*|\\}\\}`, 'y')
const gap = new RegExp(`${spaces}+`, 'y')
const digits = '(?:\\d+_)*\\d+'
const inner: readonly (readonly [TokenType, RegExp])[] = [
  ['float', new RegExp(`(?<!\\.)${digits}(?:(?:\\.${digits})?e[+-]?${digits}|\\.${digits})`, 'iy')],
  ['integer', /0b(?:_?[01])+|0o(?:_?[0-7])+|0x(?:_?[\da-f])+|[1-9](?:_?\d)*|0(?:_?0)*/iy],
  ['name', /[\p{L}\p{Nl}_][\p{L}\p{Nl}\p{Nd}\p{M}\p{Pc}]*/uy],
  ['string', /'[^'\\]*(?:\\[\s\S][^'\\]*)*'|"[^"\\]*(?:\\[\s\S][^"\\]*)*"/y],
  ['operator', /\/\/|\*\*|[=!><]=|[-+/*%~[\](){}<>=.:|,;]/y],
]
const closes: Readonly<Record<string, string>> = { '}': '{', ')': '(', ']': '[' }
const isBlank = new RegExp(`^${spaces}+$`)

/** The tokens of a template, with trim_blocks and lstrip_blocks as transformers has them. Throws SyntaxError. */
export function tokenize(template: string): Token[] {
  const source = template.replace(/\r\n?/g, '\n').replace(/\n$/, '')
  const tokens: Token[] = []
  let [at, line, isLineStart] = [0, 1, true]
  const fail = (message: string): never => {
    throw new SyntaxError(`line ${line}: ${message}`)
  }
  const push = (type: TokenType, text: string): void => void tokens.push({ type, text, line })
  const find = (pattern: RegExp, from: number): RegExpExecArray | null => {
    pattern.lastIndex = from
    return pattern.exec(source)
  }
  const moveTo = (end: number): void => {
    for (let i = at; i < end; i++) if (source[i] === '\n') line++
    if (end > at) isLineStart = source[end - 1] === '\n'
    at = end
  }
  /** What stands before a tag: white space goes where the tag says so, or where nothing else is on its line. */
  const pushData = (text: string, sign: string, isVariable: boolean): void => {
    let kept = text
    if (sign === '-') kept = text.replace(new RegExp(`${spaces}+$`), '')
    else if (sign !== '+' && !isVariable) {
      const start = text.lastIndexOf('\n') + 1
      if ((start > 0 || isLineStart) && isBlank.test(text.slice(start))) kept = text.slice(0, start)
    }
    if (kept !== '') push('data', kept)
  }
  while (at < source.length) {
    const tag = find(opening, at)
    if (!tag) {
      push('data', source.slice(at))
      break
    }
    const [all, raw, comment, block, variable] = tag
    pushData(source.slice(at, tag.index), raw ?? comment ?? block ?? variable, variable !== undefined)
    moveTo(tag.index + all.length)
    if (raw !== undefined || comment !== undefined) {
      const end =
        find(raw === undefined ? commentEnd : rawEnd, at) ??
        fail(`${raw === undefined ? 'a comment' : 'raw'} does not end`)
      if (raw !== undefined) pushData(source.slice(at, end.index), end[1], false)
      moveTo(end.index + end[0].length)
      continue
    }
    const isVariable = variable !== undefined
    push(isVariable ? 'variable begin' : 'begin', all)
    const open: string[] = []
    for (;;) {
      const end = open.length === 0 ? find(isVariable ? variableEnd : blockEnd, at) : null
      if (end) {
        push(isVariable ? 'variable end' : 'end', end[0])
        moveTo(end.index + end[0].length)
        break
      }
      const white = find(gap, at)
      if (white) {
        moveTo(at + white[0].length)
        continue
      }
      const found = inner
        .map(([type, pattern]) => [type, find(pattern, at)?.[0]] as const)
        .find(([, text]) => text !== undefined)
      if (!found) fail(at < source.length ? `unexpected '${source[at]}'` : 'a tag does not end')
      const [type, text] = found as [TokenType, string]
      if (type === 'operator') {
        if ('{(['.includes(text)) open.push(text)
        else if (text in closes && open.pop() !== closes[text]) fail(`unexpected '${text}'`)
      }
      push(type, type === 'string' ? unescaped(text.slice(1, -1)) : text)
      moveTo(at + text.length)
    }
  }
  return tokens
}
