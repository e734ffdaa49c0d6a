// Values of expressions in MathJSON: exact as fractions where that is possible within bounds, else as complex numbers at
// given values of the variables. Nothing here grows without bound.

/** Bits of an exact number. */
const mostBits = 4000
/** Of a sum. */
const mostTerms = 1000

/** [numerator, denominator] of a constant expression; null when it is none, irrational or too large. */
export function exact(json) {
  if (typeof json === 'number' || typeof json?.num === 'string') return decimal(String(json.num ?? json))
  if (!Array.isArray(json)) return null
  const [op, ...args] = json
  if (op === 'Power') return power(args)
  if (op === 'Factorial') return factorial(args)
  const values = []
  for (const arg of args) {
    if (typeof arg === 'string') return null
    const value = exact(arg)
    if (!value) return null
    values.push(value)
  }
  return small(rational[op]?.(values, args) ?? null)
}

const add = ([a, b], [c, d]) => reduced(a * d + c * b, b * d)
const multiply = ([a, b], [c, d]) => reduced(a * c, b * d)
const divide = ([a, b], [c, d]) => (c === 0n ? null : reduced(a * d, b * c))
const fold = (step, first) => (values) =>
  values.reduce((sum, value) => (sum === null ? null : small(step(sum, value))), first)

const rational = {
  Add: fold(add, [0n, 1n]),
  Multiply: fold(multiply, [1n, 1n]),
  InvisibleOperator: (values, args) => (isMixed(args) ? add(values[0], values[1]) : fold(multiply, [1n, 1n])(values)),
  Subtract: (values) => (values.length === 2 ? add(values[0], [-values[1][0], values[1][1]]) : null),
  Negate: ([value]) => (value ? [-value[0], value[1]] : null),
  Divide: ([a, b]) => (a && b ? divide(a, b) : null),
  Rational: ([a, b]) => (a && b ? divide(a, b) : null),
  Abs: ([value]) => (value ? [value[0] < 0n ? -value[0] : value[0], value[1]] : null),
  Delimiter: (values) => (values.length === 1 ? values[0] : null),
  Sqrt: ([value]) => {
    if (!value || value[0] < 0n) return null
    const roots = value.map(root)
    return roots[0] ** 2n === value[0] && roots[1] ** 2n === value[1] ? roots : null
  },
}

/** 3 1/2: a whole number before a fraction of whole numbers that is less than one. */
const isMixed = ([whole, fraction, ...more]) =>
  more.length === 0 &&
  Number.isInteger(whole) &&
  whole > 0 &&
  Array.isArray(fraction) &&
  fraction[0] === 'Divide' &&
  Number.isInteger(fraction[1]) &&
  Number.isInteger(fraction[2]) &&
  fraction[1] > 0 &&
  fraction[1] < fraction[2]

function power([base, exponent]) {
  const [a, n] = [exact(base), exact(exponent)]
  if (!a || !n || n[1] !== 1n) return null
  const times = n[0] < 0n ? -n[0] : n[0]
  if (a[0] === 0n) return n[0] > 0n ? [0n, 1n] : null
  const bits = a[0].toString(2).length + a[1].toString(2).length
  if (times > 10_000n || Number(times) * bits > 2 * mostBits) return null
  const value = [a[0] ** times, a[1] ** times]
  return n[0] < 0n ? divide([1n, 1n], value) : value
}

function factorial([arg]) {
  const n = exact(arg)
  if (n?.[1] !== 1n || n[0] < 0n || n[0] > 400n) return null
  let product = 1n
  for (let i = 2n; i <= n[0]; i++) product *= i
  return [product, 1n]
}

function decimal(text) {
  const match = /^(-?)(\d+)(?:\.(\d*))?(?:e([-+]?\d+))?$/i.exec(text)
  if (!match || text.length > 1200) return null
  const fraction = match[3] ?? ''
  const scale = Number(match[4] ?? 0) - fraction.length
  if (Math.abs(scale) > 1200) return null
  const digits = BigInt(match[1] + match[2] + fraction)
  return scale < 0 ? reduced(digits, 10n ** BigInt(-scale)) : [digits * 10n ** BigInt(scale), 1n]
}

function reduced(a, b) {
  let [x, y] = [a < 0n ? -a : a, b < 0n ? -b : b]
  while (y) [x, y] = [y, x % y]
  const sign = b < 0n ? -1n : 1n
  return x === 0n ? [0n, 1n] : [(sign * a) / x, (sign * b) / x]
}

const small = (value) => (value?.every((n) => n.toString(16).length * 4 <= mostBits) ? value : null)

function root(n) {
  if (n < 2n) return n
  let x = 1n << BigInt(Math.ceil(n.toString(2).length / 2))
  for (;;) {
    const y = (x + n / x) >> 1n
    if (y >= x) return x
    x = y
  }
}

/** The value as [real, imaginary] where `variable(name)` gives the values of variables; null for what is not known here. */
export function valueAt(json, variable) {
  if (typeof json === 'number') return [json, 0]
  if (typeof json?.num === 'string') return [Number(json.num), 0]
  if (typeof json === 'string') {
    if (json.startsWith("'")) return null
    return constants.get(json) ?? [variable(json), 0]
  }
  if (!Array.isArray(json)) return null
  const [op, ...args] = json
  if (op === 'InvisibleOperator') return product(args, variable)
  if (op === 'Sum' || op === 'Product') return series(op, args, variable)
  if (op === 'Power' && args[0] === 'e') args[0] = 'ExponentialE'
  const values = []
  for (const arg of args) {
    const value = valueAt(arg, variable)
    if (!value) return null
    values.push(value)
  }
  return operators[op]?.(...values) ?? null
}

const constants = new Map([
  ['Pi', [Math.PI, 0]],
  ['e', [Math.E, 0]],
  ['ExponentialE', [Math.E, 0]],
  ['i', [0, 1]],
  ['ImaginaryUnit', [0, 1]],
  ['PositiveInfinity', [Infinity, 0]],
  ['Half', [0.5, 0]],
])

/** Letters that before brackets are functions, not factors. */
const functionNames = new Set(['f', 'g', 'h', 'F', 'G', 'H', 'P', 'W', 'Q'])

function product(args, variable) {
  if (isMixed(args)) return [args[0] + args[1][1] / args[1][2], 0]
  let value = [1, 0]
  for (let i = 0; i < args.length; i++) {
    const next = args[i + 1]
    let factor
    if (functionNames.has(args[i]) && next?.[0] === 'Delimiter') {
      const inner = valueAt(next, variable)
      // An unknown function: some number that depends on its argument.
      factor = inner && [variable(`${args[i]}(${inner[0].toPrecision(9)},${inner[1].toPrecision(9)})`), 0]
      i++
    } else if (args[i] === 'Exp' && next !== undefined) {
      const inner = valueAt(next, variable)
      factor = inner && exponential(inner)
      i++
    } else factor = valueAt(args[i], variable)
    if (!factor) return null
    value = times(value, factor)
  }
  return value
}

/** A sum or product over whole numbers. */
function series(op, [body, range], variable) {
  const [, index, ...bounds] = Array.isArray(range) ? range : []
  const [from, to] = bounds.map((bound) => valueAt(bound, variable)?.[0])
  if (typeof index !== 'string' || !Number.isInteger(from) || !Number.isInteger(to) || to - from > mostTerms)
    return null
  // i is a number elsewhere.
  const name = `index ${index}`
  const inner = renamed(body, index, name)
  let value = op === 'Sum' ? [0, 0] : [1, 0]
  for (let i = from; i <= to; i++) {
    const term = valueAt(inner, (other) => (other === name ? i : variable(other)))
    if (!term) return null
    value = op === 'Sum' ? [value[0] + term[0], value[1] + term[1]] : times(value, term)
  }
  return value
}

const renamed = (json, from, to) =>
  Array.isArray(json) ? json.map((part) => renamed(part, from, to)) : json === from ? to : json

const times = ([a, b], [c, d]) => (b === 0 && d === 0 ? [a * c, 0] : [a * c - b * d, a * d + b * c])
const over = (x, y) => {
  if (x[1] === 0 && y[1] === 0) return [x[0] / y[0], 0]
  const square = y[0] ** 2 + y[1] ** 2
  const [re, im] = times(x, [y[0], -y[1]])
  return [re / square, im / square]
}
const logarithm = ([a, b]) => (b === 0 && a > 0 ? [Math.log(a), 0] : [Math.log(Math.hypot(a, b)), Math.atan2(b, a)])
const exponential = ([a, b]) => (b === 0 ? [Math.exp(a), 0] : [Math.exp(a) * Math.cos(b), Math.exp(a) * Math.sin(b)])

function raised(x, y) {
  if (x[1] === 0 && y[1] === 0 && (x[0] >= 0 || Number.isInteger(y[0]))) return [x[0] ** y[0], 0]
  if (x[0] === 0 && x[1] === 0) return [0, 0]
  return exponential(times(y, logarithm(x)))
}

/** Of real numbers alone. */
const real =
  (f) =>
  (...values) =>
    values.every(([, im]) => im === 0) ? [f(...values.map(([re]) => re)), 0] : null

/** x! by its product, where it is a finite number. */
function factorialOf(x) {
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
  const series = 1 / (12 * y) - 1 / (360 * y ** 3) + 1 / (1260 * y ** 5)
  return (Math.sqrt(2 * Math.PI * y) * (y / Math.E) ** y * Math.exp(series)) / divisor
}

const gcd = (a, b) => (Math.abs(b) >= 0.5 ? gcd(b, a % b) : Math.abs(a))
const each =
  (f) =>
  (...values) =>
    values.reduce((a, b) => f(a, b))

const operators = {
  Add: (...values) => values.reduce(([a, b], [c, d]) => [a + c, b + d], [0, 0]),
  Subtract: (x, y) => (y ? [x[0] - y[0], x[1] - y[1]] : [-x[0], -x[1]]),
  Negate: ([a, b]) => [-a, b === 0 ? 0 : -b],
  Multiply: (...values) => values.reduce(times, [1, 0]),
  Divide: (x, y) => (x && y ? over(x, y) : null),
  Rational: (x, y) => (x && y ? over(x, y) : null),
  Delimiter: (value, more) => (more ? null : (value ?? null)),
  Power: (x, y) => (x && y ? raised(x, y) : null),
  Square: (x) => raised(x, [2, 0]),
  Sqrt: (x) => (x ? raised(x, [0.5, 0]) : null),
  Root: (x, n) => {
    if (!x || !n) return null
    const odd = x[1] === 0 && x[0] < 0 && n[1] === 0 && Math.abs(n[0] % 2) === 1
    return odd ? [-((-x[0]) ** (1 / n[0])), 0] : raised(x, over([1, 0], n))
  },
  Exp: exponential,
  Ln: (x, base) => (base ? over(logarithm(x), logarithm(base)) : logarithm(x)),
  Log: (x, base) => over(logarithm(x), logarithm(base ?? [10, 0])),
  Lb: (x) => over(logarithm(x), [Math.LN2, 0]),
  Abs: ([a, b]) => [Math.hypot(a, b), 0],
  Degrees: ([a, b]) => [(a * Math.PI) / 180, (b * Math.PI) / 180],
  Factorial: real(factorialOf),
  Floor: real(Math.floor),
  Ceil: real(Math.ceil),
  Max: real(Math.max),
  Min: real(Math.min),
  Mod: real((a, b) => ((a % b) + b) % b),
  GCD: real(each(gcd)),
  LCM: real(each((a, b) => Math.abs(a * b) / gcd(a, b))),
  Binomial: real((n, k) => {
    if (!Number.isInteger(k) || k < 0 || k > 1000) return factorialOf(n) / (factorialOf(k) * factorialOf(n - k))
    let value = 1
    for (let i = 1; i <= k; i++) value *= (n - k + i) / i
    return value
  }),
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
export function variables(json, found = new Set()) {
  if (typeof json === 'string' && !json.startsWith("'") && !constants.has(json)) found.add(json)
  else if (Array.isArray(json)) for (const arg of json.slice(1)) variables(arg, found)
  return found
}

/** Whether the parser understood all of it. */
export function isSound(json) {
  if (!Array.isArray(json)) return json !== undefined && json !== 'Nothing'
  return json[0] !== 'Error' && json.slice(1).every(isSound)
}

/** A number between 0.4 and 2.4 for a name and a round: always the same. */
export function sample(name, round) {
  let hash = 2166136261 ^ (round * 0x9e3779b1)
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 16777619)
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d)
  hash = Math.imul(hash ^ (hash >>> 12), 0x297a2d39)
  return 0.4 + ((hash ^ (hash >>> 15)) >>> 0) / 2 ** 31
}
