import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { HalflingError, NumericError } from '../../sdk/errors.ts'
import { generateBatch } from '../../sdk/generate/batch.ts'
import { LanguageModel, loadAdapter, loadModel, SFTTrainer } from '../../sdk/index.ts'

// The public functions as somebody without types gets them wrong: what comes is a typed error that says how it is right.

// biome-ignore lint/suspicious/noExplicitAny: wrong on purpose
type Any = any
let lm: LanguageModel
const folder = mkdtempSync(join(tmpdir(), 'halfling-misuse-'))
let runs = 0
beforeAll(async () => {
  lm = await loadModel('nano', { threads: 1 })
})
afterAll(async () => {
  await lm.close()
  rmSync(folder, { recursive: true, force: true })
})

const question = [{ role: 'user', content: 'Mia has 14 apples and gives 5 to Tom. How many apples does Mia have now?' }]
const answer = async () => (await LanguageModel.complete(lm.chat(question))).text
const chat = (options: Any, messages: Any = question) => LanguageModel.complete(lm.chat(messages, options))
const batch = async (prompts: Any, options: Any = {}) => {
  for await (const completion of generateBatch(lm, prompts, options)) return completion
}
const sft = async (options: Any, args: Any = {}) => {
  const trainer = new SFTTrainer({
    model: lm,
    trainDataset: [{ question: 'What is 2 + 2?', answer: '4' }],
    peft: { r: 4 },
    args: { outputDir: join(folder, `run-${runs++}`), maxSteps: 3, ...args },
    ...options,
  })
  const logs = []
  for await (const log of trainer.train()) logs.push(log)
  return logs
}

it.each<[string, () => unknown]>([
  ['transformers.js names', () => chat({ max_new_tokens: 3 })],
  ['a near name', () => chat({ maxTokens: 3 })],
  ['no options', () => chat(null)],
  ['text for a number', () => chat({ temperature: '0.7' })],
  ['half a token', () => chat({ topK: 1.5 })],
  ['half a seed', () => chat({ seed: 1.5 })],
  ['one stop string', () => chat({ stop: '\n' })],
  ['no signal', () => chat({ signal: {} })],
  ['tools as text', () => chat({ tools: 'x' })],
  ['an overflow of our own', () => chat({ contextOverflow: 'drop' })],
  ['text for messages', () => chat({}, 'hello')],
  ['no message', () => chat({}, [null])],
  ['no role', () => chat({}, [{ content: 'x' }])],
  ['a number said', () => chat({}, [{ role: 'user', content: 42 }])],
  ['an object for a prompt', () => LanguageModel.complete(lm.generate({ prompt: 'x' } as Any))],
  ['a batch of texts', () => batch(['hi'])],
  ['a batch that is text', () => batch('hi')],
  ['no slots', () => batch([[1]], { slots: 0 })],
  ['options for a name', () => loadModel({ dtype: 'q4' } as Any)],
  ['a dtype of our own', () => loadModel('nano', { dtype: 'q5' as Any })],
  ['a misspelt option', () => loadModel('nano', { dytpe: 'q4' } as Any)],
  ['no rows', () => sft({ trainDataset: undefined })],
  ['an object for rows', () => sft({ trainDataset: { question: 'x' } })],
  ['no args', () => sft({ args: undefined })],
  ['no model', () => sft({ model: undefined })],
  ["a model's name", () => sft({ model: 'nano' })],
  ["the dataset's name", () => sft({ dataset: [] })],
  ["TRL's names", () => sft({}, { learning_rate: 1 })],
  ['text for a rate', () => sft({}, { learningRate: '1e-4' })],
  ['a schedule of our own', () => sft({}, { lrSchedulerType: 'cos' })],
  ["PEFT's names", () => sft({ peft: { r: 4, lora_alpha: 4 } })],
  ['peft: true', () => sft({ peft: true })],
])('%s', async (_, wrong) => {
  const error = await (async () => wrong())().then(
    () => null,
    (error: Error) => error,
  )
  expect(error).toBeInstanceOf(HalflingError)
  expect(error!.message).toMatchSnapshot()
})

it('a run that diverges leaves the model as it was, and so does one that is cut off', async () => {
  const before = await answer()
  await expect(sft({}, { learningRate: 1e30 })).rejects.toThrow(NumericError)
  expect(lm.model.activeAdapters).toEqual([])
  expect(await answer()).toBe(before)

  await sft({}, { learningRate: 1e-3 })
  const own = { learningRate: 1e30 }
  const trained = await answer()
  await expect(sft({ peft: undefined }, own)).rejects.toThrow(NumericError)
  expect(lm.model.activeAdapters).toEqual(['default'])
  expect(await answer()).toBe(trained)
  await lm.setAdapters([])

  const stop = new AbortController()
  const trainer = new SFTTrainer({
    model: lm,
    trainDataset: [{ question: 'What is 2 + 2?', answer: '4' }],
    peft: { r: 4 },
    args: { outputDir: join(folder, 'stopped'), maxSteps: 9 },
  })
  const all = async () => {
    for await (const _ of trainer.train({ signal: stop.signal })) stop.abort(new Error('enough'))
  }
  await expect(all()).rejects.toThrow('enough')
  expect(lm.model.activeAdapters).toEqual([])
  expect(await answer()).toBe(before)
})

it('a closed model says so', async () => {
  const closed = await loadModel('nano', { threads: 1 })
  await closed.close()
  await closed.close()
  for (const use of [
    () => LanguageModel.complete(closed.chat(question)),
    () => closed.saveMerged(join(folder, 'merged')),
    () => sft({ model: closed }),
    () => loadAdapter(closed, join(folder, 'run-0')),
    async () => {
      for await (const completion of generateBatch(closed, [[1, 2]])) return completion
    },
  ]) {
    const error = await use().then(
      () => null,
      (error: Error) => error,
    )
    expect(error).toBeInstanceOf(HalflingError)
    expect(error!.message).toMatch(/closed|no such/)
  }
})
