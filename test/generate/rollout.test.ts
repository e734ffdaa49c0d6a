import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { LanguageModel } from '../../sdk/generate/language-model.ts'
import { rollout } from '../../sdk/generate/rollout.ts'
import { scoreExamples } from '../../sdk/generate/score.ts'
import { exampleOf } from '../../sdk/train/policy.ts'
import { wasmTarget } from '../../targets/wasm/index.ts'
import { randomModel } from '../train/model.ts'

let lm: LanguageModel
beforeAll(async () => {
  lm = await randomModel(await wasmTarget({ threads: 2 }))
})
afterAll(() => lm.close())

const promptsOf = (model: LanguageModel, texts: string[]) => texts.map((text) => model.tokenizer.encode(text))
const texts = ['abc', 'a longer prompt than that', 'x', 'yet another one']

it('a group computes its prompt once: counted, and the same completions as with slots of their own', async () => {
  const prompts = promptsOf(lm, texts)
  const before = lm.prefilledTokens
  const all = await rollout(lm, prompts, { numGenerations: 6, maxCompletionLength: 10, seed: 3 })
  // The last token of a prompt is fed with the first step of each of its completions.
  expect(lm.prefilledTokens - before).toBe(prompts.reduce((n, ids) => n + ids.length - 1, 0))
  expect(all.map(({ prompt, sample }) => [prompt, sample])).toEqual(
    texts.flatMap((_, prompt) => [0, 1, 2, 3, 4, 5].map((sample) => [prompt, sample])),
  )
  const few = lm.prefilledTokens
  const narrow = await rollout(lm, prompts, { numGenerations: 6, maxCompletionLength: 10, seed: 3, slots: 3 })
  expect(lm.prefilledTokens - few).toBe(prompts.reduce((n, ids) => n + ids.length - 1, 0))
  for (const [i, { tokenIds }] of narrow.entries()) expect(tokenIds).toEqual(all[i].tokenIds)
  for (const { tokenIds, truncated } of all) expect(truncated).toBe(tokenIds.at(-1) !== 257)
  expect(all.some(({ truncated }) => truncated)).toBe(true)
})

it('the same seed gives the same bits on any number of threads; another seed others', async () => {
  const single = await randomModel(await wasmTarget({ threads: 1 }))
  const options = { numGenerations: 4, maxCompletionLength: 12, temperature: 0.8, seed: 5 }
  const [two, one] = [
    await rollout(lm, promptsOf(lm, texts), options),
    await rollout(single, promptsOf(single, texts), options),
  ]
  expect(one).toEqual(two)
  const other = await rollout(lm, promptsOf(lm, texts), { ...options, seed: 6 })
  expect(other.map(({ tokenIds }) => tokenIds)).not.toEqual(two.map(({ tokenIds }) => tokenIds))
  await single.close()
})

describe.each(['f32', 'f16'] as const)('%s weights', (dtype) => {
  it("the training pass gives the sampler's log-probabilities within 1e-4", async () => {
    const model = await randomModel(await wasmTarget({ threads: 2 }), dtype)
    for (const temperature of [1, 0.7]) {
      const all = await rollout(model, promptsOf(model, texts), {
        ...{ numGenerations: 4, maxCompletionLength: 40, temperature, seed: 1 },
      })
      const examples = all.map(({ promptIds, tokenIds }, row) => exampleOf({ promptIds, completionIds: tokenIds }, row))
      const scored = await scoreExamples(model.model, examples, { temperature })
      let compared = 0
      for (const [i, { logProbs }] of all.entries())
        for (const [t, logProb] of logProbs.entries()) {
          expect(Math.abs(scored[i][t] - logProb)).toBeLessThan(1e-4)
          compared++
        }
      expect(compared).toBeGreaterThan(100)
    }
    await model.close()
  })
})

it('10,000 draws follow the whole distribution (chi-square)', async () => {
  const [ids] = promptsOf(lm, ['abc'])
  const draws = 10_000
  const all = await rollout(lm, [ids], { numGenerations: draws, maxCompletionLength: 1, seed: 11, slots: 256 })
  const { vocabSize } = lm.model.config
  const each = Array.from({ length: vocabSize }, (_, id) => exampleOf({ promptIds: ids, completionIds: [id] }, id))
  const logProbs = (await scoreExamples(lm.model, each)).map(([value]) => value)
  expect(logProbs.reduce((sum, value) => sum + Math.exp(value), 0)).toBeCloseTo(1, 5)
  const counts = new Array(vocabSize).fill(0)
  for (const { tokenIds } of all) counts[tokenIds[0]]++
  // Rare tokens together.
  let [chi, cells, rare, rareCount] = [0, 0, 0, 0]
  for (let id = 0; id < vocabSize; id++) {
    const expected = draws * Math.exp(logProbs[id])
    if (expected < 10) {
      rare += expected
      rareCount += counts[id]
      continue
    }
    chi += (counts[id] - expected) ** 2 / expected
    cells++
  }
  if (rare > 0) {
    chi += (rareCount - rare) ** 2 / rare
    cells++
  }
  const freedom = cells - 1
  // Wilson and Hilferty: a normal deviate, 3.1 has a probability of 0.001.
  const deviate = ((chi / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / Math.sqrt(2 / (9 * freedom))
  expect(freedom).toBeGreaterThan(50)
  expect(Math.abs(deviate)).toBeLessThan(3.1)
})

it('refuses prompts without room, and goes on after an abort', async () => {
  const long = new Array(256).fill(97)
  await expect(rollout(lm, [long], { seed: 0 })).rejects.toThrow(/256 tokens, the model's context takes 1 to 255/)
  await expect(rollout(lm, [[]], { seed: 0 })).rejects.toThrow('prompt 0: it has no tokens')
  const stop = new AbortController()
  const drawn = rollout(lm, promptsOf(lm, texts), {
    ...{ numGenerations: 8, maxCompletionLength: 200, seed: 0, signal: stop.signal },
    onProgress: () => stop.abort(new Error('enough')),
  })
  await expect(drawn).rejects.toThrow('enough')
  const [again] = await rollout(lm, promptsOf(lm, ['abc']), { numGenerations: 2, maxCompletionLength: 5, seed: 0 })
  expect(again.tokenIds.length).toBeGreaterThan(0)
})
