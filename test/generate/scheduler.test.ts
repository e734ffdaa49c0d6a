import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { NumericError, OptionError } from '../../sdk/errors.ts'
import { type Completion, joined } from '../../sdk/generate/answer.ts'
import { generateBatch } from '../../sdk/generate/batch.ts'
import { LanguageModel } from '../../sdk/generate/language-model.ts'
import { type GenerateOptions, requestsOf } from '../../sdk/generate/request.ts'
import { Scheduler } from '../../sdk/generate/scheduler.ts'
import { createAdapter } from '../../sdk/model/lora.ts'
import { fillNormal, nameCounter } from '../../sdk/random.ts'
import type { Executable } from '../../sdk/target.ts'
import { wasmTarget } from '../../targets/wasm/index.ts'
import { randomModel } from '../train/model.ts'

const letters = (n: number, offset = 0) => Array.from({ length: n }, (_, i) => 97 + ((i * 7 + offset) % 26))
const greedy: GenerateOptions = { temperature: 0, maxNewTokens: 20, logitBias: { 257: Number.NEGATIVE_INFINITY } }

/** Steps and rows of a run. */
interface Run {
  readonly steps: number
  readonly rows: number
}

/** A model whose target notes every run, in order. */
async function watched(threads: number, positions?: number): Promise<{ lm: LanguageModel; runs: Run[] }> {
  const target = await wasmTarget({ threads })
  const runs: Run[] = []
  const compile = target.compile.bind(target)
  target.compile = async (program, bound): Promise<Executable> => {
    const executable = await compile(program, bound)
    const run: Executable['run'] = (inputs, options) => {
      runs.push({ steps: options?.steps ?? 1, rows: (inputs.ids as Int32Array | undefined)?.length ?? 0 })
      return executable.run(inputs, options)
    }
    return { ...executable, run }
  }
  return { lm: await randomModel(target, 'f32', positions), runs }
}

const until = async (isSo: () => boolean): Promise<void> => {
  while (!isSo()) await new Promise((resolve) => setTimeout(resolve, 1))
}

describe('requests side by side, wasm', () => {
  let lm: LanguageModel
  let runs: Run[]
  beforeAll(async () => {
    ;({ lm, runs } = await watched(2))
  })
  afterAll(() => lm.close())
  beforeEach(() => {
    runs.length = 0
  })

  const ask = async (scheduler: Scheduler, prompt: readonly number[], options: GenerateOptions = greedy) =>
    LanguageModel.complete(scheduler.pieces(requestsOf(lm, [prompt], options, { isRead: true })[0]))
  const alone = async (prompt: readonly number[], options: GenerateOptions = greedy): Promise<Completion> => {
    const scheduler = new Scheduler(lm, 1)
    const answer = await ask(scheduler, prompt, options)
    scheduler.close()
    return answer
  }
  const withScheduler = async (most: number, work: (scheduler: Scheduler) => Promise<void>) => {
    const scheduler = new Scheduler(lm, most)
    try {
      await work(scheduler)
    } finally {
      scheduler.close()
    }
  }
  const sameAnswer = (got: Completion, want: Completion) => {
    expect(got).toMatchObject({ text: want.text, tokenIds: want.tokenIds, finishReason: want.finishReason })
    for (const [i, logProb] of got.logProbs.entries()) expect(logProb).toBeCloseTo(want.logProbs[i], 5)
  }

  it('each has its own sampling, stop, limit and likeliest tokens, in more requests than slots', async () => {
    const { text } = await alone(letters(20))
    const asked: [number[], GenerateOptions][] = [
      [letters(20), { ...greedy, stop: [text.slice(6, 8)] }],
      [letters(5, 3), { ...greedy, maxNewTokens: 3, topLogProbs: 4 }],
      [letters(40, 1), { ...greedy, temperature: 1, topK: 20, seed: 3 }],
      [letters(9, 2), { ...greedy, temperature: 1.2, repetitionPenalty: 1.3, frequencyPenalty: 0.3, seed: 8 }],
      [letters(70, 5), { ...greedy, logitBias: { 257: Number.NEGATIVE_INFINITY, 120: 9 } }],
      [letters(1), greedy],
    ]
    const want: Completion[] = []
    for (const [prompt, options] of asked) want.push(await alone(prompt, options))
    await withScheduler(3, async (scheduler) => {
      const got = await Promise.all(asked.map(([prompt, options]) => ask(scheduler, prompt, options)))
      for (const [i, answer] of got.entries()) sameAnswer(answer, want[i])
      expect(got[0].finishReason).toBe('stop')
      expect(got[1].top!.map(({ ids }) => ids.length)).toEqual([4, 4, 4])
      expect(got[1].top!.map(({ ids }) => ids[0])).toEqual(got[1].tokenIds)
      expect(got[2].top).toBe(undefined)
    })
  })

  it('each has its own adapter or none', async () => {
    const names = ['first', 'second']
    for (const [i, name] of names.entries()) {
      const made = await createAdapter(name, { r: 4 + 4 * i, targetModules: 'all-linear' }, lm.model, 7)
      for (const [path, m] of made.modules) fillNormal(m.b, 0.1, 5 + i, nameCounter(path))
      lm.model.adapters.set(name, made)
    }
    const want: Completion[] = []
    for (const active of [['first'], [], ['second']]) {
      await lm.setAdapters(active)
      want.push(await alone(letters(12)))
    }
    expect(want[0].text).not.toBe(want[1].text)
    await lm.setAdaptersByRow(names)
    await withScheduler(4, async (scheduler) => {
      const got = await Promise.all(
        ['first', undefined, 'second'].map((adapter) => ask(scheduler, letters(12), { ...greedy, adapter })),
      )
      for (const [i, answer] of got.entries()) sameAnswer(answer, want[i])
    })
    for await (const answer of generateBatch(lm, [letters(12)], { ...greedy, adapter: 'second' }))
      expect(answer.tokenIds).toEqual(want[2].tokenIds)
    await expect(ask(new Scheduler(lm, 1), [1], { ...greedy, adapter: 'third' })).rejects.toThrow(
      'adapter: "third" is not ready for single answers (setAdaptersByRow made ready: first, second)',
    )
    await lm.setAdapters([])
  })

  it('adapters change between two runs: what begins meanwhile has the new numbers only', async () => {
    // Of the same shapes: only the numbers differ.
    for (const [i, name] of ['first', 'second'].entries()) {
      const made = await createAdapter(name, { r: 4, targetModules: 'all-linear' }, lm.model, 7)
      for (const [path, m] of made.modules) fillNormal(m.b, 0.1, 5 + i, nameCounter(path))
      lm.model.adapters.set(name, made)
    }
    const ids = letters(40)
    const want: Completion[] = []
    for (const name of ['first', 'second']) {
      await lm.setAdapters([name])
      want.push(await LanguageModel.complete(lm.generate(ids, greedy)))
    }
    const switched = lm.setAdapters(['first'])
    sameAnswer(await LanguageModel.complete(lm.generate(ids, greedy)), want[0])
    await switched
    // In the midst of an answer: its mixed keys and values are nobody else's.
    const pieces = lm.generate([...ids, 1], greedy)
    const mixed = [...(await pieces.next()).value!.tokenIds]
    const back = lm.setAdapters(['second'])
    for await (const { tokenIds } of pieces) mixed.push(...tokenIds)
    await back
    await lm.setAdapters(['first'])
    const longer = [...ids, 1, ...mixed]
    sameAnswer(await LanguageModel.complete(lm.generate(longer, greedy)), await ask(new Scheduler(lm, 1), longer))
    await lm.setAdapters(['second'])
    sameAnswer(await LanguageModel.complete(lm.generate(ids, greedy)), want[1])
    // What is asked while a change is made sees what it makes.
    await Promise.all([lm.setAdapters([]), lm.removeAdapter('first')])
    expect([...lm.model.adapters.keys()]).toEqual(['second'])
    expect(lm.model.activeAdapters).toEqual([])
    await lm.setAdapters([])
  })

  it('a request that comes while others decode starts within two runs', async () => {
    await withScheduler(4, async (scheduler) => {
      const long = { ...greedy, maxNewTokens: 120 }
      const first = Promise.all([ask(scheduler, letters(20), long), ask(scheduler, letters(20, 1), long)])
      await until(() => runs.length >= 6)
      const before = runs.length
      const late = ask(scheduler, letters(30, 2))
      await until(() => runs.slice(before).some(({ rows }) => rows === 32))
      // One may have been in flight.
      expect(runs.slice(before).findIndex(({ rows }) => rows === 32)).toBeLessThanOrEqual(1)
      sameAnswer(await late, await alone(letters(30, 2)))
      const [a] = await first
      sameAnswer(a, await alone(letters(20), long))
    })
  })

  it('others go on between the chunks of a long prompt', async () => {
    const wide = await watched(1, 2048)
    const scheduler = new Scheduler(wide.lm, 2)
    const answer = (prompt: number[], maxNewTokens: number) =>
      LanguageModel.complete(
        scheduler.pieces(requestsOf(wide.lm, [prompt], { ...greedy, maxNewTokens }, { isRead: true })[0]),
      )
    const short = answer(letters(4), 200)
    await until(() => wide.runs.length >= 5)
    await answer(letters(1025, 1), 2)
    const chunks = wide.runs.flatMap(({ rows }, i) => (rows === 256 ? [i] : []))
    expect(chunks).toHaveLength(4)
    for (const [i, at] of chunks.entries()) if (i > 0) expect(at - chunks[i - 1]).toBeGreaterThanOrEqual(2)
    await short
    await wide.lm.close()
  })

  it('what leaves or is aborted frees its slot at the end of the run in flight; the others are not disturbed', async () => {
    const want = [await alone(letters(15, 4)), await alone(letters(10, 2))]
    await withScheduler(2, async (scheduler) => {
      const gone = new AbortController()
      const long = { ...greedy, maxNewTokens: 200 }
      const stays = ask(scheduler, letters(15, 4))
      const aborted = ask(scheduler, letters(8), { ...long, signal: gone.signal })
      const waits = ask(scheduler, letters(10, 2))
      const reason = new Error('the client left')
      setTimeout(() => gone.abort(reason), 5)
      await expect(aborted).rejects.toBe(reason)
      sameAnswer(await stays, want[0])
      sameAnswer(await waits, want[1])
      for await (const _ of scheduler.pieces(requestsOf(lm, [letters(8)], long, { isRead: true })[0])) break
      sameAnswer(await ask(scheduler, letters(10, 2)), want[1])
    })
  })

  it('one that fails fails alone', async () => {
    const want = await alone(letters(10))
    await withScheduler(2, async (scheduler) => {
      const broken = ask(scheduler, letters(9, 3), { ...greedy, logitBias: { 97: Number.NaN } })
      const good = ask(scheduler, letters(10))
      await expect(broken).rejects.toThrow(NumericError)
      sameAnswer(await good, want)
    })
  })

  it('shared prefixes are computed once, an earlier turn too', async () => {
    await withScheduler(4, async (scheduler) => {
      const system = letters(60)
      const before = lm.prefilledTokens
      const questions = [0, 1, 2].map((i) => [...system, ...letters(10, i + 3)])
      const answers = await Promise.all(questions.map((question) => ask(scheduler, question)))
      expect(lm.prefilledTokens - before).toBe(69 + 9 + 9)
      for (const [i, answer] of answers.entries()) sameAnswer(answer, await alone(questions[i]))
      const turn = [...questions[2], ...answers[2].tokenIds, ...letters(5)]
      const then = lm.prefilledTokens
      sameAnswer(await ask(scheduler, turn), await alone(turn))
      expect(lm.prefilledTokens - then - (turn.length - 1)).toBeLessThanOrEqual(5)
    })
  })

  it('what can never be answered is refused before it waits', async () => {
    await withScheduler(1, async (scheduler) => {
      const running = ask(scheduler, letters(10))
      await expect(ask(scheduler, letters(256))).rejects.toThrow('prompt: 256 tokens')
      await expect(ask(scheduler, [])).rejects.toThrow(OptionError)
      await expect(ask(scheduler, [1], { ...greedy, adapter: 'other' })).rejects.toThrow('made ready: none')
      await running
    })
    await expect(generateBatch(lm, [[1]], { tools: [] } as GenerateOptions).next()).rejects.toThrow('tools')
    await expect(generateBatch(lm, [[1]], { contextOverflow: 'dropOldest' } as GenerateOptions).next()).rejects.toThrow(
      'contextOverflow',
    )
  })

  it('a batch hands out the likeliest tokens', async () => {
    for await (const { tokenIds, top } of generateBatch(lm, [letters(9)], { ...greedy, topLogProbs: 2 })) {
      expect(top).toHaveLength(tokenIds.length)
      expect(top!.map(({ ids }) => ids[0])).toEqual(tokenIds)
    }
    expect(joined([{ text: 'a', tokenIds: [1], logProbs: [0], finishReason: 'stop' }]).top).toBe(undefined)
  })
})
