import { nesting } from './brackets.ts'
import { type Complex, valueAt, variables } from './complex.ts'
import { exact } from './fraction.ts'
import { clean } from './latex.ts'
import { isSound, type MathJson } from './math-json.ts'
import { isModulus, isName, isTuple, sameName } from './names.ts'
import { distance, noise, type Place, places } from './points.ts'
import { type Answer, type Expression, type Parse, Reader, type Relation, type Sequence } from './read.ts'

/** Whether two answers are the same, and how that was decided. */
export interface Verdict {
  readonly equal: boolean
  readonly reason: string
}

const mostNesting = 40

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
    if (a.kind === 'choice' && b.kind === 'choice') return a.letter === b.letter && this.same(a.value, b.value)
    if (a.kind === 'choice') return isLetter(b, a.letter) || this.same(a.value, b)
    if (b.kind === 'choice') return isLetter(a, b.letter) || this.same(a, b.value)
    if (a.kind === 'relation')
      return b.kind === 'relation' ? this.sameRelation(a, b) : this.sameAsRelation(a, b, (x, y) => this.same(x, y))
    if (b.kind === 'relation') return this.sameAsRelation(b, a, (x, y) => this.same(y, x))
    if (a.kind === 'expression' && b.kind === 'expression') return this.sameExpression(a, b)
    if (a.kind === 'words' || b.kind === 'words')
      return 'text' in a && 'text' in b && letters(a.text).toLowerCase() === letters(b.text).toLowerCase()
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
  private assigned(relation: Relation): Assigned | null {
    const { ops, texts, sides } = relation
    if (!ops.every(isEquality) || !this.holds(relation)) return null
    const first = sides[0]
    const named = isName(texts[0])
    const constant = first.kind === 'expression' && isSound(first.json) && variables(first.json).size === 0
    if (!named && !constant) {
      if (ops.length < 2) return null
      if (first.kind === 'expression' && ops.every((op) => op === '=')) return lastOf(sides)
    }
    const isRounding = (i: number) => ops[i] === '=' && this.isRounded(relation, i)
    const about = ops.findIndex((op, i) => (op === '\\approx' && i > 0) || isRounding(i))
    const value = about >= 0 ? sides[about] : sides.at(-1)!
    return { name: named ? texts[0] : null, value, about: about >= 0 ? sides[about + 1] : null }
  }

  /** `same` knows which of the two is the right one. */
  /** 1/3 = 0.33 */
  private isRounded({ sides }: Relation, i: number): boolean {
    const [left, right] = [sides[i], sides[i + 1]]
    return isConstant(left) && isConstant(right) && isAbout(left, right, true) && !this.same(left, right)
  }

  /** Whether the numbers that a chain of equations names are one number: 4 + 4 = 9 gives nothing. */
  private holds({ ops, texts, sides }: Relation): boolean {
    let known: Answer | null = null
    for (const [i, side] of sides.entries()) {
      if (i > 0 && ops[i - 1] !== '=') known = null
      if (isName(texts[i]) || !isConstant(side)) continue
      if (known && !this.same(known, side) && !isAbout(known, side, true)) return false
      known = side
    }
    return true
  }

  private sameAsRelation(relation: Relation, other: Answer, same: (x: Answer, y: Answer) => boolean): boolean {
    const assigned = this.assigned(relation)
    if (assigned) {
      const { name, value, about } = assigned
      const isNamed = other.kind === 'list' && other.items.some((item) => item.kind === 'relation')
      if (isNamed && name !== null && isTuple(name)) return this.sameNames(name, value, other.items)
      return same(value, other) || (about !== null && isAbout(value, about) && same(about, other))
    }
    const set = asSet(relation)
    if (!set) return false
    if (other.kind === 'list' && set.kind === 'union' && other.items.every((item) => item.kind === 'relation'))
      return this.matches(set.items, other.items)
    return same(set, other)
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
    const all = places([a.json, b.json])
    for (const place of all) {
      const [x, y] = [a, b].map(({ json }) => valueAt(json, place))
      if (place.isSigned && x && x[1] !== 0) continue
      const isKnown = x && y && [...x, ...y].every(Number.isFinite)
      if (!isKnown && place.isPlain) return this.undecided(x && y ? 'too large or not defined' : 'not decided')
      if (!isKnown) continue
      const nearness = compared(a.json, b.json, x, y, place)
      if (nearness === 'lost' && place.isPlain) return this.undecided('rounding leaves nothing to compare')
      if (nearness === 'different') return all.length === 1 && isRounded(a, b) && isRoundingOf(a, b, x, y)
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
  json: isNegative ? 'NegativeInfinity' : 'PositiveInfinity',
  percent: false,
  degrees: false,
  unit: null,
})

const isLetter = (answer: Answer, letter: string): boolean => 'text' in answer && letters(answer.text) === letter

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
    let [op, name, value] = [ops[0], texts[0], sides[1]]
    if (op === '\\in' && isName(name)) return sides[1]
    if (!isName(name)) {
      if (!isName(texts[1])) return null
      ;[op, name, value] = [flip(op), texts[1], sides[0]]
    }
    if (isModulus(name)) return modulusSet(op, value)
    if (op === '>' || op === '\\ge') return above(value, op)
    if (op === '<' || op === '\\le') return below(value, op)
    return op === '\\ne' ? { kind: 'union', items: [below(value, '<'), above(value, '>')] } : null
  }
  if (ops.length !== 2 || !isName(texts[1])) return null
  const isUp = ops.every((op) => op === '<' || op === '\\le')
  if (!isUp && !ops.every((op) => op === '>' || op === '\\ge')) return null
  return isUp ? interval(sides[0], sides[2], ops[0], ops[1]) : interval(sides[2], sides[0], ops[1], ops[0])
}

/** |x| < 3 is -3 < x < 3, |x| > 3 is x < -3 or x > 3. */
function modulusSet(op: string, value: Answer): Answer | null {
  if (value.kind !== 'expression') return null
  const minus = { ...within(value, 'Negate'), text: `-(${value.text})` }
  if (op === '<' || op === '\\le') return interval(minus, value, op, op)
  return op === '>' || op === '\\ge' ? { kind: 'union', items: [below(minus, flip(op)), above(value, op)] } : null
}

const variableOf = ({ texts, ops }: Relation): string | undefined =>
  texts.find((text, i) => isName(text) && (ops.length === 1 || i === 1))?.replace(/^\|(.*)\|$/, '$1')

/** The same equation or inequality up to a factor. */
function proportional(a: Relation, b: Relation): boolean {
  const all = [...a.sides, ...b.sides]
  if (!all.every((side) => side.kind === 'expression' && isSound(side.json))) return false
  const [op, other] = [a.ops[0], b.ops[0]]
  let ratio: number | null = null
  for (const place of places(all.map((side) => (side as Expression).json))) {
    const [p, q] = [a, b].map(({ sides }) => difference(sides, place))
    const here = p === null || q === null ? NaN : p / q
    const isKnown = Number.isFinite(here) && here !== 0
    if (!isKnown && place.isPlain) return false
    if (!isKnown) continue
    ratio ??= here
    if (Math.abs(here - ratio) > 1e-9 * Math.abs(ratio)) return false
  }
  if (op === other && (op === '=' || op === '\\ne')) return true
  return ratio! > 0 ? op === other : flipped[op] === other
}

/** Of the two sides of a relation, where it is real. */
function difference(sides: readonly Answer[], place: Place): number | null {
  const json: MathJson = ['Subtract', ...sides.map((side) => (side as Expression).json!)]
  const value = valueAt(json, place)
  if (value?.[1] !== 0) return null
  // Where rounding has eaten it nothing is known.
  return place.isPlain || noise(json, value, place) < 1e-10 * Math.abs(value[0]) ? value[0] : null
}

/** An expression as the first operand; what was not parsed is not sound. */
const within = (node: Expression, op: string, ...more: MathJson[]): Expression => ({
  ...node,
  json: [op, node.json ?? 'Nothing', ...more],
})

/** Numbers of any size: what differs by less than rounding may have made is the same, unless that is much. */
function compared(a: MathJson, b: MathJson, x: Complex, y: Complex, place: Place): 'same' | 'different' | 'lost' {
  const gap = distance(x, y)
  if (gap <= 1e-9 * Math.max(Math.hypot(...x), Math.hypot(...y))) return 'same'
  const blur = noise(a, x, place) + noise(b, y, place)
  return gap > blur ? 'different' : blur < 1e-6 ? 'same' : 'lost'
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

/** 1/3 is about 0.33; written as equal, right to half of its last place. */
function isAbout(value: Answer, about: Answer, rounded = false): boolean {
  if (value.kind !== 'expression' || about.kind !== 'expression') return false
  const [x, y] = [value, about].map(({ json, percent }) => {
    const number = valueAt(json, { variable: () => NaN })?.[0] ?? NaN
    return percent ? number / 100 : number
  })
  const decimal = [about, value].find(({ text }) => decimalPattern.test(text))
  const places = decimal ? decimalPattern.exec(decimal.text)![1].length + (decimal.percent ? 2 : 0) : 0
  if (rounded && !(decimal && isRounded(value, about) && Math.abs(x - y) <= 0.5001 * 10 ** -places)) return false
  return Math.abs(x - y) <= 0.010001 * Math.abs(x)
}

/** Numbers alone, whose values are known. */
function isConstant(answer: Answer): boolean {
  if (answer.kind === 'expression')
    return isSound(answer.json) && !!valueAt(answer.json, { variable: () => NaN })?.every(Number.isFinite)
  if (answer.kind === 'matrix') return answer.rows.flat().every(isConstant)
  return 'items' in answer && answer.items.every(isConstant)
}
