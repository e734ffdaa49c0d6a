import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { extractAnswer, goldAnswer, normalizeAnswer, sameAnswer } from '../../sdk/answers/extract.ts'
import { golden, has } from '../text/golden.ts'

describe('extractAnswer', () => {
  it.each([
    ['<think>1</think>\n<answer> 70 </answer>', '70'],
    ['<answer>1</answer> no, <answer>2</answer>', '2'],
    ['<answer>1 <answer>2</answer> x', '2'],
    ['<answer>never closed, but \\boxed{3}', '3'],
    ['<answer>\\boxed{\\frac{1}{2}}</answer>', '\\frac{1}{2}'],
    ['so \\boxed{1} or \\boxed{x^{2} + \\{1\\}}.', 'x^{2} + \\{1\\}'],
    ['\\boxed{4} and \\boxed{unbalanced', '4'],
    ['16 - 7 = 9\n#### 1,234', '1234'],
    ['#### $5.00.\n', '5'],
    ['33 + 18 = 51. The answer is 70.', '70'],
    ['The answer is 1. No. The answer is $3.50. Done.', '3.5'],
    ['the answer is: -7', '-7'],
    ['The answer is 5. <answer>6</answer>', '6'],
    ['The answer is 5.\n#### 6', '6'],
    ['<answer></answer> The answer is 8.', '8'],
    ['no idea', null],
    ['', null],
  ])('%s', (text, answer) => expect(extractAnswer(text)).toBe(answer))
})

describe('goldAnswer', () => {
  it('is what the rules find, else the whole', () => {
    expect(goldAnswer('She has 3 + 4 = 7.\n#### 7')).toBe('7')
    expect(goldAnswer(' seven ')).toBe('seven')
  })
})

describe('sameAnswer', () => {
  it.each([
    ['1,000', '1000'],
    ['1000', '1000.0'],
    ['$1,000.50', '1000.5'],
    ['-$5', '-5'],
    ['+5', ' 5. '],
    ['.5', '0.50'],
    ['007', '7'],
    ['-0', '0'],
    ['x + 1', ' x + 1.'],
  ])('%s = %s', (a, b) => expect(sameAnswer(a, b)).toBe(true))

  it.each([
    ['1000', '100'],
    ['5', '-5'],
    ['1,00', '100'],
    ['9007199254740993', '9007199254740992'],
    ['0.1', '0.10000001'],
    ['x', 'y'],
    ['', '0'],
  ])('%s is not %s', (a, b) => expect(sameAnswer(a, b)).toBe(false))

  it('normalizes what it has normalized to the same', () => {
    for (const text of ['$ 1,234.50 .', '-$3', 'x,', '.', '1.', '$$5$$'])
      expect(normalizeAnswer(normalizeAnswer(text))).toBe(normalizeAnswer(text))
  })
})

const data = join(golden, '..', 'data', 'gsm8k', 'test.jsonl')
it.skipIf(!has(data))('reads every gold answer of GSM8K as a number (needs shared/data)', () => {
  const answers = readFileSync(data, 'utf8')
    .trim()
    .split('\n')
    .map((line) => extractAnswer(JSON.parse(line).answer))
  expect(answers.filter((a) => a === null || !/^-?\d+(\.\d+)?$/.test(a))).toEqual([])
  expect(answers[0]).toBe('18')
})

it('stops where the next question begins', () => {
  expect(extractAnswer('#### 8\n\nQuestion: and 2?\n#### 2')).toBe('8')
  expect(extractAnswer('The answer is 8.\nQ: and 2?\nA: The answer is 2.')).toBe('8')
  expect(extractAnswer('Problem: 3 pens\n<answer>8</answer>')).toBe('8')
})
