import { describe, expect, it } from 'vitest'
import { generateBatch } from '../../sdk/generate/batch.ts'
import { KeyValueCache } from '../../sdk/generate/cache.ts'
import { LanguageModel } from '../../sdk/generate/language-model.ts'
import { resolveSampling, type SamplingOptions } from '../../sdk/generate/sampling.ts'
import { decode, feed, type Sampled, type Sequence } from '../../sdk/generate/steps.ts'
import { candidates } from '../suite.ts'
import { randomModel } from '../train/model.ts'

const samplings: Record<string, SamplingOptions> = {
  greedy: { temperature: 0 },
  'temperature, top-k, top-p, min-p': { temperature: 0.8, topK: 60, topP: 0.95, minP: 0.01, seed: 4 },
  'penalties and edits': {
    temperature: 1.1,
    repetitionPenalty: 1.3,
    frequencyPenalty: 0.2,
    presencePenalty: 0.4,
    logitBias: { 5: 3, 17: Number.NEGATIVE_INFINITY, 100: -2 },
    seed: 9,
  },
}

for (const candidate of await candidates())
  describe.skipIf(candidate.skip)(
    `runs of several steps, ${candidate.label}${candidate.skip ? ` (${candidate.skip})` : ''}`,
    () => {
      it.each(Object.entries(samplings))('64 tokens by 16 are 64 by one, to the bit: %s', async (_, options) => {
        const { model, tokenizer, close } = await opened()
        const draw = async (steps: number) => {
          const cache = new KeyValueCache(model, 1)
          const s = sequenceOf(tokenizer.encode('Hello there'), options, 0)
          const all: Sampled[] = []
          await feed(model, cache, 0, s, s.promptIds.slice(0, -1))
          while (all.length < 64) {
            const [drawn] = await decode(model, cache, [s], { steps })
            all.push(...drawn)
            s.drawn.push(...drawn.map(({ id }) => id))
          }
          cache.free()
          return all
        }
        const one = await draw(1)
        expect(await draw(16)).toEqual(one)
        expect(new Set(one.map(({ id }) => id)).size).toBeGreaterThan(1)
        await close()
      })

      it('an answer ends at its stop, whatever is drawn after it in the same run', async () => {
        const lm = await randomModel(await candidate.open())
        const prompt = lm.tokenizer.encode('Hello there')
        const sampling = { ...samplings['penalties and edits'], logitBias: { 257: Number.NEGATIVE_INFINITY } }
        const cache = new KeyValueCache(lm.model, 1)
        const s = sequenceOf(prompt, sampling, 0)
        await feed(lm.model, cache, 0, s, prompt.slice(0, -1))
        while (s.drawn.length < 64) s.drawn.push((await decode(lm.model, cache, [s]))[0][0].id)
        cache.free()
        const text = lm.tokenizer.decode(s.drawn)
        // A character of one byte that comes for the first time somewhere in the middle.
        const at = [...text].findIndex((c, i) => i > 15 && /[!-~]/.test(c) && text.indexOf(c) === i)
        const options = { ...sampling, seed: sampling.seed ?? 1, maxNewTokens: 64, stop: [text[at]] }
        const got = await LanguageModel.complete(lm.generate(prompt, options))
        expect(got).toMatchObject({ text: text.slice(0, at), finishReason: 'stop' })
        expect(got.tokenIds).toEqual(s.drawn.slice(0, got.tokenIds.length))
        for await (const { index: _, ...batched } of generateBatch(lm, [prompt], options))
          expect(batched).toMatchObject({ text: got.text, tokenIds: got.tokenIds, finishReason: 'stop' })
        await lm.close()
      })

      it('rows that may have fewer tokens are padding from then on, and leave the others alone', async () => {
        const { model, tokenizer, close } = await opened()
        const prompts = ['abc', 'another', 'xyz'].map((text) => tokenizer.encode(text))
        const run = async (steps: number, lengths: number[]) => {
          const cache = new KeyValueCache(model, 4)
          const sequences = prompts.map((ids, i) => sequenceOf(ids.slice(0, 1), samplings['penalties and edits'], i))
          const room = (s: Sequence) => lengths[sequences.indexOf(s)] - s.drawn.length
          for (let at = 0; at < 12; at += steps) {
            const drawn = await decode(model, cache, sequences, { steps, room: (s) => Math.max(0, room(s)) })
            for (const [i, tokens] of drawn.entries()) sequences[i].drawn.push(...tokens.map(({ id }) => id))
          }
          cache.free()
          return sequences.map((s) => s.drawn)
        }
        const all = await run(4, [12, 12, 12])
        const some = await run(4, [12, 3, 7])
        expect(some.map(({ length }) => length)).toEqual([12, 3, 7])
        expect(some).toEqual(all.map((drawn, i) => drawn.slice(0, [12, 3, 7][i])))
        await close()
      })

      async function opened() {
        const lm = await randomModel(await candidate.open())
        return { model: lm.model, tokenizer: lm.tokenizer, close: () => lm.close() }
      }
    },
  )

const sequenceOf = (promptIds: readonly number[], options: SamplingOptions, sample: number): Sequence => ({
  ...{ sampling: resolveSampling({ seed: 1, ...options }, {}), stream: [0, sample], promptIds },
  ...{ drawn: [], cached: 0, counted: -1 },
})
