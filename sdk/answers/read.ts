import { charAt, commandAt, everySecond, isBalanced, partsBetween, splitTop, unwrap, type Wrapped } from './brackets.ts'
import { oddWords } from './find-answer.ts'
import type { MathJson } from './math-json.ts'
import { withoutIndices } from './names.ts'
import { splitUnit, type Unit, unitOf } from './units.ts'

/** One value with its unit. */
export interface Expression {
  readonly kind: 'expression'
  readonly text: string
  readonly percent: boolean
  readonly degrees: boolean
  readonly unit: Unit | null
  /** Absent where the text is not given to the parser. */
  readonly json?: MathJson
}

/** A tuple, an interval, a ratio of three and more. */
export interface Sequence {
  readonly kind: 'sequence'
  readonly open: string
  readonly close: string
  readonly items: readonly Answer[]
}

/** a = b < c: one operator fewer than sides. */
export interface Relation {
  readonly kind: 'relation'
  readonly ops: readonly string[]
  /** The sides as they are written, without spaces. */
  readonly texts: readonly string[]
  readonly sides: readonly Answer[]
}

/** What an answer is made of. */
export type Answer =
  | Expression
  | Sequence
  | Relation
  | { readonly kind: 'words'; readonly text: string }
  /** In any order: a list, a set in braces, both values of plus-minus. */
  | { readonly kind: 'list'; readonly items: readonly Answer[] }
  | { readonly kind: 'union'; readonly items: readonly Answer[] }
  /** The first without the others. */
  | { readonly kind: 'difference'; readonly items: readonly Answer[] }
  /** (C) 15 */
  | { readonly kind: 'choice'; readonly letter: string; readonly value: Answer }
  | { readonly kind: 'matrix'; readonly rows: readonly (readonly Answer[])[] }
  /** It may be read in several ways. */
  | { readonly kind: 'either'; readonly options: readonly Answer[] }

export type Parse = (latex: string) => MathJson

const mostParts = 200
/** A word apart from numbers. */
const spaced = /(?:^| )[a-zA-Z]{3,}(?: |$)/

const relationCommand = commandAt(['\\approx', '\\equiv', '\\notin', '\\le', '\\ge', '\\ne', '\\in'])
const relationAt = (s: string, i: number): number => ('=<>'.includes(s[i]) ? 1 : relationCommand(s, i))
const unionAt = commandAt(['\\cup', '\\bigcup'])
const differenceAt = commandAt(['\\setminus', '\\backslash'])
const plusMinus = /\\(?:pm|mp)(?![a-z])/

/** Reads cleaned LaTeX (latex.ts). */
export class Reader {
  private readonly parse: Parse
  private parts = 0
  /** Why something was not read as mathematics. */
  doubt: string | undefined

  /** `parse`: LaTeX to MathJSON, as it is written. */
  constructor(parse: Parse) {
    this.parse = parse
  }

  read(text: string): Answer {
    const s = determinants(text.trim().replace(/^[.,;:\s]+|[.,;:\s]+$/g, ''))
    if (++this.parts > mostParts) throw new Error('too many parts')
    const time = timePattern.exec(s)
    if (time) return { kind: 'words', text: `${time[1]}${time[2].toLowerCase()}m` }
    const choice = choicePattern.exec(s)
    if (choice) return { kind: 'choice', letter: (choice[1] ?? choice[2] ?? choice[3])!, value: this.read(choice[4]) }
    if (/^[-+]?\d+,\d+$/.test(s)) {
      const both = s.split(',').map((part) => this.expression(part))
      return { kind: 'either', options: [{ kind: 'list', items: both }, this.expression(s.replace(',', '.'))] }
    }
    for (const separator of [';', ',']) {
      const parts = partsBetween(s, charAt(separator)).filter((part) => part !== '')
      if (parts.length > 1) return { kind: 'list', items: this.readAll(parts) }
    }
    const relation = splitTop(s, relationAt)
    const sides = everySecond(relation)
    if (sides.length === 1) return this.value(s)
    if (sides.includes('')) return this.value(sides.find((side) => side !== '') ?? s)
    return {
      kind: 'relation',
      ops: relation.filter((_, i) => i % 2 === 1),
      texts: sides.map((side) => side.replace(/\s+/g, '')),
      sides: sides.map((side) => this.value(side)),
    }
  }

  private readAll = (parts: readonly string[]): Answer[] => parts.map((part) => this.read(part))

  /** What holds no relation. */
  private value(s: string): Answer {
    const parts = partsBetween(s, unionAt)
    if (parts.length > 1) return { kind: 'union', items: this.readAll(parts) }
    const without = partsBetween(s, differenceAt)
    if (without.length > 1) return { kind: 'difference', items: this.readAll(without) }
    const wrapped = unwrap(s)
    if (wrapped) return this.inBrackets(wrapped, s)
    const matrices = matrixFactors(s)
    if (matrices) return this.matrix(matrices)
    if (plusMinus.test(s)) return this.bothSigns(s)
    const ratio = partsBetween(s, charAt(':'))
    if (ratio.length === 2 && !ratio.includes('')) return this.expression(`\\frac{${ratio[0]}}{${ratio[1]}}`)
    if (ratio.length > 2) return { kind: 'sequence', open: ':', close: ':', items: this.readAll(ratio) }
    return this.expression(s)
  }

  private bothSigns(s: string): Answer {
    const choose = (plus: string, minus: string) =>
      s
        .replace(/\\pm(?![a-z])/g, plus)
        .replace(/\\mp(?![a-z])/g, minus)
        .replace(/^\s*\+/, '')
    return { kind: 'list', items: this.readAll([choose('+', '-'), choose('-', '+')]) }
  }

  private inBrackets({ open, content, close }: Wrapped, s: string): Answer {
    if (open === '{') return this.read(content)
    if (open === '\\{') return this.braces(content)
    for (const separator of [';', ',']) {
      const parts = partsBetween(content, charAt(separator))
      if (parts.length < 2) continue
      const [left, right] = [open === ']' ? '(' : open, close === '[' ? ')' : close]
      return { kind: 'sequence', open: left, close: right, items: this.readAll(parts) }
    }
    const isPair = (open === '(' && close === ')') || (open === '[' && close === ']')
    return isPair ? this.read(content) : this.expression(s)
  }

  /** A set by its members, or by a condition: {x | x > 1}. */
  private braces(content: string): Answer {
    const [variable, condition, ...more] = partsBetween(content, (t, i) => (t[i] === '|' || t[i] === ':' ? 1 : 0))
    if (condition && more.length === 0 && /^[a-z](?: *\\in.*)?$/.test(variable)) return this.read(condition)
    if (content.trim() === '') return this.expression('\\emptyset')
    const inner = this.read(content)
    if (inner.kind === 'either') return inner.options[0]
    return inner.kind === 'list' ? inner : { kind: 'list', items: [inner] }
  }

  /** The product of matrices, and numbers before them. */
  private matrix({ factors, scalar }: Matrices): Answer {
    let [product, ...rest] = factors.map((rows) => rows.map((row) => row.map((cell) => cell.trim() || '0')))
    for (const factor of rest) {
      if (product[0].length !== factor.length || product.length * factor.length > 64)
        return this.expression('\\emptyset')
      product = product.map((row) =>
        factor[0].map((_, j) => row.map((cell, k) => `(${cell})(${factor[k][j]})`).join('+')),
      )
    }
    const scaled = (cell: string) => this.expression(scalar === '' ? cell : `(${scalar})(${cell})`)
    return { kind: 'matrix', rows: product.map((row) => row.map(scaled)) }
  }

  expression(text: string): Answer {
    let s = text.trim()
    if (allReals.test(s)) return this.read('(-\\infty,\\infty)')
    if (/^\\text\{[^{}]*\}$/.test(s) || /^[a-zA-Z][a-zA-Z ]{3,}$/.test(s)) return { kind: 'words', text: s }
    const counted = splitUnit(s)
    // Of two texts behind a value the last one is the unit.
    if (counted) s = /^(.*\S)\s*\\text\{[^{}]*\}$/.exec(counted.value)?.[1] ?? counted.value
    s = s.replace(
      /^\\text\{ ?(?:about|approx(?:imately|\.)?|around|exactly|is|total|answer|area)[ :]*\}\s*(?=[-\d\\(])/i,
      '',
    )
    // Gate 14
    if (!counted && spaced.test(s.replace(/\\text\{([^{}]*)\}/g, ' $1 ')) && oddWords(s).length > 0)
      return { kind: 'words', text: s }
    const percent = /\\%$/.test(s)
    if (percent) s = s.slice(0, -2).trim()
    const degrees = /^(.*\S)\s*\^\s*(?:\\circ|\{\\circ\})\s*(?:[CF]|\\text\{[CF]\})?$/.exec(s)
    const isAngle = degrees !== null && !/\\(?:sin|cos|tan|cot)/.test(s)
    if (isAngle) s = degrees[1]
    s = s.replace(/^\+/, '').replace(/\\%/g, '\\cdot 0.01 ')
    const unit = counted && unitOf(counted.words)
    return { kind: 'expression', text: s, percent, degrees: isAngle, unit, json: this.parsed(s) }
  }

  private parsed(s: string): MathJson | undefined {
    // The parser writes powers of ten out.
    if (/(?:\d[eE]|10 ?\^ ?\{?) ?[-+]?\d{4}/.test(s)) {
      this.doubt = 'not equal as written, and too large'
      return undefined
    }
    // The parser tries for long where a bracket is missing.
    return isBalanced(s) && s.split('|').length % 2 === 1 ? this.parse(withoutIndices(s)) : undefined
  }
}

/** 3:45 p.m. */
const timePattern = /^(\d{1,2}(?::\d\d)?) ?(?:\\text\{ ?)?([ap])\.? ?m\.? ?\}?$/i

/** An option's letter before its value. */
const valueStart = '(?=[-\\d(]|\\\\(?:frac|sqrt|text|pi|\\{))'
const choicePattern = new RegExp(
  `^(?:\\\\text\\{ ?\\(?([A-H])\\)?[.:)]? ?\\} ?(?:(?=[a-z])|${valueStart})|\\(([A-H])\\) (?!- )${valueStart}|([A-H])[.):] ${valueStart})(.+)$`,
)

const allReals = /^(?:\\mathbb\{R\}|\\Re|(?:\\text\{)? ?all (?:real numbers|reals) ?\}?)$/

const determinantPattern =
  /(?:\\begin\{vmatrix\}|(?:\\det ?\(?|\|)\\begin\{(?:[bp]?matrix|array)\}(?:\{[lcr]*\})?)([^|]*?)\\end\{[bpv]?(?:matrix|array)\}[)|]?/g

/** Determinants of up to four rows written out. */
const determinants = (s: string): string =>
  s.replace(determinantPattern, (written, body: string) => {
    const rows = body
      .split('\\\\')
      .filter((row) => row.trim() !== '')
      .map((row) => row.split('&'))
    const isSquare = rows.length <= 4 && rows.every((row) => row.length === rows.length)
    return isSquare ? `(${determinant(rows)})` : written
  })

const determinant = (rows: readonly (readonly string[])[]): string =>
  rows.length === 1
    ? `(${rows[0][0]})`
    : rows[0]
        .map((cell, j) => {
          const rest = rows.slice(1).map((row) => row.filter((_, k) => k !== j))
          return `${j % 2 ? '-' : '+'}(${cell})(${determinant(rest)})`
        })
        .join('')

const matrixPattern =
  /\\begin\{(?:[bpvBV]?matrix|smallmatrix|array)\}(?:\{[lcr|]*\})?([\s\S]*?)\\end\{(?:[bpvBV]?matrix|smallmatrix|array)\}/g

/** Rows of cells, and what stands before the first matrix. */
interface Matrices {
  readonly factors: readonly string[][][]
  readonly scalar: string
}

/** Null for a text that is no product of matrices. */
function matrixFactors(s: string): Matrices | null {
  const found = [...s.matchAll(matrixPattern)]
  if (found.length === 0 || found.length > 4) return null
  const [before, after] = [s.slice(0, found[0].index), s.slice(found[0].index)]
  const between = after.replace(matrixPattern, '').replace(/\\(?:cdot|times)(?![a-z])|\s/g, '')
  if (between !== '') return null
  const scalar = before.replace(/\\(?:cdot|times)\s*$/, '').trim()
  const factors = found.map(([, body]) =>
    body
      .split(/\\\\(?:\[[^\]]*\])?/)
      .map((row) => row.split('&'))
      .filter((row) => row.some((cell) => cell.trim() !== '')),
  )
  if (factors.some((rows) => rows.length === 0 || rows.some((row) => row.length !== rows[0].length))) return null
  return { factors, scalar: scalar === '-' ? '-1' : scalar }
}
