/** Random answers against random answers: npx tsx test/answers/grade-fuzz.ts --count 100000 [--seed 1] */
import { pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import { grade } from '../../sdk/answers/grade.ts'

const pieces =
  '\\frac \\frac{1}{2} \\frac12 \\sqrt \\sqrt{ \\boxed{ \\boxed <answer> </answer> #### { } ( ) [ ] \\{ \\} \\( \\) \\[ \\] $ $$ | ^ _ & \\\\ \\ + - * / = < > \\le \\ge != \\ne \\in \\cup \\pm \\pi \\infty \\text{ \\text{and} \\begin{pmatrix} \\end{pmatrix} \\sin \\log_2 \\sum_{k=1}^{ \\int \\binom \\gcd \\overline{3} 0.\\overline{ \\circ ^\\circ % \\% , ; : . ! ~ x y n f(x) a_1 i e 0 1 2 7 10 12 1,000 0.5 3.14159 1e9 10^ 10^{10} ! cm apples and or is the answer final The_answer_is therefore π ∞ ² − ½ “ é 😀 \u0000 \ud800 \n \t sqrt( pi inf'.split(
    ' ',
  )

function generator(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) % below
  }
}

type Random = ReturnType<typeof generator>

const repeat = (count: number, text: (i: number) => string): string =>
  Array.from({ length: count }, (_, i) => text(i)).join('')

/** A number, a well-formed expression, pieces of LaTeX in disorder, or any characters. */
function answer(random: Random): string {
  const kind = random(20)
  if (kind < 11) return number(random)
  if (kind < 14) return expression(random, 3)
  if (kind < 18)
    return repeat(
      1 + random(14),
      () => pieces[random(pieces.length)].replaceAll('_', random(2) ? ' ' : '_') + (random(3) ? '' : ' '),
    )
  return repeat(random(40), () => String.fromCharCode(random(8) ? 32 + random(96) : random(0x10000)))
}

function number(random: Random): string {
  const signs = ['', '', '-', '+', '$', '€ ', '-$', '\\$']
  const ends = ['', '', '.', '%', '\\%', ' cm', ' dollars', '$', '.00', ',5']
  return (
    signs[random(signs.length)] +
    random(10 ** (1 + random(6))).toLocaleString(random(2) ? 'en-US' : 'fr-FR') +
    ends[random(ends.length)]
  )
}

function expression(random: Random, depth: number): string {
  if (depth === 0 || random(4) === 0) return ['x', 'y', '2', '3', '\\pi', '0.5', '10', 'a_1'][random(8)]
  const [a, b] = [expression(random, depth - 1), expression(random, depth - 1)]
  return [
    `${a}+${b}`,
    `${a}-${b}`,
    `${a} ${b}`,
    `\\frac{${a}}{${b}}`,
    `(${a})^{${b}}`,
    `\\sqrt{${a}}`,
    `(${a}, ${b})`,
    `[${a}, ${b})`,
    `\\{${a}, ${b}\\}`,
    `${a} = ${b}`,
    `${a} \\le ${b}`,
    `\\sin ${a}`,
    `(${a})!`,
    `\\begin{pmatrix} ${a} & ${b} \\end{pmatrix}`,
    `${a} \\cup ${b}`,
    `\\log_{${a}} ${b}`,
  ][random(16)]
}

const frames = [
  (s: string) => s,
  (s: string) => `\\boxed{${s}}`,
  (s: string) => `$${s}$`,
  (s: string) => `The answer is ${s}.`,
]

export interface FuzzReport {
  readonly count: number
  readonly equal: number
  /** Decided by the worker. */
  readonly worker: number
  readonly stopped: number
  readonly slowestMs: number
  readonly slowest: string
  /** What was not as it must be. */
  readonly wrong: readonly string[]
}

/** Grades `count` random pairs. Every text must agree with itself, when there is an answer in it. */
export async function fuzz(count: number, seed: number): Promise<FuzzReport> {
  const random = generator(seed)
  let [equal, worker, stopped, slowestMs, slowest] = [0, 0, 0, 0, '']
  const wrong: string[] = []
  await grade('x', 'x + 1')
  for (let i = 0; i < count; i++) {
    const gold = frames[random(4)](answer(random))
    const same = random(10) === 0
    const text = same ? gold : frames[random(4)](answer(random))
    const start = performance.now()
    try {
      const result = await grade(gold, text)
      if (result.equal) equal++
      if (!/numbers|as written$|no answer/.test(result.reason)) worker++
      if (/not compared/.test(result.reason)) stopped++
      if (same && result.equal !== (result.extracted !== null)) wrong.push(`${JSON.stringify(gold)}: ${result.reason}`)
    } catch (error) {
      wrong.push(`${JSON.stringify([gold, text])}: ${error}`)
    }
    const ms = performance.now() - start
    if (ms > slowestMs) [slowestMs, slowest] = [ms, JSON.stringify([gold, text])]
  }
  return { count, equal, worker, stopped, slowestMs, slowest, wrong }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const { values } = parseArgs({ options: { count: { type: 'string' }, seed: { type: 'string' } } })
  const start = performance.now()
  const report = await fuzz(Number(values.count ?? 100_000), Number(values.seed ?? 1))
  console.log({ ...report, seconds: (performance.now() - start) / 1000 })
}
