import { existsSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { grade } from '../../sdk/answers/grade.ts'
import type { Question } from '../../sdk/eval/prompts.ts'
import { readTask, type TaskName, taskNames, tasks } from '../../sdk/eval/tasks.ts'
import { parseDatasetName } from '../../sdk/hub/names.ts'

let folder = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'halfling-tasks-'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

async function read(name: TaskName, data: string): Promise<Question[]> {
  const all: Question[] = []
  for await (const question of readTask(name, data)) all.push(question)
  return all
}

async function rows(name: string, ...values: object[]): Promise<string> {
  const path = join(folder, name)
  await writeFile(path, values.map((row) => `${JSON.stringify(row)}\n`).join(''))
  return path
}

describe('readTask', () => {
  it('joins columns, writes numbers as people do, takes the list of answers', async () => {
    const svamp = await rows('svamp.jsonl', { Body: 'There are 3 cats ', Question: 'How many legs?', Answer: 12.0 })
    expect(await read('svamp', svamp)).toEqual([{ question: 'There are 3 cats. How many legs?', answer: '12' }])
    const olympiad = await rows('o.jsonl', { context: null, question: 'Solve.', final_answer: ['2', '$-3$'] })
    expect(await read('olympiadbench', olympiad)).toEqual([{ question: 'Solve.', answer: '2, $-3$' }])
  })

  it('takes units off, and leaves out rows with several answers', async () => {
    const asdiv = await rows(
      'asdiv.jsonl',
      { body: 'Two pots.', question: 'How many?', answer: '9 (apples)' },
      { body: 'A pen.', question: 'And?', answer: '3 (cm); 4 (cm)' },
    )
    expect(await read('asdiv', asdiv)).toEqual([{ question: 'Two pots. How many?', answer: '9' }])
  })

  it('reads the columns of the hub and those of common copies', async () => {
    const copy = await rows('minerva_math.jsonl', { problem: 'a?', solution: 'So \\boxed{4}.' })
    const hub = await rows('m.jsonl', { question: 'a?', answer: '4' })
    expect(await read('minerva', copy)).toEqual([{ question: 'a?', answer: 'So \\boxed{4}.' }])
    expect(await read('minerva', hub)).toEqual([{ question: 'a?', answer: '4' }])
  })

  it('finds its file in a folder, and says what it looked for', async () => {
    expect(await read('minerva', folder)).toHaveLength(1)
    await expect(read('aime24', folder)).rejects.toThrow(
      /has no rows of aime24: looked for aime24\.jsonl, .*test\.jsonl/,
    )
  })

  it('names the row that is no question', async () => {
    const bad = await rows('bad.jsonl', { question: 'a?', answer: '4' }, { question: 'b?', gold: '5' })
    await expect(read('gsm8k', bad)).rejects.toThrow(
      `${bad}:2: no answer or solution to read; its columns are question, gold`,
    )
  })

  it('has datasets of the hub', () => {
    for (const name of taskNames)
      expect(parseDatasetName(tasks[name].dataset)?.split).toMatch(/^(test|train|validation)$/)
  })
})

const data = '../shared/data'

describe.skipIf(!existsSync(join(data, 'math_eval')))('the real test sets', () => {
  const sizes = { math500: 500, minerva: 272, olympiadbench: 675, amc23: 40, aime24: 30, svamp: 1000, asdiv: 2215 }
  for (const [name, size] of Object.entries(sizes))
    it(`${name} has ${size} questions whose answers are right answers`, async () => {
      const questions = await read(name as TaskName, join(data, 'math_eval'))
      expect(questions).toHaveLength(size)
      const some = questions.filter((_, i) => i % Math.ceil(size / 25) === 0)
      for (const { answer } of some) expect(await grade(answer, `\\boxed{${answer}}`)).toMatchObject({ equal: true })
    })

  it('gsm8k has 1319', async () => {
    expect(await read('gsm8k', join(data, 'gsm8k'))).toHaveLength(1319)
  })
})
