import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { findAnswer } from '../../sdk/answers/find-answer.ts'
import { grade } from '../../sdk/answers/grade.ts'
import { halflingJson } from '../cli/halfling.ts'
import { equal, unequal } from './grade-cases.ts'
import { fuzz } from './grade-fuzz.ts'

// Loads the worker.
beforeAll(async () => {
  await grade('x', 'x + 1')
}, 60_000)

const path = join(process.env.HALFLING_GOLDEN ?? '../shared/golden', 'tables', 'math_verify_flat.json')

describe('grade', () => {
  it.skipIf(!existsSync(path))(`agrees with the cases of math-verify (needs ${path})`, async () => {
    const cases: { gold: string; pred: string; expected: number }[] = JSON.parse(readFileSync(path, 'utf8'))
    const failing: string[] = []
    let slowest = 0
    for (const [i, { gold, pred, expected }] of cases.entries()) {
      // Of the processor, its worker's among it: other tests hold a wall clock up.
      const start = process.cpuUsage()
      const result = await grade(gold, pred)
      const { user, system } = process.cpuUsage(start)
      slowest = Math.max(slowest, (user + system) / 1000)
      const about = [gold, pred].map((text) => JSON.stringify(text.slice(-80))).join(' and ')
      if (Number(result.equal) !== expected) failing.push(`${i}: ${about} are not ${expected}: ${result.reason}`)
    }
    console.log(
      `${cases.length - failing.length} of ${cases.length}, slowest ${slowest.toFixed(1)} ms\n${failing.join('\n')}`,
    )
    expect(cases.length).toBe(125)
    expect(failing.length).toBeLessThanOrEqual(0.05 * cases.length)
    expect(slowest).toBeLessThan(100)
  })

  it.each(equal)('%s is %s', async (gold, text) => expect(await grade(gold, text)).toMatchObject({ equal: true }))

  it.each(unequal)('%s is not %s', async (gold, text) =>
    expect(await grade(gold, text)).toMatchObject({ equal: false }),
  )

  it('says what it found and why', async () => {
    expect(await grade('1/2', 'It is \\boxed{0.5}.')).toEqual({
      equal: true,
      extracted: '0.5',
      reason: 'equal in value',
    })
    expect(await grade('7', '7.0')).toEqual({ equal: true, extracted: '7.0', reason: 'equal numbers' })
    expect(await grade('7', '')).toEqual({ equal: false, extracted: null, reason: 'no answer in the text' })
    expect(await grade('', '7')).toMatchObject({ equal: false, reason: 'no answer in gold' })
  })

  it('answers many at once, each its own', async () => {
    const grades = await Promise.all(
      Array.from({ length: 200 }, (_, i) => grade(`\\frac{${i}}{7}`, `\\frac{${i % 3 === 0 ? i + 1 : i}}{7} \\cdot 1`)),
    )
    expect(grades.map(({ equal }) => equal)).toEqual(grades.map((_, i) => i % 3 !== 0))
  })

  it('takes no time that is none', async () => {
    await expect(grade('1', '2', { timeoutSeconds: 0 })).rejects.toMatchObject({ code: 'option' })
    await expect(grade('1', '2', { timeoutSeconds: NaN })).rejects.toMatchObject({ code: 'option' })
  })
})

describe('findAnswer', () => {
  it.each([
    ['<answer>1/2</answer> or \\boxed{3}', '1/2'],
    ['<answer>\\boxed{3}</answer>', '3'],
    ['\\boxed{\\frac{1}{2}} it is', '\\frac{1}{2}'],
    ['\\boxed{3} or \\boxed{4}', '3, 4'],
    ['\\boxed{3}. So we try again: \\boxed{4}', '4'],
    ['5 and\n#### 12', '12'],
    ['The answer is $\\frac{1}{2}$, because 3 > 2.', '\\frac{1}{2}'],
    ['Final Answer: she has 3 left. I hope it is correct.', '3'],
    ['We see $x = 4$ and then $y = 5$ follows.', 'y = 5'],
    ['First $100 and then $250 were paid', '$250'],
    ['from 3 to -8', '-8'],
    ['from 3 to 5-8', '8'],
    ['R2D2', 'R2D2'],
    ['', null],
  ])('%s: %s', (text, answer) => expect(findAnswer(text)).toBe(answer))
})

const times = (text: string, count: number) => text.repeat(count)
const hostile = [
  '10^{10^{10}}',
  '9999999!',
  '((9!)!)!',
  '2^{2^{2^{2^{2^{2}}}}}',
  `1${times('!', 1000)}`,
  '1e999999999',
  '1e99999999',
  '1.5\\times 10^{99999999}',
  '1.5\\cdot 10^{99 999 999}',
  '10^{9{,}999{,}999}',
  '10^{-999999999}',
  times('9', 1900),
  `\\frac{1}{${times('9', 900)}} + \\frac{1}{${times('7', 900)}}`,
  '\\binom{1000000000}{500000000}',
  '\\sum_{n=1}^{10^{10}} \\frac{1}{n}',
  '\\sum_{i=1}^{1000}\\sum_{j=1}^{1000}\\sum_{k=1}^{1000} \\sin(i j k)',
  '\\prod_{n=1}^{1000000000} n',
  '\\int_0^1 x^{x^{x}} dx',
  '(x+y+z)^{5000}-(x+y)^{3000}',
  times('(', 5000) + times(')', 5000),
  `$${times('(', 39)}1${times(')', 39)}$`,
  `\\boxed{${times('\\sqrt{', 39)}2${times('}', 39)}}`,
  times('x^{', 39) + times('}', 39),
  `x${times('^x', 900)}`,
  `{${times('1,', 900)}1}`,
  `${times('x=', 900)}1`,
  times('\\pm 1', 300),
  `${times('(1,2)\\cup', 190)}(1,2)`,
  `\\begin{pmatrix}${times('1&', 900)}1\\end{pmatrix}`,
  times('|', 1900),
  times('\\boxed{', 1e5),
  times('<answer>', 1e5),
  times('the answer is ', 1e5),
  times('$a', 1e5),
  times('\\', 1e6),
  times(' ', 1e6),
  times('1,', 1e6),
  times('1 000 ', 1e5),
  times('a', 5e6),
  '\u0000\uffff\ud800',
]

describe('hostile answers', () => {
  it('end within the time, and the next is graded', async () => {
    for (const text of hostile) {
      const start = performance.now()
      const result = await grade('\\sum_{k=1}^{3} k + z', text, { timeoutSeconds: 1 })
      expect(result.equal, text.slice(0, 80)).toBe(false)
      expect(performance.now() - start, text.slice(0, 80)).toBeLessThan(2500)
    }
    expect(await grade('1/2', '0.5')).toMatchObject({ equal: true })
  }, 60_000)

  it('are stopped when they take too long', async () => {
    const slow = '\\sum_{i=1}^{1000}\\sum_{j=1}^{1000}\\sum_{k=1}^{1000} \\sin(i j k)'
    const [stopped, next] = await Promise.all([
      grade('\\sin x', slow, { timeoutSeconds: 0.5 }),
      grade('\\frac{2}{4}', '0.5'),
    ])
    expect(stopped).toMatchObject({ equal: false, reason: 'not compared: it took more than 0.5 s' })
    expect(next).toMatchObject({ equal: true })
  }, 30_000)

  it('are compared as they are written when they are long', async () => {
    const long = `\\boxed{${times('x+', 2000)}1}`
    expect(await grade(long, long)).toMatchObject({ equal: true })
    expect(await grade(long, '5')).toMatchObject({ equal: false, reason: expect.stringContaining('longer than') })
  })
})

it('grades random texts without an error (all: test/answers/grade-fuzz.ts)', async () => {
  const { wrong, stopped } = await fuzz(6000, 7)
  expect(wrong).toEqual([])
  expect(stopped).toBe(0)
}, 120_000)

it('halfling grade --json', async () => {
  const right = await halflingJson(['grade', '--gold', '1/2', '--answer', 'So \\boxed{50\\%}'])
  expect(right.code).toBe(0)
  expect(right.value).toEqual({ equal: true, extracted: '50\\%', reason: 'equal in value' })
  const wrong = await halflingJson(['grade', '--gold=-5', '--answer', '5'])
  expect(wrong.code).toBe(0)
  expect(wrong.value).toEqual({ equal: false, extracted: '5', reason: 'different numbers' })
  expect((await halflingJson(['grade', '--gold', '1'])).code).toBe(2)
}, 60_000)
