import { describe, expect, it } from 'vitest'
import { OptionError } from '../../sdk/errors.ts'
import { KeyValueCache } from '../../sdk/generate/cache.ts'
import { resolveSampling } from '../../sdk/generate/sampling.ts'
import { decode, feed, type Sequence } from '../../sdk/generate/steps.ts'
import { cachedHidden, headWeight } from '../../sdk/model/decoder.ts'
import { createAdapter } from '../../sdk/model/lora.ts'
import type { Model } from '../../sdk/model/model.ts'
import { linear } from '../../sdk/ops/index.ts'
import { fillNormal, nameCounter } from '../../sdk/random.ts'
import { relativeError } from '../../sdk/self-test.ts'
import { candidates } from '../suite.ts'
import { randomModel } from '../train/model.ts'

const names = ['first', 'second', 'third']
/** Of rows 0 to 4. */
const chosen = [2, 0, -1, 1, 2]

/** Adapters of different ranks and targets whose updates are not zero. */
async function addAdapters(model: Model): Promise<void> {
  for (const [i, name] of names.entries()) {
    const peft = { r: 4 + 6 * i, loraAlpha: 16, targetModules: i === 1 ? ['q_proj', 'down_proj'] : 'all-linear' }
    const made = await createAdapter(name, peft, model, 7)
    for (const [path, m] of made.modules) fillNormal(m.b, 0.1, 5 + i, nameCounter(path))
    model.adapters.set(name, made)
  }
}

/** Logits of a token a row at position 0: [R, V]. */
async function logits(model: Model, tokens: readonly number[], adapterOf?: readonly number[]): Promise<Float32Array[]> {
  const [rows, { numKeyValueHeads, headDim }] = [tokens.length, model.config]
  const executable = await model.compile('logits', (g) => {
    const i32 = (name: string) => g.input(name, { dtype: 'i32', shape: [rows] })
    const c = { ...model.context(), ...(adapterOf && { adapterOf: i32('adapterOf') }) }
    const cache = { dtype: 'f32', shape: [rows, numKeyValueHeads, 16, headDim] } as const
    g.output('y', linear(g, cachedHidden(g, c, i32('ids'), i32('positions'), cache), headWeight(g, c)))
  })
  const given = { ids: Int32Array.from(tokens), positions: new Int32Array(rows) }
  const { y } = await executable.run({ ...given, ...(adapterOf && { adapterOf: Int32Array.from(adapterOf) }) })
  executable.free()
  for (let layer = 0; layer < model.config.numHiddenLayers; layer++)
    for (const part of ['k', 'v']) model.release(`cache/${part}/${layer}`)
  const width = y.length / rows
  return tokens.map((_, r) => (y as Float32Array).slice(r * width, (r + 1) * width))
}

for (const candidate of await candidates())
  describe.skipIf(candidate.skip)(
    `adapters by row, ${candidate.label}${candidate.skip ? ` (${candidate.skip})` : ''}`,
    () => {
      it.each(['f32', 'q8'] as const)('each row gets what it gets alone: %s weights', async (dtype) => {
        const lm = await randomModel(await candidate.open(), dtype)
        const { model } = lm
        await addAdapters(model)
        const tokens = [10, 33, 10, 200, 97]
        await model.setAdaptersByRow(names)
        expect([model.activeAdapters, model.adaptersByRow]).toEqual([[], names])
        const together = await logits(model, tokens, chosen)
        const twice = await logits(model, tokens.slice(0, 2), chosen.slice(0, 2))
        const base = await logits(model, tokens)
        for (const [r, which] of chosen.entries()) {
          await model.setAdapters(which < 0 ? [] : [names[which]])
          const [alone] = await logits(model, [tokens[r]])
          expect(relativeError(together[r], alone)).toBeLessThan(1e-6)
          if (twice[r]) expect(relativeError(twice[r], alone)).toBeLessThan(1e-6)
          if (which < 0) expect(relativeError(base[r], alone)).toBeLessThan(1e-6)
          else expect(relativeError(base[r], alone)).toBeGreaterThan(1e-3)
        }
        await lm.close()
      })

      it('sequences of a batch keep theirs, from the prompt on', async () => {
        const lm = await randomModel(await candidate.open())
        const { model, tokenizer } = lm
        await addAdapters(model)
        const sequence = (adapter?: string): Sequence => ({
          ...{ sampling: resolveSampling({ temperature: 0 }, {}), stream: [0, 0], promptIds: tokenizer.encode('abcd') },
          ...{ drawn: [], cached: 0, counted: -1, adapter },
        })
        const answer = async (adapter?: string) => {
          const cache = new KeyValueCache(model, 1)
          const s = sequence(adapter)
          await feed(model, cache, 0, s, s.promptIds.slice(0, -1))
          const [drawn] = await decode(model, cache, [s], { steps: 7 })
          cache.free()
          return drawn.map(({ id }) => id)
        }
        await model.setAdaptersByRow(names)
        const mixed = [await answer(names[1]), await answer(), await answer(names[2])]
        await model.setAdapters([names[1]])
        const second = await answer()
        await model.setAdapters([])
        const none = await answer()
        await model.setAdapters([names[2]])
        expect(mixed).toEqual([second, none, await answer()])
        expect(second).not.toEqual(none)
        await lm.close()
      })
    },
  )

it('refuses fewer than two, and what is not for some rows alone', async () => {
  const [candidate] = await candidates()
  const lm = await randomModel(await candidate.open())
  const { model } = lm
  await addAdapters(model)
  model.adapters.set('dora', await createAdapter('dora', { useDora: true }, model, 1))
  await expect(model.setAdaptersByRow(['first'])).rejects.toThrow(OptionError)
  await expect(model.setAdaptersByRow(['first', 'dora'])).rejects.toThrow(/^adapter "dora": DoRA and modules_to_save/)
  await expect(model.setAdaptersByRow(['first', 'other'])).rejects.toThrow(/^adapter "other" is not loaded/)
  expect(model.adaptersByRow).toEqual([])
  await lm.close()
})
