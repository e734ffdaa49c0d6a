import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { HalflingError } from '../../sdk/errors.ts'
import type { Piece } from '../../sdk/generate/answer.ts'
import { generateBatch } from '../../sdk/generate/batch.ts'
import { LanguageModel } from '../../sdk/generate/language-model.ts'
import { scoreExamples } from '../../sdk/generate/score.ts'
import { headWeight, packedHidden } from '../../sdk/model/decoder.ts'
import { linear } from '../../sdk/ops/index.ts'
import { wasmTarget } from '../../targets/wasm/index.ts'
import { randomModel } from '../train/model.ts'

const open = async (threads = 1) => randomModel(await wasmTarget({ threads }))
const greedy = { temperature: 0, maxNewTokens: 12, logitBias: { 257: Number.NEGATIVE_INFINITY } }
const letters = (n: number, offset = 0) => Array.from({ length: n }, (_, i) => 97 + ((i * 7 + offset) % 26))
const complete = (lm: LanguageModel, prompt: string | number[], options = {}) =>
  LanguageModel.complete(lm.generate(prompt, { ...greedy, ...options }))

/** Logits of the token after `ids`, from a forward pass without a cache. */
async function logitsAfter(lm: LanguageModel, ids: number[]): Promise<Float32Array> {
  const n = ids.length
  const executable = await lm.model.compile('logits', (g) => {
    const i32 = (name: string) => g.input(name, { dtype: 'i32', shape: [n] })
    const c = lm.model.context()
    g.output('logits', linear(g, packedHidden(g, c, i32('ids'), i32('positions'), i32('starts')), headWeight(g, c)))
  })
  const positions = Int32Array.from(ids.keys())
  const out = await executable.run({ ids: Int32Array.from(ids), positions, starts: new Int32Array(n) })
  executable.free()
  const logits = out.logits as Float32Array
  return logits.slice((n - 1) * lm.model.config.vocabSize)
}

const softmax = (z: number[]): number[] => {
  const top = Math.max(...z)
  const e = z.map((x) => Math.exp(x - top))
  const total = e.reduce((a, b) => a + b, 0)
  return e.map((x) => x / total)
}

describe('generation, wasm', () => {
  let lm: LanguageModel
  beforeAll(async () => {
    lm = await open()
  })
  afterAll(() => lm.close())

  it('a second turn computes only what is new, and answers as a fresh model does', async () => {
    const first = await complete(lm, letters(60))
    const before = lm.prefilledTokens
    const turn = [...letters(60), ...first.tokenIds, ...letters(10, 3)]
    const second = await complete(lm, turn)
    expect(lm.prefilledTokens - before).toBeLessThanOrEqual(11) // the last answer token was never fed
    const fresh = await open()
    expect((await complete(fresh, turn)).tokenIds).toEqual(second.tokenIds)
    await fresh.close()
  })

  it('prompts longer than a chunk, and a cache that grows while answering, keep the numbers', async () => {
    const long = await randomModel(await wasmTarget({ threads: 2 }), 'f32', 1024)
    const prompt = letters(500)
    const { tokenIds, logProbs } = await complete(long, prompt, { maxNewTokens: 24 }) // 256 -> 512 -> 1024 positions
    for (const i of [0, 10, 13, 23]) {
      const logits = [...(await logitsAfter(long, [...prompt, ...tokenIds.slice(0, i)]))]
      logits[257] = -1e30
      expect(tokenIds[i]).toBe(logits.indexOf(Math.max(...logits)))
      expect(logProbs[i]).toBeCloseTo(Math.log(softmax(logits)[tokenIds[i]]), 4)
    }
    await long.close()
  })

  it('greedy tokens and log-probabilities agree with a pass without a cache', async () => {
    const prompt = letters(30)
    const { tokenIds, logProbs } = await complete(lm, prompt, { maxNewTokens: 5 })
    for (const [i, id] of tokenIds.entries()) {
      const logits = [...(await logitsAfter(lm, [...prompt, ...tokenIds.slice(0, i)]))]
      logits[257] = -1e30
      expect(id).toBe(logits.indexOf(Math.max(...logits)))
      expect(logProbs[i]).toBeCloseTo(Math.log(softmax(logits)[id]), 4)
    }
  })

  it('samples from the distribution that temperature, top-k and penalties leave (chi-square)', async () => {
    const prompt = letters(12)
    const logits = [...(await logitsAfter(lm, prompt))]
    for (const id of prompt) logits[id] = logits[id] > 0 ? logits[id] / 1.3 : logits[id] * 1.3
    logits[257] = -1e30
    const scaled = logits.map((z) => z / 0.8)
    const kept = [...scaled.keys()].sort((a, b) => scaled[b] - scaled[a]).slice(0, 8)
    const p = softmax(kept.map((id) => scaled[id]))
    const full = softmax(scaled)
    const draws = 1500
    const counts = new Map<number, number>()
    for (let seed = 0; seed < draws; seed++) {
      const options = { temperature: 0.8, topK: 8, repetitionPenalty: 1.3, seed, maxNewTokens: 1 }
      const { tokenIds, logProbs } = await complete(lm, prompt, options)
      counts.set(tokenIds[0], (counts.get(tokenIds[0]) ?? 0) + 1)
      if (seed < 20) expect(logProbs[0]).toBeCloseTo(Math.log(full[tokenIds[0]]), 4)
    }
    expect([...counts.keys()].every((id) => kept.includes(id))).toBe(true)
    const chi = kept.reduce((sum, id, i) => sum + ((counts.get(id) ?? 0) - draws * p[i]) ** 2 / (draws * p[i]), 0)
    expect(chi).toBeLessThan(24.3) // 7 degrees of freedom, p = 0.001
  })

  it('the same seed gives the same answer on any number of threads, another seed another; without one answers vary', async () => {
    const options = { temperature: 1, seed: 5, maxNewTokens: 20 }
    const one = await complete(lm, letters(20), options)
    const two = await open(2)
    expect(await complete(two, letters(20), options)).toEqual(one)
    await two.close()
    expect((await complete(lm, letters(20), { ...options, seed: 6 })).tokenIds).not.toEqual(one.tokenIds)
    const free = await Promise.all([1, 2].map(() => complete(lm, letters(20), { ...options, seed: undefined })))
    expect(free[0].tokenIds).not.toEqual(free[1].tokenIds)
  })

  it('batched rows equal single ones, with more prompts than slots', async () => {
    const prompts = [5, 40, 17, 3, 64, 9, 21].map((n, i) => letters(n, i))
    const alone = []
    for (const prompt of prompts) alone.push((await complete(lm, prompt)).tokenIds)
    for (const slots of [1, 3, 16]) {
      const found: number[][] = []
      for await (const c of generateBatch(lm, prompts, { ...greedy, slots })) found[c.index] = c.tokenIds
      expect(found).toEqual(alone)
    }
  })

  it('stop strings end an answer and are no part of it; pieces join to the decoded text', async () => {
    const { text, tokenIds } = await complete(lm, letters(20), { maxNewTokens: 30 })
    const stop = text.slice(6, 9)
    const cut = await complete(lm, letters(20), { maxNewTokens: 30, stop: [stop] })
    expect(cut.text).toBe(text.slice(0, text.indexOf(stop)))
    expect(cut.finishReason).toBe('stop')
    expect(text).toBe(lm.tokenizer.decode(tokenIds, { skipSpecialTokens: true }))
    let batched = ''
    for await (const c of generateBatch(lm, [letters(20)], { ...greedy, maxNewTokens: 30, stop: [stop] }))
      batched = c.text
    expect(batched).toBe(cut.text)
  })

  it('control tokens stop as well, alone or with text around them', async () => {
    const start = { ...greedy, logitBias: { 256: 100 } }
    const stopped = await complete(lm, letters(20), { ...start, stop: ['never', '<|im_start|>'] })
    expect(stopped).toMatchObject({ text: '', tokenIds: [256], finishReason: 'stop' })
    const twice = await complete(lm, letters(20), { ...start, stop: ['<|im_start|><|im_start|>'] })
    expect(twice).toMatchObject({ text: '', tokenIds: [256, 256], finishReason: 'stop' })
    const other = await complete(lm, letters(20), { ...start, stop: ['<|im_start|>a'] })
    expect(other).toMatchObject({ text: '', finishReason: 'length' })
  })

  it('generations that are begun within another one, or at once, take turns', async () => {
    const alone = [await complete(lm, letters(12)), await complete(lm, letters(9, 4))]
    const inner: unknown[] = []
    let text = ''
    for await (const piece of lm.generate(letters(12), greedy)) {
      text += piece.text
      if (inner.length < 3) inner.push(await complete(lm, letters(9, 4)))
    }
    expect(text).toBe(alone[0].text)
    for (const answer of inner) expect(answer).toMatchObject({ tokenIds: alone[1].tokenIds })
    const both = await Promise.all([complete(lm, letters(12)), complete(lm, letters(9, 4))])
    expect(both.map(({ tokenIds }) => tokenIds)).toEqual(alone.map(({ tokenIds }) => tokenIds))
  })

  it('messages are checked before the template sees them; parts of text are joined', () => {
    const parts = [
      { type: 'text', text: 'a' },
      { type: 'text', text: 'b' },
    ]
    expect(lm.chatPrompt([{ role: 'user', content: parts }])).toEqual(lm.chatPrompt([{ role: 'user', content: 'ab' }]))
    expect(() => lm.chatPrompt([])).toThrow('messages: the list is empty')
    expect(() => lm.chatPrompt([{ role: 'user', content: [{ type: 'input_audio' }] }])).toThrow('"input_audio"')
    expect(() => lm.chatPrompt([{ role: 'user', content: null }])).toThrow('message 0: it has no content (null)')
  })

  it('errors before computing when a prompt does not fit; dropOldest forgets turns but not the system message', async () => {
    await expect(complete(lm, letters(256))).rejects.toMatchObject({ code: 'context' })
    const filler = (n: number) => ({ role: 'user', content: 'x'.repeat(n) })
    const messages = [
      { role: 'system', content: 'Be kind.' },
      filler(150),
      filler(60),
      { role: 'user', content: 'Last?' },
    ]
    const options = { ...greedy, contextOverflow: 'dropOldest' as const }
    const text = lm.tokenizer.decode(lm.chatPrompt(messages, options))
    expect(text).toContain('Be kind.')
    expect(text).toContain('Last?')
    expect(text).not.toContain('x'.repeat(150))
    const pieces: Piece[] = []
    for await (const piece of lm.chat(messages, options)) pieces.push(piece)
    expect(pieces.at(-1)!.finishReason).toBe('length')
    const full = await complete(lm, letters(250), { maxNewTokens: 100 })
    expect([full.tokenIds.length, full.finishReason]).toEqual([6, 'length'])
  })

  it("without a limit an answer goes on to the context's end, in a batch for 256 tokens", async () => {
    const { logitBias } = greedy
    const options = { temperature: 0, logitBias }
    const alone = await LanguageModel.complete(lm.generate(letters(20), options))
    expect([alone.tokenIds.length, alone.finishReason]).toEqual([236, 'length'])
    const { tokenIds } = await LanguageModel.complete(lm.chat([{ role: 'user', content: 'abc' }], options))
    expect(tokenIds.length).toBe(256 - lm.chatPrompt([{ role: 'user', content: 'abc' }]).length)
    const wide = await randomModel(await wasmTarget({ threads: 1 }), 'f32', 1024)
    for await (const answer of generateBatch(wide, [letters(20)], options)) expect(answer.tokenIds.length).toBe(256)
    await wide.close()
  })

  it('an answer that was cut goes on from its tokens, within a character too, and forgets old turns for it', async () => {
    const messages = [{ role: 'user', content: 'abc' }]
    const options = { ...greedy, maxNewTokens: 40 }
    const whole = await LanguageModel.complete(lm.chat(messages, options))
    for (const cut of [1, 7, 8, 39]) {
      const answerPrefix = whole.tokenIds.slice(0, cut)
      const before = lm.prefilledTokens
      const rest = await LanguageModel.complete(lm.chat(messages, { ...options, maxNewTokens: 40 - cut, answerPrefix }))
      expect(rest.tokenIds).toEqual(whole.tokenIds.slice(cut))
      expect(lm.prefilledTokens - before).toBeLessThanOrEqual(1)
    }
    // "é" is two tokens of this vocabulary.
    const [first, second] = lm.tokenizer.encode('é')
    const bias = { 257: Number.NEGATIVE_INFINITY, [second]: 1e4 }
    const half = { temperature: 0, maxNewTokens: 1, logitBias: bias, answerPrefix: [97, first] }
    expect((await LanguageModel.complete(lm.chat(messages, half))).text).toBe('é')
    const turns = [{ role: 'user', content: 'x'.repeat(100) }, { role: 'assistant', content: 'y' }, ...messages]
    const said = letters(150)
    await expect(LanguageModel.complete(lm.chat(turns, { ...options, answerPrefix: said }))).rejects.toThrow(
      'context takes',
    )
    const dropped = { ...options, contextOverflow: 'dropOldest', answerPrefix: said } as const
    expect(lm.chatPrompt(turns, dropped)).toEqual([...lm.chatPrompt(messages), ...said])
    await expect(LanguageModel.complete(lm.chat(messages, { answerPrefix: [999] }))).rejects.toThrow(
      'answerPrefix: token 0 is 999',
    )
  })

  it('an abort rejects with its reason, and the model goes on with right numbers', async () => {
    const want = await complete(lm, letters(50, 9))
    const reason = new Error('enough')
    await expect(complete(lm, letters(9), { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
    const controller = new AbortController()
    const run = async () => {
      for await (const _ of lm.generate(letters(50, 9), { ...greedy, maxNewTokens: 150, signal: controller.signal }))
        controller.abort(reason)
    }
    await expect(run()).rejects.toBe(reason)
    expect(await complete(lm, letters(50, 9))).toEqual(want)
  })

  it('leaving the loop early gives the model back; concurrent answers are those of each alone', async () => {
    for await (const _ of lm.generate(letters(8), greedy)) break
    const want = [await complete(lm, letters(8)), await complete(lm, letters(15))]
    const got = await Promise.all([complete(lm, letters(8)), complete(lm, letters(15))])
    expect(got.map(({ tokenIds }) => tokenIds)).toEqual(want.map(({ tokenIds }) => tokenIds))
  })

  it('refuses token ids that the vocabulary does not have, naming them', async () => {
    await expect(complete(lm, [1, 258])).rejects.toThrow('prompt: token 1 is 258, the vocabulary has ids 0 to 257')
    await expect(complete(lm, [])).rejects.toThrow(HalflingError)
    await expect(complete(lm, [1], { logitBias: { 999: 1 } })).rejects.toThrow('logitBias')
    await expect(scoreExamples(lm.model, [{ inputIds: [1, -1], labels: [-100, 1], row: 4 }])).rejects.toThrow('row 4')
    await expect(generateBatch(lm, [[1.5]], greedy).next()).rejects.toThrow('prompt 0: token 0 is 1.5')
  })

  it('close() during an answer ends it with a typed error; closing again and using it later are no crashes', async () => {
    const other = await open()
    const pieces = other.generate(letters(40), { maxNewTokens: 200 })
    expect((await pieces.next()).done).toBe(false)
    await other.close()
    await expect(LanguageModel.complete(pieces)).rejects.toBeInstanceOf(HalflingError)
    await other.close()
    await expect(complete(other, letters(3))).rejects.toBeInstanceOf(HalflingError)
  })
})
