import { isMixed, type MathJson } from './math-json.ts'

/** [numerator, denominator] in lowest terms, the denominator positive. */
export type Fraction = readonly [bigint, bigint]

/** Bits of a numerator or denominator: nothing here grows without bound. */
const mostBits = 4000

/** The value of a constant expression; null when it is none, irrational or too large. */
export function exact(json: MathJson | undefined): Fraction | null {
  if (typeof json === 'number') return decimal(String(json))
  if (typeof json === 'string') return null
  if (!Array.isArray(json)) return typeof json?.num === 'string' ? decimal(json.num) : null
  const [op, ...args] = json
  if (op === 'Power') return power(args)
  if (op === 'Factorial') return factorial(args)
  const values: Fraction[] = []
  for (const arg of args) {
    const value = exact(arg)
    if (!value) return null
    values.push(value)
  }
  if (typeof op !== 'string' || !Object.hasOwn(operators, op)) return null
  return small(operators[op](values, args))
}

const add = ([a, b]: Fraction, [c, d]: Fraction): Fraction => reduced(a * d + c * b, b * d)
const multiply = ([a, b]: Fraction, [c, d]: Fraction): Fraction => reduced(a * c, b * d)
const divide = ([a, b]: Fraction, [c, d]: Fraction): Fraction | null => (c === 0n ? null : reduced(a * d, b * c))
const negative = ([a, b]: Fraction): Fraction => [-a, b]
const quotient = ([a, b]: readonly Fraction[]): Fraction | null => (a && b ? divide(a, b) : null)

const fold =
  (step: (a: Fraction, b: Fraction) => Fraction, first: Fraction) =>
  (values: readonly Fraction[]): Fraction | null =>
    values.reduce<Fraction | null>((all, value) => all && small(step(all, value)), first)
const product = fold(multiply, [1n, 1n])

const operators: Record<string, (values: readonly Fraction[], args: readonly MathJson[]) => Fraction | null> = {
  Add: fold(add, [0n, 1n]),
  Multiply: product,
  InvisibleOperator: (values, args) => (isMixed(args) ? add(values[0], values[1]) : product(values)),
  Subtract: (values) => (values.length === 2 ? add(values[0], negative(values[1])) : null),
  Negate: ([value]) => value && negative(value),
  Divide: quotient,
  Rational: quotient,
  Abs: ([value]) => value && (value[0] < 0n ? negative(value) : value),
  Delimiter: (values) => (values.length === 1 ? values[0] : null),
  Sqrt: ([value]) => {
    if (!value || value[0] < 0n) return null
    const [a, b] = value.map(root)
    return a ** 2n === value[0] && b ** 2n === value[1] ? [a, b] : null
  },
}

function power([base, exponent]: readonly MathJson[]): Fraction | null {
  const [a, n] = [exact(base), exact(exponent)]
  if (!a || !n || n[1] !== 1n) return null
  const times = n[0] < 0n ? -n[0] : n[0]
  if (a[0] === 0n) return n[0] > 0n ? [0n, 1n] : null
  const bits = a[0].toString(2).length + a[1].toString(2).length
  if (times > 10_000n || Number(times) * bits > 2 * mostBits) return null
  const value: Fraction = [a[0] ** times, a[1] ** times]
  return n[0] < 0n ? divide([1n, 1n], value) : value
}

function factorial([arg]: readonly MathJson[]): Fraction | null {
  const n = exact(arg)
  if (n?.[1] !== 1n || n[0] < 0n || n[0] > 400n) return null
  let value = 1n
  for (let i = 2n; i <= n[0]; i++) value *= i
  return [value, 1n]
}

function decimal(text: string): Fraction | null {
  const match = /^(-?)(\d+)(?:\.(\d*))?(?:e([-+]?\d+))?$/i.exec(text)
  if (!match || text.length > 1200) return null
  const [, sign, whole, places = '', exponent = '0'] = match
  const scale = Number(exponent) - places.length
  if (Math.abs(scale) > 1200) return null
  const digits = BigInt(sign + whole + places)
  return scale < 0 ? reduced(digits, 10n ** BigInt(-scale)) : [digits * 10n ** BigInt(scale), 1n]
}

function reduced(a: bigint, b: bigint): Fraction {
  let [x, y] = [a < 0n ? -a : a, b < 0n ? -b : b]
  while (y) [x, y] = [y, x % y]
  const sign = b < 0n ? -1n : 1n
  return x === 0n ? [0n, 1n] : [(sign * a) / x, (sign * b) / x]
}

const small = (value: Fraction | null): Fraction | null =>
  value?.every((n) => n.toString(16).length * 4 <= mostBits) ? value : null

/** The whole part of a square root (Newton's method). */
function root(n: bigint): bigint {
  if (n < 2n) return n
  let x = 1n << BigInt(Math.ceil(n.toString(2).length / 2))
  for (;;) {
    const y = (x + n / x) >> 1n
    if (y >= x) return x
    x = y
  }
}
