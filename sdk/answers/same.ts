import { nesting } from './brackets.ts'
import { type Complex, sample, valueAt, variables } from './complex.ts'
import { exact } from './fraction.ts'
import { clean } from './latex.ts'
import { isSound, type MathJson } from './math-json.ts'
import { isName, isTuple, sameName } from './names.ts'
import { type Answer, type Expression, type Parse, Reader, type Relation, type Sequence } from './read.ts'

/** Whether two answers are the same, and how that was decided. */
export interface Verdict {
  readonly equal: boolean
  readonly reason: string
}

const mostNesting = 40
/** Points at which expressions with variables are compared. */
const rounds = 5

/** Compares two answers by their mathematical value. Throws where an answer has too many parts, and what `parse` throws. */
export function sameMath(gold: string, answer: string, parse: Parse): Verdict {
  const [a, b] = [clean(gold), clean(answer)]
  if (a === '' || b === '') return { equal: false, reason: 'nothing to compare' }
  if (nesting(a) > mostNesting || nesting(b) > mostNesting) return { equal: false, reason: 'brackets too deep' }
  if (letters(a) === letters(b)) return { equal: true, reason: 'equal as written' }
  const reader = new Reader(parse)
  const comparer = new Comparer(reader)
  const equal = comparer.same(reader.read(a), reader.read(b))
  return { equal, reason: equal ? 'equal in value' : (comparer.doubt ?? reader.doubt ?? 'not equal') }
}

/** Strips font commands, spaces, and the parentheses of a choice like (C). */
const letters = (s: string): string =>
  s
    .replace(/\\text\{([^{}]*)\}/g, '$1')
    .replace(/\s+|\\ |\.$/g, '')
    .replace(/^[({]([A-Za-z]+)[)}]$/, '$1')
    .replace(/^[a-zA-Z]{2,}$/, (word) => word.toLowerCase())

const flipped: Readonly<Record<string, string>> = { '<': '>', '>': '<', '\\le': '\\ge', '\\ge': '\\le' }
const flip = (op: string): string => flipped[op] ?? op
const isEquality = (op: string): boolean => op === '=' || op === '\\approx' || op === '\\equiv'

/** What a relation says its name is. */
interface Assigned {
  readonly name: string | null
  readonly value: Answer
  /** What the value is said to be about. */
  readonly about: Answer | null
}

class Comparer {
  private readonly reader: Reader
  /** Why something could not be decided. */
  doubt: string | undefined

  constructor(reader: Reader) {
    this.reader = reader
  }

  same(a: Answer, b: Answer): boolean {
    if (a.kind === 'either') return a.options.some((option) => this.same(option, b))
    if (b.kind === 'either') return b.options.some((option) => this.same(a, option))
    if (a.kind === 'relation') return b.kind === 'relation' ? this.sameRelation(a, b) : this.sameAsRelation(a, b)
    if (b.kind === 'relation') return this.sameAsRelation(b, a)
    if (a.kind === 'expression' && b.kind === 'expression') return this.sameExpression(a, b)
    if (a.kind === 'words' || b.kind === 'words')
      return 'text' in a && 'text' in b && letters(a.text) === letters(b.text)
    if (a.kind === 'list' && b.kind === 'list') return this.sameList(a.items, b.items)
    if (a.kind === 'sequence' && b.kind === 'sequence') return this.sameSequence(a, b)
    if (a.kind === 'matrix' && b.kind === 'matrix')
      return a.rows.length === b.rows.length && a.rows.every((row, i) => this.inOrder(row, b.rows[i]))
    if (a.kind === 'union' && (b.kind === 'union' || b.kind === 'list')) return this.matches(a.items, b.items)
    if (a.kind === 'list' && b.kind === 'union') return this.matches(a.items, b.items)
    if (a.kind === 'difference' && b.kind === 'difference') return this.inOrder(a.items, b.items)
    const [list, other] = a.kind === 'list' ? [a, b] : [b, a]
    if (list.kind === 'list' && list.items.length === 1) return this.same(list.items[0], other)
    if (list.kind === 'list' && other.kind === 'sequence' && /^(?:\(\)|\[\])$/.test(other.open + other.close))
      return this.inOrder(list.items, other.items)
    const [matrix, vector] = a.kind === 'matrix' ? [a, b] : [b, a]
    if (matrix.kind !== 'matrix' || !('items' in vector) || vector.kind === 'union') return false
    const isVector = matrix.rows.length === 1 || matrix.rows.every((row) => row.length === 1)
    return isVector && this.inOrder(matrix.rows.flat(), vector.items)
  }

  private inOrder = (a: readonly Answer[], b: readonly Answer[]): boolean =>
    a.length === b.length && a.every((item, i) => this.same(item, b[i]))

  /** Each of one is one of the other. */
  private matches(a: readonly Answer[], b: readonly Answer[]): boolean {
    if (a.length !== b.length) return false
    const left = [...b]
    return a.every((item) => {
      const at = left.findIndex((other) => this.same(item, other))
      if (at >= 0) left.splice(at, 1)
      return at >= 0
    })
  }

  private sameList(a: readonly Answer[], b: readonly Answer[]): boolean {
    const isNamed = [...a, ...b].every((item) => item.kind === 'relation')
    return isNamed ? this.matches(a, b) : this.matches(this.distinct(a), this.distinct(b))
  }

  private distinct(items: readonly Answer[]): Answer[] {
    const kept: Answer[] = []
    for (const item of items) if (!kept.some((other) => this.same(other, item))) kept.push(item)
    return kept
  }

  private sameSequence(a: Sequence, b: Sequence): boolean {
    if (a.items.length === 2 && b.items.length === 2) {
      const isInfinite = (end: Answer) => end.kind === 'expression' && /\\infty$/.test(end.text)
      if (a.open !== b.open && !isInfinite(a.items[0])) return false
      if (a.close !== b.close && !isInfinite(a.items[1])) return false
    }
    return this.inOrder(a.items, b.items)
  }

  /** Null for a relation that gives no value a name. */
  private assigned({ ops, texts, sides }: Relation): Assigned | null {
    if (!ops.every(isEquality)) return null
    const first = sides[0]
    const named = isName(texts[0])
    const constant = first.kind === 'expression' && isSound(first.json) && variables(first.json).size === 0
    if (!named && !constant) {
      if (ops.length < 2) return null
      if (first.kind === 'expression' && ops.every((op) => op === '=')) return lastOf(sides)
    }
    const about = ops.indexOf('\\approx')
    const value = about > 0 ? sides[about] : sides.at(-1)!
    return { name: named ? texts[0] : null, value, about: about > 0 ? sides[about + 1] : null }
  }

  private sameAsRelation(relation: Relation, other: Answer): boolean {
    const assigned = this.assigned(relation)
    if (assigned) {
      const { name, value, about } = assigned
      const isNamed = other.kind === 'list' && other.items.some((item) => item.kind === 'relation')
      if (isNamed && name !== null && isTuple(name)) return this.sameNames(name, value, other.items)
      return this.same(value, other) || (about !== null && isAbout(value, about) && this.same(about, other))
    }
    const set = asSet(relation)
    if (!set) return false
    if (other.kind === 'list' && set.kind === 'union' && other.items.every((item) => item.kind === 'relation'))
      return this.matches(set.items, other.items)
    return this.same(set, other)
  }

  /** (x, y) = (1, 2) and x = 1, y = 2. */
  private sameNames(tuple: string, value: Answer, items: readonly Answer[]): boolean {
    const names = tuple.slice(1, -1).split(',')
    if (value.kind !== 'sequence' || value.items.length !== names.length) return false
    const each = value.items.map((item, i): Relation => {
      const texts = [names[i], 'text' in item ? item.text : '']
      return { kind: 'relation', ops: ['='], texts, sides: [this.reader.expression(names[i]), item] }
    })
    return this.matches(each, items)
  }

  private sameRelation(a: Relation, b: Relation): boolean {
    const pairwise = (other: Relation) => a.ops.join() === other.ops.join() && this.inOrder(a.sides, other.sides)
    const reversed: Relation = {
      kind: 'relation',
      ops: b.ops.map(flip).reverse(),
      texts: [...b.texts].reverse(),
      sides: [...b.sides].reverse(),
    }
    if (!b.ops.some((op) => op === '\\in' || op === '\\notin') && pairwise(reversed)) return true
    if (pairwise(b)) return true
    const [x, y] = [this.assigned(a), this.assigned(b)]
    if (x && y && (x.name === null || y.name === null || sameName(x.name, y.name))) return this.same(x.value, y.value)
    if (a.ops.length === 1 && b.ops.length === 1) {
      if (proportional(a, b)) return true
      if (a.ops[0] === b.ops[0] && a.ops[0] !== '\\in') return false
    }
    const [s, t] = [asSet(a), asSet(b)]
    return s !== null && t !== null && variableOf(a) === variableOf(b) && this.same(s, t)
  }

  private sameExpression(a: Expression, b: Expression): boolean {
    if (a.unit && b.unit) {
      if (a.unit.kind !== b.unit.kind) return false
      if (a.unit.factor !== b.unit.factor)
        return this.sameValue(within(a, 'Multiply', a.unit.factor), within(b, 'Multiply', b.unit.factor))
    }
    if (this.sameValue(a, b)) return true
    if (a.percent !== b.percent) {
      const [percent, plain] = a.percent ? [a, b] : [b, a]
      return this.sameValue(within(percent, 'Divide', 100), plain)
    }
    if (a.degrees !== b.degrees) {
      const [degrees, plain] = a.degrees ? [a, b] : [b, a]
      return this.sameValue(within(degrees, 'Degrees'), plain)
    }
    return false
  }

  private sameValue(a: Expression, b: Expression): boolean {
    if (a.json === undefined || b.json === undefined) return false
    if (JSON.stringify(a.json) === JSON.stringify(b.json)) return true
    if (!isSound(a.json) || !isSound(b.json)) return this.undecided('not read as mathematics')
    const [p, q] = [exact(a.json), exact(b.json)]
    if (p && q && p[0] === q[0] && p[1] === q[1]) return true
    if (p && q && !isRounded(a, b)) return false
    const isConstant = variables(a.json).size + variables(b.json).size === 0
    for (let round = 0; round < (isConstant ? 1 : rounds); round++) {
      const [x, y] = [a, b].map(({ json }) => valueAt(json, sample(round)))
      if (!x || !y) return this.undecided('not decided')
      if (![...x, ...y].every(Number.isFinite)) return this.undecided('too large or not defined')
      if (!isNear(x, y)) return isConstant && isRounded(a, b) && isRoundingOf(a, b, x, y)
    }
    return true
  }

  private undecided(why: string): false {
    this.doubt = `not equal as written, and ${why}`
    return false
  }
}

/** Of a chain that ends with a number, that number. */
function lastOf(sides: readonly Answer[]): Assigned | null {
  const end = sides.at(-1)!
  const isNumber = end.kind === 'expression' && variables(end.json).size === 0 && sides.length > 2
  return isNumber ? { name: null, value: end, about: null } : null
}

const infinity = (isNegative: boolean): Expression => ({
  kind: 'expression',
  text: `${isNegative ? '-' : ''}\\infty`,
  json: isNegative ? ['Negate', 'PositiveInfinity'] : 'PositiveInfinity',
  percent: false,
  degrees: false,
  unit: null,
})

const isStrict = (op: string): boolean => op === '<' || op === '>'
const interval = (from: Answer, to: Answer, low: string, high: string): Sequence => ({
  kind: 'sequence',
  open: isStrict(low) ? '(' : '[',
  close: isStrict(high) ? ')' : ']',
  items: [from, to],
})
const above = (from: Answer, op: string): Sequence => interval(from, infinity(false), op, '<')
const below = (to: Answer, op: string): Sequence => interval(infinity(true), to, '<', op)

/** The numbers for which an inequality holds, as an interval or a union of two; null for other relations. */
function asSet({ ops, texts, sides }: Relation): Answer | null {
  if (ops.length === 1) {
    let [op, value] = [ops[0], sides[1]]
    if (op === '\\in' && isName(texts[0])) return sides[1]
    if (!isName(texts[0])) {
      if (!isName(texts[1])) return null
      ;[op, value] = [flip(op), sides[0]]
    }
    if (op === '>' || op === '\\ge') return above(value, op)
    if (op === '<' || op === '\\le') return below(value, op)
    return op === '\\ne' ? { kind: 'union', items: [below(value, '<'), above(value, '>')] } : null
  }
  if (ops.length !== 2 || !isName(texts[1])) return null
  const isUp = ops.every((op) => op === '<' || op === '\\le')
  if (!isUp && !ops.every((op) => op === '>' || op === '\\ge')) return null
  return isUp ? interval(sides[0], sides[2], ops[0], ops[1]) : interval(sides[2], sides[0], ops[1], ops[0])
}

const variableOf = ({ texts, ops }: Relation): string | undefined =>
  texts.find((text, i) => isName(text) && (ops.length === 1 || i === 1))

/** The same equation or inequality up to a factor. */
function proportional(a: Relation, b: Relation): boolean {
  const all = [...a.sides, ...b.sides]
  if (!all.every((side) => side.kind === 'expression' && isSound(side.json))) return false
  const [op, other] = [a.ops[0], b.ops[0]]
  let ratio: number | null = null
  for (let round = 0; round < rounds; round++) {
    const [p, q] = [a, b].map(({ sides }) => difference(sides, round))
    if (p === null || q === null || q === 0) return false
    const here = p / q
    if (!Number.isFinite(here) || here === 0) return false
    ratio ??= here
    if (Math.abs(here - ratio) > 1e-9 * Math.abs(ratio)) return false
  }
  if (op === other && (op === '=' || op === '\\ne')) return true
  return ratio! > 0 ? op === other : flipped[op] === other
}

/** Of the two sides of a relation, where it is real. */
function difference(sides: readonly Answer[], round: number): number | null {
  const [left, right] = sides.map((side) => valueAt((side as Expression).json, sample(round)))
  return left && right && left[1] - right[1] === 0 ? left[0] - right[0] : null
}

/** An expression as the first operand; what was not parsed is not sound. */
const within = (node: Expression, op: string, ...more: MathJson[]): Expression => ({
  ...node,
  json: [op, node.json ?? 'Nothing', ...more],
})

const isNear = (x: Complex, y: Complex): boolean => {
  const size = Math.max(Math.hypot(...x), Math.hypot(...y))
  return Math.hypot(x[0] - y[0], x[1] - y[1]) <= Math.max(1e-9 * size, 1e-13)
}

const decimalPattern = /^-?\d*\.(\d+)$/
/** A decimal number beside what is none. */
const isRounded = (a: Expression, b: Expression): boolean => decimalPattern.test(a.text) !== decimalPattern.test(b.text)

/** With at least five digits or six places, and right to half of the last. */
function isRoundingOf(a: Expression, b: Expression, [x]: Complex, [y]: Complex): boolean {
  const text = decimalPattern.test(a.text) ? a.text : b.text
  const places = decimalPattern.exec(text)![1].length
  const digits = text.replace(/^-?0*\.?0*|\./g, '').length
  return (digits >= 5 || places >= 6) && digits >= 3 && Math.abs(x - y) <= 0.5001 * 10 ** -places
}

/** 1/3 is about 0.33. */
function isAbout(value: Answer, about: Answer): boolean {
  if (value.kind !== 'expression' || about.kind !== 'expression') return false
  const [x, y] = [value, about].map(({ json }) => valueAt(json, () => NaN))
  return x !== null && y !== null && Math.abs(x[0] - y[0]) <= 0.01 * Math.abs(x[0])
}
