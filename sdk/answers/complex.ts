import { isMixed, type MathJson } from './math-json.ts'

/** [real, imaginary] */
export type Complex = readonly [number, number]
/** Where an expression is evaluated. */
export interface Point {
  /** The value of a variable. */
  readonly variable: (name: string) => number
  /** What an operation gives, a little off where it is to be seen what rounding does to the whole. */
  readonly rounded?: (value: Complex) => Complex
}

/** Of a sum or product. */
const mostTerms = 1000

/** The value of an expression; null for what is not known here. */
export function valueAt(json: MathJson | undefined, point: Point): Complex | null {
  if (typeof json === 'number') return [json, 0]
  if (typeof json === 'string') return json.startsWith("'") ? null : (constants.get(json) ?? [point.variable(json), 0])
  if (!Array.isArray(json)) return typeof json?.num === 'string' ? [Number(json.num), 0] : null
  const [op, ...args] = json
  if (op === 'InvisibleOperator') return isMixed(args) ? valueAt(['Add', ...args], point) : product(args, point)
  if (op === 'Sum' || op === 'Product') return series(op, args, point)
  if (op === 'Power' && args[0] === 'e') args[0] = 'ExponentialE'
  const values: Complex[] = []
  for (const arg of args) {
    const value = valueAt(arg, point)
    if (!value) return null
    values.push(value)
  }
  if (typeof op !== 'string' || !Object.hasOwn(operators, op)) return null
  const value = operators[op](...values)
  return value && point.rounded ? point.rounded(value) : value
}

const constants = new Map<string, Complex>([
  ['Pi', [Math.PI, 0]],
  ['e', [Math.E, 0]],
  ['ExponentialE', [Math.E, 0]],
  ['i', [0, 1]],
  ['ImaginaryUnit', [0, 1]],
  ['PositiveInfinity', [Infinity, 0]],
  ['NegativeInfinity', [-Infinity, 0]],
  ['Half', [0.5, 0]],
])

/** Letters that before brackets are functions, not factors. */
const functionNames = new Set(['f', 'g', 'h', 'F', 'G', 'H', 'P', 'W', 'Q'])
const isDelimiter = (json: MathJson | undefined): boolean => Array.isArray(json) && json[0] === 'Delimiter'

function product(args: readonly MathJson[], point: Point): Complex | null {
  let value: Complex = [1, 0]
  for (let i = 0; i < args.length; i++) {
    const [name, next] = [args[i], args[i + 1]]
    let factor: Complex | null
    if (typeof name === 'string' && functionNames.has(name) && isDelimiter(next)) {
      const inner = valueAt(next, point)
      // An unknown function: some number that depends on its argument.
      factor = inner && [point.variable(`${name}(${inner[0].toPrecision(9)},${inner[1].toPrecision(9)})`), 0]
      i++
    } else if (name === 'Exp' && next !== undefined) {
      const inner = valueAt(next, point)
      factor = inner && exponential(inner)
      i++
    } else factor = valueAt(name, point)
    if (!factor) return null
    value = times(value, factor)
  }
  return value
}

/** A sum or product over whole numbers. */
function series(op: 'Sum' | 'Product', [body, range]: readonly MathJson[], point: Point): Complex | null {
  const [, index, ...bounds] = Array.isArray(range) ? range : []
  const [from, to] = bounds.map((bound) => valueAt(bound, point)?.[0] ?? NaN)
  if (typeof index !== 'string' || !Number.isInteger(from) || !Number.isInteger(to) || to - from > mostTerms)
    return null
  // i is a number elsewhere.
  const name = `index ${index}`
  const inner = renamed(body, index, name)
  let value: Complex = op === 'Sum' ? [0, 0] : [1, 0]
  for (let i = from; i <= to; i++) {
    const term = valueAt(inner, { ...point, variable: (other) => (other === name ? i : point.variable(other)) })
    if (!term) return null
    value = op === 'Sum' ? plus(value, term) : times(value, term)
  }
  return value
}

const renamed = (json: MathJson, from: string, to: string): MathJson =>
  Array.isArray(json) ? json.map((part) => renamed(part, from, to)) : json === from ? to : json

const plus = ([a, b]: Complex, [c, d]: Complex): Complex => [a + c, b + d]
const times = ([a, b]: Complex, [c, d]: Complex): Complex =>
  b === 0 && d === 0 ? [a * c, 0] : [a * c - b * d, a * d + b * c]

function over(x: Complex, y: Complex): Complex {
  if (x[1] === 0 && y[1] === 0) return [x[0] / y[0], 0]
  const square = y[0] ** 2 + y[1] ** 2
  const [re, im] = times(x, [y[0], -y[1]])
  return [re / square, im / square]
}

const quotient = (x?: Complex, y?: Complex): Complex | null => (x && y ? over(x, y) : null)
const logarithm = ([a, b]: Complex): Complex =>
  b === 0 && a > 0 ? [Math.log(a), 0] : [Math.log(Math.hypot(a, b)), Math.atan2(b, a)]
const exponential = ([a, b]: Complex): Complex =>
  b === 0 ? [Math.exp(a), 0] : [Math.exp(a) * Math.cos(b), Math.exp(a) * Math.sin(b)]

function raised(x: Complex, y: Complex): Complex {
  if (x[1] === 0 && y[1] === 0 && (x[0] >= 0 || Number.isInteger(y[0]))) return [x[0] ** y[0], 0]
  if (x[0] === 0 && x[1] === 0) return [0, 0]
  return exponential(times(y, logarithm(x)))
}

/** Of real numbers alone. */
const real =
  (f: (...values: number[]) => number) =>
  (...values: Complex[]): Complex | null =>
    values.every(([, im]) => im === 0) ? [f(...values.map(([re]) => re)), 0] : null

/** x! by its product, where it is a finite number. */
function factorial(x: number): number {
  if (!(x >= 0)) return NaN
  if (x > 170) return Infinity
  if (Number.isInteger(x)) {
    let value = 1
    for (let i = 2; i <= x; i++) value *= i
    return value
  }
  // Any function that obeys x! = x (x-1)! and is smooth does for comparing formulas: Stirling's series far out.
  let [y, divisor] = [x, 1]
  while (y < 20) divisor *= ++y
  const tail = 1 / (12 * y) - 1 / (360 * y ** 3) + 1 / (1260 * y ** 5)
  return (Math.sqrt(2 * Math.PI * y) * (y / Math.E) ** y * Math.exp(tail)) / divisor
}

function binomial(n: number, k: number): number {
  if (!Number.isInteger(k) || k < 0 || k > 1000) return factorial(n) / (factorial(k) * factorial(n - k))
  let value = 1
  for (let i = 1; i <= k; i++) value *= (n - k + i) / i
  return value
}

const gcd = (a: number, b: number): number => (Math.abs(b) >= 0.5 ? gcd(b, a % b) : Math.abs(a))
const lcm = (a: number, b: number): number => Math.abs(a * b) / gcd(a, b)
const fold =
  (f: (a: number, b: number) => number) =>
  (...values: number[]): number =>
    values.reduce((a, b) => f(a, b))

const operators: Record<string, (...values: Complex[]) => Complex | null> = {
  Add: (...values) => values.reduce(plus, [0, 0]),
  Subtract: (x, y?: Complex) => (y ? [x[0] - y[0], x[1] - y[1]] : [-x[0], -x[1]]),
  Negate: ([a, b]) => [-a, b === 0 ? 0 : -b],
  Multiply: (...values) => values.reduce(times, [1, 0]),
  Divide: quotient,
  Rational: quotient,
  Delimiter: (value?: Complex, more?: Complex) => (more ? null : (value ?? null)),
  Power: (x?: Complex, y?: Complex) => (x && y ? raised(x, y) : null),
  Square: (x) => raised(x, [2, 0]),
  Sqrt: (x?: Complex) => (x ? raised(x, [0.5, 0]) : null),
  Root: (x?: Complex, n?: Complex) => {
    if (!x || !n) return null
    const odd = x[1] === 0 && x[0] < 0 && n[1] === 0 && Math.abs(n[0] % 2) === 1
    return odd ? [-((-x[0]) ** (1 / n[0])), 0] : raised(x, over([1, 0], n))
  },
  Exp: exponential,
  Ln: (x, base?: Complex) => (base ? over(logarithm(x), logarithm(base)) : logarithm(x)),
  Log: (x, base?: Complex) => over(logarithm(x), logarithm(base ?? [10, 0])),
  Lb: (x) => over(logarithm(x), [Math.LN2, 0]),
  Abs: ([a, b]) => [Math.hypot(a, b), 0],
  Degrees: ([a, b]) => [(a * Math.PI) / 180, (b * Math.PI) / 180],
  Factorial: real(factorial),
  Floor: real(Math.floor),
  Ceil: real(Math.ceil),
  Max: real(Math.max),
  Min: real(Math.min),
  Mod: real((a, b) => ((a % b) + b) % b),
  GCD: real(fold(gcd)),
  LCM: real(fold(lcm)),
  Binomial: real(binomial),
  Sin: real(Math.sin),
  Cos: real(Math.cos),
  Tan: real(Math.tan),
  Cot: real((x) => 1 / Math.tan(x)),
  Sec: real((x) => 1 / Math.cos(x)),
  Csc: real((x) => 1 / Math.sin(x)),
  Arcsin: real(Math.asin),
  Arccos: real(Math.acos),
  Arctan: real(Math.atan),
  Arccot: real((x) => Math.PI / 2 - Math.atan(x)),
  Sinh: real(Math.sinh),
  Cosh: real(Math.cosh),
  Tanh: real(Math.tanh),
  OverVector: (x) => x,
  OverRightArrow: (x) => x,
  OverBar: (x) => x,
}

/** The variables of an expression. */
export function variables(json: MathJson | undefined, found: Set<string> = new Set()): Set<string> {
  if (typeof json === 'string' && !json.startsWith("'") && !constants.has(json)) found.add(json)
  else if (Array.isArray(json)) for (const arg of json.slice(1)) variables(arg, found)
  return found
}
