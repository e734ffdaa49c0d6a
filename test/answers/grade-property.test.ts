import fc from 'fast-check'
import { beforeAll, expect, it } from 'vitest'
import { grade } from '../../sdk/answers/grade.ts'

// Pairs of answers that are equal, or not, because of how they were made: exact rational numbers and polynomials, written in
// different ways.

beforeAll(async () => {
  await grade('x', 'x + 1')
}, 60_000)

type Ratio = readonly [above: bigint, below: bigint]

const gcd = (a: bigint, b: bigint): bigint => (b === 0n ? (a < 0n ? -a : a) : gcd(b, a % b))
const ratio = (a: bigint, b: bigint): Ratio => {
  const by = gcd(a, b) * (b < 0n ? -1n : 1n)
  return [a / by, b / by]
}
const add = ([a, b]: Ratio, [c, d]: Ratio) => ratio(a * d + c * b, b * d)
const times = ([a, b]: Ratio, [c, d]: Ratio) => ratio(a * c, b * d)
const same = ([a, b]: Ratio, [c, d]: Ratio) => a === c && b === d

const choose = fc.nat({ max: 1_000_000 })
const pick = <T>(from: readonly T[], n: number): T => from[n % from.length]

/** 0.125 for 1/8; null where the decimals do not end. */
function decimal([a, b]: Ratio): string | null {
  let [scaled, places] = [b, 0]
  for (const prime of [2n, 5n]) while (scaled % prime === 0n) scaled /= prime
  if (scaled !== 1n) return null
  let power = 1n
  while (power % b !== 0n) [power, places] = [power * 10n, places + 1]
  const digits = String(((a < 0n ? -a : a) * power) / b).padStart(places + 1, '0')
  const [whole, rest] = [digits.slice(0, digits.length - places), digits.slice(digits.length - places)]
  return `${a < 0n ? '-' : ''}${whole}${rest && `.${rest}`}`
}

/** Ways to write a number, the longer ones computing it. */
function numberWays(value: Ratio, seeds: readonly number[]): string[] {
  const [a, b] = value
  const sign = a < 0n ? '-' : ''
  const size = a < 0n ? -a : a
  const k = BigInt(2 + (seeds[0] % 7))
  const part = ratio(BigInt((seeds[1] % 19) - 9), BigInt(1 + (seeds[2] % 6)))
  const rest = add(value, [-part[0], part[1]])
  const plain = ([p, q]: Ratio) => (q === 1n ? `${p}` : `${p < 0n ? '-' : ''}\\frac{${p < 0n ? -p : p}}{${q}}`)
  const ways = [
    plain(value),
    `${sign}${size}/${b}`,
    `\\dfrac{${a}}{${b}}`,
    `\\frac{${a * k}}{${b * k}}`,
    `\\left(${plain(part)}\\right)+\\left(${plain(rest)}\\right)`,
    `${plain(rest)}-\\left(${plain([-part[0], part[1]])}\\right)`,
    `${k}\\cdot\\left(${plain(times(value, [1n, k]))}\\right)`,
    `\\frac{${plain(times(value, [k, 1n]))}}{${k}}`,
  ]
  const exact = decimal(value)
  if (exact !== null) ways.push(exact, `${exact}0`.replace(/^(-?\d+)0$/, '$1.0'))
  const percent = decimal(times(value, [100n, 1n]))
  if (percent !== null) ways.push(`${percent}\\%`, `${percent}%`)
  if (b > 1n && size > b) ways.push(`${sign}${size / b}\\frac{${size % b}}{${b}}`)
  if (a >= 0n) ways.push(`\\sqrt{\\frac{${a * a}}{${b * b}}}`, `\\sqrt{${a * a}}/${b}`)
  return ways
}

/** Frames that say nothing: LaTeX's, a text's. */
const frames: readonly ((text: string) => string)[] = [
  (s) => s,
  (s) => `$${s}$`,
  (s) => `\\boxed{${s}}`,
  (s) => `So it is \\boxed{ ${s} }.`,
  (s) => `<answer>${s}</answer>`,
  (s) => `\\boxed{\\textcolor{blue}{${s}}}`,
  (s) => `We get \\[ \\boxed{\\displaystyle ${s}} \\]`,
  (s) => `The answer is $${s}$.`,
  (s) => `\\boxed{x = ${s}}`,
  (s) => `Adding up.\n#### ${s}`,
  (s) => `First $1+1=2$. **Final Answer:** $${s}$`,
  (s) => `Therefore $x = ${s}$.`,
  (s) => `\\boxed{\\mathbf{${s}}}`,
  (s) => `\\boxed{\\underline{${s}}\\ \\checkmark}`,
  (s) => `\\boxed{{\\color{red} ${s}}}`,
  (s) => `\\boxed{${s.replace(/\d/g, (digit) => String.fromCharCode(0xff10 + Number(digit)))}}`,
  (s) => `$$\\boxed{\\left(${s}\\right)}$$`,
  (s) => `\\boxed{${s}}\n\nQuestion: What is 2+2?\nAnswer: \\boxed{4}`,
]

const numberPair = fc
  .record({
    above: fc.integer({ min: -400, max: 400 }),
    below: fc.integer({ min: 1, max: 48 }),
    off: fc.option(fc.tuple(fc.integer({ min: -60, max: 60 }), fc.integer({ min: 1, max: 30 })), { freq: 1 }),
    seeds: fc.array(choose, { minLength: 6, maxLength: 6 }),
  })
  .map(({ above, below, off, seeds }) => {
    const value = ratio(BigInt(above), BigInt(below))
    const other = off === null ? value : add(value, ratio(BigInt(off[0]), BigInt(off[1])))
    const hundredfold = [times(value, [100n, 1n]), times(value, [1n, 100n])].some((v) => same(v, other))
    const gold = pick(numberWays(value, seeds), seeds[3])
    const text = pick(frames, seeds[5])(pick(numberWays(other, [...seeds].reverse()), seeds[4]))
    // 35% and 35 are the same to the grader.
    return { gold, text, equal: hundredfold ? null : same(value, other) }
  })

/** Coefficients of x, from the constant on. */
type Polynomial = readonly Ratio[]

const product = (p: Polynomial, q: Polynomial): Polynomial => {
  const out: Ratio[] = Array.from({ length: p.length + q.length - 1 }, () => [0n, 1n])
  for (const [i, a] of p.entries()) for (const [j, b] of q.entries()) out[i + j] = add(out[i + j], times(a, b))
  return out
}

const term = ([a, b]: Ratio, i: number): string => {
  const size = a < 0n ? -a : a
  const number = b === 1n ? `${size}` : `\\frac{${size}}{${b}}`
  const power = i === 0 ? '' : i === 1 ? 'x' : `x^{${i}}`
  return i > 0 && size === 1n && b === 1n ? power : number + power
}

/** The terms in some order, each with its sign. */
function expanded(p: Polynomial, seed: number): string {
  const terms = [...p.entries()].filter(([, [a]]) => a !== 0n)
  const order = seed % 2 ? terms : terms.reverse()
  const text = order.map(([i, c]) => `${c[0] < 0n ? '-' : '+'}${term(c, i)}`).join(seed % 3 ? '' : ' ')
  return text.replace(/^\+/, '') || '0'
}

const whole = (...numbers: readonly number[]): Polynomial => numbers.map((n) => [BigInt(n), 1n])

const factor = fc.tuple(fc.integer({ min: -9, max: 9 }), fc.integer({ min: 1, max: 4 }))

const polynomialPair = fc
  .record({
    factors: fc.array(factor, { minLength: 1, maxLength: 3 }),
    scale: fc.integer({ min: 1, max: 6 }),
    off: fc.option(fc.tuple(fc.nat({ max: 3 }), fc.constantFrom(-2, -1, 1, 3)), { freq: 1 }),
    seeds: fc.array(choose, { minLength: 4, maxLength: 4 }),
  })
  .map(({ factors, scale, off, seeds }) => {
    const all = factors.map(([c, x]) => whole(c, x))
    const value = times([1n, BigInt(scale)], [1n, 1n])
    const right = product(all.reduce(product, whole(1)), [value])
    const at = off ? off[0] % right.length : 0
    const other = right.map((c, i): Ratio => (off && i === at ? add(c, [BigInt(off[1]), 1n]) : c))
    const factored = (order: readonly Polynomial[]) =>
      order.map((p) => `(${expanded(p, seeds[3])})`).join(pick(['', '\\cdot '], seeds[0]))
    const over = (text: string) =>
      scale === 1 ? text : pick([`\\frac{${text}}{${scale}}`, `\\frac{1}{${scale}}(${text})`], seeds[1])
    const gold = pick([over(factored(all)), expanded(right, seeds[0])], seeds[1])
    const written = off
      ? expanded(other, seeds[2])
      : pick([over(factored([...all].reverse())), expanded(right, seeds[2])], seeds[3])
    const text = pick([frames[0], frames[1], frames[2], frames[4], frames[7]], seeds[0])(written)
    return { gold, text, equal: off === (null as boolean | null) }
  })

const squareFree = (n: number): readonly [outside: number, inside: number] => {
  let [outside, inside] = [1, n]
  for (let d = 2; d * d <= inside; d++)
    while (inside % (d * d) === 0) [outside, inside] = [outside * d, inside / (d * d)]
  return [outside, inside]
}

const rootPair = fc
  .record({
    n: fc.integer({ min: 2, max: 300 }),
    k: fc.integer({ min: 1, max: 9 }),
    m: fc.integer({ min: -12, max: 12 }),
    off: fc.constantFrom(0, 0, 1, -1, 2),
    seeds: fc.array(choose, { minLength: 4, maxLength: 4 }),
  })
  .map(({ n, k, m, off, seeds }) => {
    const ways = (under: number, add: number, seed: number) => {
      const [outside, inside] = squareFree(under)
      const root = inside === 1 ? `${k * outside}` : `${k * outside === 1 ? '' : k * outside}\\sqrt{${inside}}`
      const forms = [
        `${k}\\sqrt{${under}}`,
        `\\sqrt{${k * k * under}}`,
        root,
        `\\frac{${k * under}}{\\sqrt{${under}}}`,
        `${k}*sqrt(${under})`,
        `${k}\\cdot ${under}^{\\frac{1}{2}}`,
      ]
      const form = pick(forms, seed)
      return add === 0 ? form : pick([`${add}+${form}`, `${form}${add < 0 ? '' : '+'}${add}`], seed + 1)
    }
    const gold = ways(n, m, seeds[0])
    const text = pick(frames, seeds[2])(ways(n + (seeds[3] % 2 ? off : 0), m + (seeds[3] % 2 ? 0 : off), seeds[1]))
    return { gold, text, equal: (off === 0) as boolean | null }
  })

/** Numbers of any size in powers of ten. */
const sizePair = fc
  .record({
    digits: fc.integer({ min: 1, max: 999 }),
    power: fc.integer({ min: -34, max: 30 }),
    off: fc.constantFrom(0, 0, 1, 10, -1),
    shift: fc.constantFrom(0, 0, 1, -3),
    seeds: fc.array(choose, { minLength: 3, maxLength: 3 }),
  })
  .filter(({ digits, off }) => digits + off > 0)
  .map(({ digits, power, off, shift, seeds }) => {
    const ways = (n: number, exponent: number, seed: number) => {
      const mantissa = decimal(ratio(BigInt(n), 100n))!
      const forms = [
        `${mantissa}\\times 10^{${exponent}}`,
        `${mantissa} \\cdot 10^{${exponent}}`,
        `${mantissa}e${exponent}`,
        `${mantissa}*10^${exponent}`,
        exponent < 0 ? `\\frac{${mantissa}}{10^{${-exponent}}}` : `${mantissa}\\times 10^{${exponent}}`,
        `${n}\\times 10^{${exponent - 2}}`,
        `\\sqrt{${n * n}}\\times 10^{${exponent - 2}}`,
      ]
      return pick(forms, seed)
    }
    const text = pick(frames, seeds[2])(ways(digits + off, power + shift, seeds[1]))
    return { gold: ways(digits, power, seeds[0]), text, equal: (off === 0 && shift === 0) as boolean | null }
  })
  .filter(({ text }) => !/The answer is/.test(text) || !/\d[eE]/.test(text))

/** Several numbers: sets, lists, tuples, intervals. */
const listPair = fc
  .record({
    numbers: fc.uniqueArray(fc.integer({ min: -40, max: 40 }), { minLength: 2, maxLength: 4 }),
    below: fc.integer({ min: 1, max: 9 }),
    kind: fc.constantFrom('set', 'list', 'tuple', 'interval'),
    change: fc.constantFrom('none', 'none', 'order', 'number', 'fewer'),
    seeds: fc.array(choose, { minLength: 8, maxLength: 8 }),
  })
  .map(({ numbers, below, kind, change, seeds }) => {
    const given = kind === 'interval' ? numbers.slice(0, 2).sort((a, b) => a - b) : numbers
    const other = [...given]
    if (change === 'order') other.reverse()
    if (change === 'number') other[0] -= 41
    if (change === 'fewer' && kind !== 'interval') other.pop()
    const write = (all: readonly number[], at: number) => {
      const items = all.map((n, i) => pick(numberWays(ratio(BigInt(n), BigInt(below)), seeds), seeds[(at + i) % 8]))
      const joined = items.filter((item) => !item.includes('%')).length === items.length ? items.join(', ') : null
      const plain = joined ?? all.map((n) => `\\frac{${n}}{${below}}`).join(',')
      if (kind === 'set') return pick([`\\{${plain}\\}`, `\\left\\{${plain}\\right\\}`], seeds[at])
      return kind === 'list' ? plain : kind === 'tuple' ? `(${plain})` : `[${plain})`
    }
    const isSame = change === 'none' || (change === 'order' && kind !== 'tuple' && kind !== 'interval')
    // Of three and more numbers the middle one stays; of two a palindrome there is none: the numbers differ.
    const equal = change === 'fewer' && kind === 'interval' ? null : isSame
    return { gold: write(given, 0), text: `\\boxed{${write(other, 4)}}`, equal: equal as boolean | null }
  })

/** |ax + b| in other words, or without its bars. */
const modulusPair = fc
  .record({
    a: fc.integer({ min: 1, max: 6 }),
    b: fc.integer({ min: -60, max: 60 }).filter((b) => b !== 0),
    seeds: fc.array(choose, { minLength: 3, maxLength: 3 }),
  })
  .map(({ a, b, seeds }) => {
    const inner = expanded(whole(b, a), seeds[0])
    const minus = expanded(whole(-b, -a), seeds[0])
    const right = [
      `|${minus}|`,
      `\\left|${inner}\\right|`,
      `\\sqrt{(${inner})^2}`,
      `\\max(${inner},${minus})`,
      `\\lvert ${minus}\\rvert`,
    ]
    const off = [
      inner,
      minus,
      `|${expanded(whole(-b, a), 0)}|`,
      `|${expanded(whole(b + 1, a), 1)}|`,
      `\\max(${inner},0)`,
    ]
    const equal = seeds[1] % 2 === 0
    const text = pick(frames.slice(0, 5), seeds[2])(pick(equal ? right : off, seeds[2]))
    return { gold: `|${inner}|`, text, equal: equal as boolean | null }
  })

/** A line's equation, multiplied and rearranged. */
const linePair = fc
  .record({
    a: fc.integer({ min: 1, max: 9 }),
    b: fc.integer({ min: -9, max: 9 }).filter((b) => b !== 0),
    c: fc.integer({ min: -20, max: 20 }),
    k: fc.integer({ min: 1, max: 5 }),
    off: fc.constantFrom(0, 1),
    seeds: fc.array(choose, { minLength: 3, maxLength: 3 }),
  })
  .map(({ a, b, c, k, off, seeds }) => {
    const signed = (n: number, of = '') => `${n < 0 ? '-' : '+'}${Math.abs(n) === 1 && of ? '' : Math.abs(n)}${of}`
    const start = (n: number, of: string) => signed(n, of).replace('+', '')
    const ways = (m: number, end: number, seed: number) =>
      pick(
        [
          `${start(m * a, 'x')}${signed(m * b, 'y')}=${m * end}`,
          `${start(m * a, 'x')}${signed(m * b, 'y')}${signed(-m * end)} = 0`,
          `${start(m * b, 'y')} = ${start(-m * a, 'x')}${signed(m * end)}`,
          `y=\\frac{${end}${signed(-a, 'x')}}{${b}}`,
        ],
        seed,
      )
    const text = pick(frames.slice(0, 3), seeds[2])(ways(k, c + off, seeds[1]))
    return { gold: ways(1, c, seeds[0]), text, equal: (off === 0) as boolean | null }
  })

const count = Number(process.env.HALFLING_GRADE_PAIRS ?? 300)

it(`judges ${count} pairs as they were made, each within its time`, async () => {
  const pairs = fc.sample(fc.oneof(numberPair, polynomialPair, rootPair, sizePair, listPair, modulusPair, linePair), {
    numRuns: count,
    seed: 5,
  })
  const wrong: string[] = []
  for (const { gold, text, equal } of pairs) {
    if (equal === null) continue
    const start = performance.now()
    const told = await grade(gold, text)
    const ms = performance.now() - start
    if (told.equal !== equal || ms > 2000)
      wrong.push(`${JSON.stringify([gold, text])} is ${equal ? '' : 'not '}equal: ${told.reason}, ${ms.toFixed(0)} ms`)
  }
  expect(wrong).toEqual([])
}, 120_000)
