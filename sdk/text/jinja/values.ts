// Values as Python has them: str is string, int bigint, float number, bool boolean, None null, list Array, dict Map; and these.

export class Tuple extends Array<unknown> {}
/** What items(), keys() and values() of a dict give. */
export class View extends Array<unknown> {
  kind = ''
  static named(kind: string, items: Iterable<unknown>): View {
    const view = View.from(items) as View
    view.kind = kind
    return view
  }
}
export class Range extends Array<unknown> {
  bounds: readonly [from: number, to: number, step: number] = [0, 0, 1]
  static over(from: number, to: number, step: number): Range {
    const range = new Range()
    for (let n = from; step > 0 ? n < to : n > to; n += step) range.push(BigInt(n))
    range.bounds = [from, to, step]
    return range
  }
}
/** One of groupby: (grouper, list). */
export class Group extends Tuple {}

/** A variable, member or item that is not there: it prints as nothing, and can do nothing else. */
export class Undefined {
  readonly what: string
  constructor(what: string) {
    this.what = what
  }
}

/** A generator: its items come once. */
export class Generator {
  private readonly items: Iterator<unknown>
  constructor(items: Iterator<unknown>) {
    this.items = items
  }
  [Symbol.iterator](): Iterator<unknown> {
    // Leaving a loop early does not end it.
    return { next: () => this.items.next() }
  }
}

export class Namespace {
  readonly members = new Map<string, unknown>()
}

/** A function, macro or method, or `loop`, whose members are read as they are asked for. */
export interface Callable {
  (args: readonly unknown[], named: ReadonlyMap<string, unknown>): unknown
  readonly member?: (name: string) => unknown
}

export type Dict = Map<unknown, unknown>
/** As a dict has it: 1.0 is the key 1. */
export const keyOf = (key: unknown): unknown =>
  typeof key === 'number' && Number.isInteger(key) ? BigInt(key) : typeof key === 'boolean' ? BigInt(key) : key
const noNames: ReadonlyMap<string, unknown> = new Map()
export const call = (f: Callable, ...args: unknown[]): unknown => f(args, noNames)

/** Characters that a value, or a text that is about to be made, may have; beyond it nothing is even tried. */
const mostCharacters = 2 ** 26
/** Python prints no longer integers either. */
const largest = 10n ** 4300n

export function checkLength(characters: number): void {
  if (characters > mostCharacters) throw new Error('it makes too much text')
}

/** JSON, and what else a caller gives. */
export function fromJson(value: unknown): unknown {
  if (typeof value === 'number') return Number.isInteger(value) && !Object.is(value, -0) ? BigInt(value) : value
  if (Array.isArray(value)) return value.map(fromJson)
  if (typeof value !== 'object' || value === null) return value === undefined ? null : value
  const entries = Object.entries(value).filter(([, item]) => item !== undefined)
  return new Map(entries.map(([key, item]) => [key, fromJson(item)]))
}

export function typeName(value: unknown): string {
  if (value === null) return 'NoneType'
  if (value instanceof Undefined) return 'Undefined'
  if (value instanceof Tuple) return 'tuple'
  if (value instanceof View) return 'dict view'
  if (value instanceof Range) return 'range'
  if (Array.isArray(value)) return 'list'
  if (value instanceof Map) return 'dict'
  if (value instanceof Generator) return 'generator'
  if (value instanceof Namespace) return 'Namespace'
  return { string: 'str', bigint: 'int', number: 'float', boolean: 'bool' }[typeof value as string] ?? 'function'
}

/** Throws for what is undefined: naming it. */
export function defined(value: unknown): unknown {
  if (value instanceof Undefined) throw new Error(value.what)
  return value
}

export function truth(value: unknown): boolean {
  if (value instanceof Undefined || value === null || value === false || value === '') return false
  if (typeof value === 'bigint') return value !== 0n
  if (typeof value === 'number') return value !== 0
  if (Array.isArray(value)) return value.length > 0
  return !(value instanceof Map) || value.size > 0
}

/** Characters as Python counts them. */
export const characters = (text: string): readonly string[] | string =>
  /[\ud800-\udfff]/.test(text) ? Array.from(text) : text

export function length(value: unknown): bigint {
  if (typeof value === 'string') return BigInt(characters(value).length)
  if (Array.isArray(value)) return BigInt(value.length)
  if (value instanceof Map) return BigInt(value.size)
  if (value instanceof Undefined) return 0n
  if (typeof value === 'function' && (value as Callable).member) return (value as Callable).member!('length') as bigint
  throw new Error(`a ${typeName(value)} has no length`)
}

export function isIterable(value: unknown): boolean {
  return (
    typeof value === 'string' ||
    Array.isArray(value) ||
    value instanceof Map ||
    value instanceof Generator ||
    value instanceof Undefined
  )
}

export function iterate(value: unknown): Iterable<unknown> {
  if (value instanceof Map) return value.keys()
  if (value instanceof Undefined) return []
  if (isIterable(value)) return value as Iterable<unknown>
  throw new Error(`a ${typeName(value)} is not iterable`)
}

/** A number, booleans among them; undefined: it is none. */
const numeric = (value: unknown): bigint | number | undefined => {
  if (typeof value === 'boolean') return value ? 1n : 0n
  return typeof value === 'bigint' || typeof value === 'number' ? value : undefined
}

/** An integer that JavaScript can count with. */
export function integer(value: unknown, what = 'it'): number {
  const n = numeric(defined(value))
  if (typeof n !== 'bigint') throw new Error(`${what} must be an integer, not a ${typeName(value)}`)
  return Number(n)
}

export function text(value: unknown, what = 'it'): string {
  if (typeof defined(value) === 'string') return value as string
  throw new Error(`${what} must be a string, not a ${typeName(value)}`)
}

export function equal(a: unknown, b: unknown): boolean {
  const [x, y] = [numeric(a), numeric(b)]
  // biome-ignore lint/suspicious/noDoubleEquals: an integer equals a float
  if (x !== undefined && y !== undefined) return x == y
  if (Array.isArray(a) && Array.isArray(b))
    return typeName(a) === typeName(b) && a.length === b.length && a.every((item, i) => equal(item, b[i]))
  if (a instanceof Map && b instanceof Map)
    return a.size === b.size && [...a].every(([key, item]) => b.has(key) && equal(item, b.get(key)))
  return a === b || (a instanceof Undefined && b instanceof Undefined)
}

/** Below 0, 0, or above. Throws for what has no order. */
export function compare(a: unknown, b: unknown): number {
  const [x, y] = [numeric(defined(a)), numeric(defined(b))]
  if (x !== undefined && y !== undefined) return x < y ? -1 : x > y ? 1 : equal(x, y) ? 0 : Number.NaN
  if (typeof a === 'string' && typeof b === 'string') {
    // By characters, not by UTF-16 units.
    const [one, other] = [characters(a), characters(b)]
    for (let i = 0; i < one.length && i < other.length; i++)
      if (one[i] !== other[i]) return one[i].codePointAt(0)! - other[i].codePointAt(0)!
    return one.length - other.length
  }
  if (Array.isArray(a) && typeName(a) === typeName(b) && ['list', 'tuple'].includes(typeName(a))) {
    const other = b as unknown[]
    for (let i = 0; i < a.length && i < other.length; i++) if (!equal(a[i], other[i])) return compare(a[i], other[i])
    return a.length - other.length
  }
  throw new Error(`a ${typeName(a)} and a ${typeName(b)} have no order`)
}

export function contains(all: unknown, one: unknown): boolean {
  if (typeof all === 'string') return all.includes(text(one, `what is looked for in a string`))
  if (all instanceof Map) return all.has(keyOf(one))
  for (const item of iterate(all)) if (equal(item, one)) return true
  return false
}

type Arithmetic = '+' | '-' | '*' | '/' | '//' | '%' | '**'

export function arithmetic(operator: Arithmetic, a: unknown, b: unknown): unknown {
  const [x, y] = [numeric(defined(a)), numeric(defined(b))]
  if (x !== undefined && y !== undefined) {
    const isZero = Number(y) === 0 && ['/', '//', '%'].includes(operator)
    if (isZero) throw new Error('division by zero')
    if (typeof x === 'bigint' && typeof y === 'bigint' && operator !== '/' && !(operator === '**' && y < 0n))
      return integers(operator, x, y)
    return floats(operator, Number(x), Number(y))
  }
  if (operator === '+') {
    if (typeof a === 'string' && typeof b === 'string') return a + b
    if (Array.isArray(a) && Array.isArray(b) && typeName(a) === typeName(b) && ['list', 'tuple'].includes(typeName(a)))
      return a.concat(b)
  }
  if (operator === '*' && (x === undefined) !== (y === undefined)) {
    const [repeated, count] = x === undefined ? [a, integer(b)] : [b, integer(a)]
    const times = Math.max(0, count)
    if (typeof repeated === 'string') {
      checkLength(times * repeated.length)
      return repeated.repeat(times)
    }
    if (Array.isArray(repeated) && ['list', 'tuple'].includes(typeName(repeated))) {
      checkLength(times * repeated.length)
      const made: unknown[] = repeated instanceof Tuple ? new Tuple() : []
      for (let i = 0; i < times; i++) made.push(...repeated)
      return made
    }
  }
  throw new Error(`${operator} does not go between a ${typeName(a)} and a ${typeName(b)}`)
}

function integers(operator: Arithmetic, a: bigint, b: bigint): bigint {
  const bounded = (n: bigint) => {
    if (n > largest || n < -largest) throw new Error('an integer is too large')
    return n
  }
  if (operator === '+') return bounded(a + b)
  if (operator === '-') return bounded(a - b)
  if (operator === '*') return bounded(a * b)
  if (operator === '**') {
    if (a * a > 1n && b > 15_000n) throw new Error('an integer is too large')
    return bounded(a ** b)
  }
  // Rounded down, and the rest has the divisor's sign.
  const rest = ((a % b) + b) % b
  return operator === '%' ? rest : (a - rest) / b
}

function floats(operator: Arithmetic, a: number, b: number): number {
  if (operator === '+') return a + b
  if (operator === '-') return a - b
  if (operator === '*') return a * b
  if (operator === '/') return a / b
  if (operator === '**') {
    if ((a < 0 && !Number.isInteger(b)) || (a === 0 && b < 0)) throw new Error(`${a} ** ${b} is no number`)
    return a ** b
  }
  const remainder = a % b
  const rest =
    remainder !== 0 && remainder < 0 !== b < 0 ? remainder + b : remainder === 0 ? (b < 0 ? -0 : 0) : remainder
  return operator === '%' ? rest : Math.round((a - rest) / b)
}

/** As print() writes it. */
export function str(value: unknown): string {
  if (typeof value === 'string') return value
  return value instanceof Undefined ? '' : repr(value)
}

export function repr(value: unknown): string {
  if (value === null) return 'None'
  if (typeof value === 'boolean') return value ? 'True' : 'False'
  if (typeof value === 'bigint') return String(value)
  if (typeof value === 'number') return floatText(value)
  if (typeof value === 'string') return quoted(value)
  if (value instanceof Undefined) return 'Undefined'
  if (value instanceof Tuple) return `(${value.map(repr).join(', ')}${value.length === 1 ? ',' : ''})`
  if (value instanceof Map) return `{${[...value].map((pair) => pair.map(repr).join(': ')).join(', ')}}`
  if (value instanceof Range)
    return `range(${(value.bounds[2] === 1 ? value.bounds.slice(0, 2) : value.bounds).join(', ')})`
  if (Array.isArray(value)) {
    const list = `[${Array.from(value, repr).join(', ')}]`
    return value instanceof View ? `dict_${value.kind}(${list})` : list
  }
  // Python would print an address.
  throw new Error(`a ${typeName(value)} has no text: make a list of it`)
}

export function floatText(value: number): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? 'nan' : value > 0 ? 'inf' : '-inf'
  const [digits, exponent] = value.toExponential().split('e')
  const power = Number(exponent)
  if (power < -4 || power >= 16) {
    const size = String(Math.abs(power)).padStart(2, '0')
    return `${digits}e${power < 0 ? '-' : '+'}${size}`
  }
  if (Object.is(value, -0)) return '-0.0'
  const plain = String(value)
  return plain.includes('.') ? plain : `${plain}.0`
}

const short: Readonly<Record<string, string>> = { '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t' }

function quoted(value: string): string {
  const quote = value.includes("'") && !value.includes('"') ? '"' : "'"
  const escaped = value.replace(/[\\\n\r\t]|(?! )[\p{C}\p{Z}]/gu, (letter) => {
    const code = letter.codePointAt(0)!
    const hex = (digits: number) => code.toString(16).padStart(digits, '0')
    return short[letter] ?? (code < 256 ? `\\x${hex(2)}` : code < 65536 ? `\\u${hex(4)}` : `\\U${hex(8)}`)
  })
  return quote + (quote === "'" ? escaped.replaceAll("'", "\\'") : escaped) + quote
}
