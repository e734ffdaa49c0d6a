import { appendFileSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { compareRuns } from '../../sdk/eval/compare.ts'
import { type EvalOptions, evaluate } from '../../sdk/eval/evaluate.ts'
import { encodeQuestion, type Question, templates } from '../../sdk/eval/prompts.ts'
import { resultsOf } from '../../sdk/eval/results.ts'
import type { AnsweredItem, EvalSettings } from '../../sdk/eval/run-folder.ts'
import type { LanguageModel } from '../../sdk/generate/language-model.ts'
import { loadModel } from '../../sdk/load.ts'

let lm: LanguageModel
const folder = mkdtempSync(join(tmpdir(), 'halfling-eval-'))
beforeAll(async () => {
  lm = await loadModel('nano', { device: 'wasm', threads: 1 })
})
afterAll(async () => {
  await lm.close()
  rmSync(folder, { recursive: true, force: true })
})

const questions: Question[] = Array.from({ length: 12 }, (_, i) => ({
  question: `Mia has ${10 + i} apples and gives ${i} to Tom. How many apples does Mia have now?`,
  answer: `10 + ${i} - ${i} = 10\n#### ${i % 3 === 0 ? 11 : 10}`,
}))
const subject = { task: null, model: 'nano', adapters: [], dtype: 'auto' }
const greedy: EvalOptions = { subject, maxNewTokens: 48 }
const drawn: EvalOptions = { ...greedy, numSamples: 3, temperature: 1, seed: 5 }
const run = (options: EvalOptions, rows = questions) => evaluate(lm, rows, options)
const files = (output: string) =>
  ['run.json', 'items.jsonl', 'results.json', 'report.md'].map((name) => readFileSync(join(output, name), 'utf8'))

describe('evaluate', () => {
  it('counts right answers, with an error; the same number twice, whatever the slots', async () => {
    const results = await run(greedy)
    expect(results).toMatchObject({ n: 12, correct: 8, truncated: 0, notExtractable: 0 })
    expect(results.accuracy).toBeCloseTo(2 / 3, 12)
    expect(results.standardError).toBeCloseTo(Math.sqrt(2 / 9 / 12), 12)
    expect(await run({ ...greedy, slots: 3 })).toEqual(results)
    expect(await run({ ...greedy, grader: 'exact' })).toMatchObject({ correct: 8 })
  })

  it('draws several answers: pass@1, maj@n and pass@k, the same with other slots', async () => {
    const results = await run(drawn)
    expect(Object.keys(results.passAt!)).toEqual(['1', '2', '3'])
    expect(results.passAt![1].mean).toBeCloseTo(results.accuracy, 12)
    expect(results.passAt![3].mean).toBeGreaterThanOrEqual(results.accuracy)
    expect(await run({ ...drawn, slots: 5 })).toEqual(results)
    expect(await run({ ...drawn, seed: 6 })).not.toEqual(results)
  })

  it('says how much was cut off', async () => {
    expect(await run({ ...greedy, maxNewTokens: 2 })).toMatchObject({ truncated: 1, correct: 0, meanTokens: 2 })
  })

  for (const [kind, options] of [['greedy', greedy] as const, ['drawn', drawn] as const])
    it(`goes on after an interruption and ends with the same bytes (${kind})`, async () => {
      const whole = join(folder, `whole-${kind}`)
      await run({ ...options, output: whole })
      const cut = join(folder, `cut-${kind}`)
      const controller = new AbortController()
      const onProgress = ({ done }: { done: number }) => done === 5 && controller.abort(new Error('stopped'))
      await expect(run({ ...options, output: cut, slots: 4, signal: controller.signal, onProgress })).rejects.toThrow(
        'stopped',
      )
      const items = join(cut, 'items.jsonl')
      const cutAt = readFileSync(items, 'utf8').split('\n').length - 1
      expect(cutAt).toBeLessThan(12)
      // As kill -9 may leave it.
      appendFileSync(items, '{"index": 11, "sam')
      const before: number[] = []
      await run({ ...options, output: cut, onProgress: (progress) => before.push(progress.before) })
      expect(before[0]).toBe(cutAt)
      expect(files(cut)).toEqual(files(whole))
      // A third time there is nothing to do, and the last line alone may be missing.
      truncateSync(items, readFileSync(items).lastIndexOf(10) - 20)
      await run({ ...options, output: cut })
      expect(files(cut)).toEqual(files(whole))
    })

  it('refuses a folder of another run, naming the first difference', async () => {
    const output = join(folder, 'whole-greedy')
    const refused = (options: Partial<EvalOptions>, rows = questions) =>
      expect(run({ ...greedy, output, ...options }, rows)).rejects
    await refused({ grader: 'exact', temperature: 0.5 }).toThrow(
      /another grader \("math", now "exact"\): give the same/,
    )
    await refused({ maxNewTokens: 9 }).toThrow(/another maxNewTokens \(48, now 9\)/)
    await refused({}, questions.slice(1)).toThrow(/another rows \(12, now 11\)/)
    await refused({}, [...questions].reverse()).toThrow(/another rowsHash/)
  })

  it('refuses other weights under the same name', async () => {
    const output = join(folder, 'weights')
    await run({ ...greedy, output }, questions.slice(0, 2))
    const path = join(output, 'run.json')
    const { settings, probe } = JSON.parse(readFileSync(path, 'utf8'))
    writeFileSync(path, JSON.stringify({ settings, probe: probe * 1.01 }))
    await expect(run({ ...greedy, output }, questions.slice(0, 2))).rejects.toThrow(/other weights/)
  })

  it('names the line of a broken file', async () => {
    const output = join(folder, 'broken')
    await run({ ...greedy, output }, questions.slice(0, 2))
    const items = join(output, 'items.jsonl')
    const [first, second] = readFileSync(items, 'utf8').split('\n')
    writeFileSync(items, `${first.slice(0, 30)}\n${second}\n`)
    await expect(run({ ...greedy, output }, questions.slice(0, 2))).rejects.toThrow(
      /items\.jsonl:1: is not what halfling/,
    )
    writeFileSync(items, `${second}\n${second}\n`)
    await expect(run({ ...greedy, output }, questions.slice(0, 2))).rejects.toThrow(
      /items\.jsonl:2: answers row 1 a second/,
    )
  })

  it('refuses what cannot be', async () => {
    await expect(run({ ...greedy, numSamples: 4 })).rejects.toThrow(/greedy answers are all the same/)
    await expect(run({ ...greedy, template: 'ligheval' })).rejects.toThrow(/"ligheval" is not one of chat, lighteval/)
    const long = { question: 'apple '.repeat(3000), answer: '1' }
    await expect(run(greedy, [...questions, long])).rejects.toThrow(/row 12: its question has \d+ tokens/)
  })
})

describe('encodeQuestion', () => {
  it('puts the question where the template says, dollars and braces and all', () => {
    const ids = encodeQuestion(lm, 'Is $& {x}?', 'Q: {question} A:')
    expect(ids).toEqual(lm.chatPrompt([{ role: 'user', content: 'Q: Is $& {x}? A:' }]))
    expect(templates.lighteval).toContain("'Therefore, the final answer is: $\\boxed{ANSWER}$. I hope it is correct'")
  })

  it('without a chat template is the text itself, or a question', () => {
    const bare = { chatTemplate: null, encodePrompt: (text: string) => [...text] } as unknown as LanguageModel
    const text = (template: string) => encodeQuestion(bare, 'Why?', template).join('')
    expect(text('chat')).toBe('Question: Why?\nAnswer:')
    expect(text('lighteval')).toMatch(/^Solve the following .*\n\nWhy\?$/s)
    expect(() => encodeQuestion(bare, 'Why?', 'chat', 'Be brief.')).toThrow(/no chat template/)
  })
})

describe('resultsOf', () => {
  it('votes: the most frequent answer, the first of equals, none for what was not found', () => {
    const item = (index: number, sample: number, answer: string | null, correct: boolean) =>
      ({ index, sample, answer, correct, tokens: 1, finishReason: 'stop' }) as AnsweredItem
    const results = resultsOf({ rows: 3, numSamples: 4 } as EvalSettings, [
      // 5.0 and 5 are one answer.
      ...[item(0, 0, '7', false), item(0, 1, '5.0', true), item(0, 2, '5', true), item(0, 3, null, false)],
      ...[item(1, 3, '2', true), item(1, 1, '1', false), item(1, 0, '1', false), item(1, 2, '2', true)],
      ...[0, 1, 2, 3].map((sample) => item(2, sample, null, false)),
    ])
    expect(results.majority!.mean).toBeCloseTo(1 / 3, 12)
    expect(results).toMatchObject({ correct: 4, accuracy: 1 / 3, notExtractable: 5 / 12 })
    expect(results.passAt![4].mean).toBeCloseTo(2 / 3, 12)
  })
})

describe('compareRuns', () => {
  it('pairs the rows', async () => {
    const [a, b] = [join(folder, 'whole-greedy'), join(folder, 'b')]
    await run({ ...greedy, output: b, template: 'Say nothing but 11. {question}' })
    const comparison = await compareRuns(a, b)
    const right = (output: string): boolean[] =>
      readFileSync(join(output, 'items.jsonl'), 'utf8')
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line).correct)
    const [before, after] = [right(a), right(b)]
    expect(comparison.better).toEqual(before.flatMap((was, i) => (!was && after[i] ? [i] : [])))
    expect(comparison.worse).toEqual(before.flatMap((was, i) => (was && !after[i] ? [i] : [])))
    expect(comparison.difference.mean).toBeCloseTo(comparison.b.mean - comparison.a.mean, 12)
    expect(comparison.settings).toEqual(['template'])
    const same = await compareRuns(a, a)
    expect(same).toMatchObject({ difference: { mean: 0, standardError: 0 }, better: [], worse: [], pValue: 1 })
  })

  it('refuses other questions, and a run that has not ended', async () => {
    const a = join(folder, 'whole-greedy')
    const others = questions.map((q, i) => (i === 7 ? { ...q, question: 'Why?' } : q))
    await run({ ...greedy, output: join(folder, 'others') }, others)
    await expect(compareRuns(a, join(folder, 'others'))).rejects.toThrow(/the question of row 7 is another one/)
    await expect(compareRuns(a, join(folder, 'weights'))).rejects.toThrow(/rows is 2, and in .* 12/)
    await expect(compareRuns(a, folder)).rejects.toThrow(/holds no evaluation/)
    writeFileSync(join(folder, 'others/items.jsonl'), '')
    await expect(compareRuns(a, join(folder, 'others'))).rejects.toThrow(/has 0 of 12 answers: run the same/)
  })
})
