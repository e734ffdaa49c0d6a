import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { makeProblem } from '../../examples/nano/problems.ts'
import { extractAnswer } from '../../sdk/answers/extract.ts'
import { writeTraces } from '../../sdk/eval/traces.ts'
import { type LanguageModel, loadModel, OptionError } from '../../sdk/index.ts'

let folder: string
let teacher: LanguageModel
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'halfling-traces-'))
  teacher = await loadModel('models/nano', { threads: 2 })
})
afterAll(async () => {
  await teacher.close()
  await rm(folder, { recursive: true, force: true })
})

const questions = Array.from({ length: 70 }, (_, i) => makeProblem(i % 2 ? 'changes' : 'backward', 11, i))
const options = { samples: 2, keep: 1, seed: 3, temperature: 0.8, maxNewTokens: 80 }

it('keeps right answers alone, and an interrupted run ends with the same bytes', async () => {
  const whole = join(folder, 'whole.jsonl')
  const kept = await writeTraces(teacher, questions, whole, options)
  const rows = (await readFile(whole, 'utf8'))
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  expect(rows.length).toBe(kept)
  // nano knows all changes, and a third of the backward problems.
  expect(kept).toBeGreaterThan(35)
  expect(kept).toBeLessThan(65)
  const answers = new Map(questions.map(({ question, answer }) => [question, answer]))
  for (const { messages } of rows) expect(extractAnswer(messages[1].content)).toBe(answers.get(messages[0].content))

  const stopped = join(folder, 'stopped.jsonl')
  const stop = new AbortController()
  const onProgress = ({ questions }: { questions: number }) => questions >= 32 && stop.abort(new Error('enough'))
  const { signal } = stop
  await expect(writeTraces(teacher, questions, stopped, { ...options, onProgress, signal })).rejects.toThrow('enough')
  await expect(readFile(stopped)).rejects.toThrow('ENOENT')
  await expect(writeTraces(teacher, questions, stopped, { ...options, seed: 4 })).rejects.toThrow(OptionError)
  await expect(writeTraces(teacher, questions, stopped, { ...options, seed: 4 })).rejects.toThrow(
    /another seed \(3, now 4\)/,
  )
  await writeTraces(teacher, questions, stopped, options)
  expect(await readFile(stopped, 'utf8')).toBe(await readFile(whole, 'utf8'))
})

it('the shortest right answer comes first, and isRight decides', async () => {
  const one = [{ question: 'What is 17 + 25?', answer: '42' }]
  const output = join(folder, 'short.jsonl')
  const texts: string[] = []
  const isRight = (_: unknown, text: string) => texts.push(text) > 0
  await writeTraces(teacher, one, output, { ...options, samples: 6, keep: 6, temperature: 1.5, isRight })
  const rows = (await readFile(output, 'utf8'))
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line).messages[1].content)
  expect(rows.length).toBe(new Set(texts).size)
  const lengths = rows.map((text) => teacher.tokenizer.encode(text).length)
  expect(lengths).toEqual(lengths.toSorted((a, b) => a - b))
})
