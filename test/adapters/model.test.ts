import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, describe, expect, it, vi } from 'vitest'
import type { Example } from '../../sdk/data/tokenize.ts'
import { OptionError } from '../../sdk/errors.ts'
import type { LoraConfig } from '../../sdk/formats/lora-config.ts'
import { readFloats } from '../../sdk/formats/stored.ts'
import { openTensors } from '../../sdk/formats/stored-model.ts'
import { scoreExamples } from '../../sdk/generate/score.ts'
import { loadAdapter, loadModel } from '../../sdk/load.ts'
import type { Adapter } from '../../sdk/model/adapter.ts'
import { createAdapter } from '../../sdk/model/lora.ts'
import { addUpdates } from '../../sdk/model/merge.ts'
import type { Model } from '../../sdk/model/model.ts'
import { Programs } from '../../sdk/model/programs.ts'
import { fillNormal, nameCounter } from '../../sdk/random.ts'
import { memoryStore } from '../../sdk/store/memory.ts'
import { goldenRoot, readJson, relativeError } from '../golden/golden.ts'
import { candidates } from '../suite.ts'
import { randomModel } from '../train/model.ts'

const scratch = mkdtempSync(join(tmpdir(), 'halfling-merge-'))
afterAll(() => rmSync(scratch, { recursive: true }))

const examples: Example[] = [29, 11].map((length, row) => {
  const inputIds = Array.from({ length }, (_, i) => (i * 37 + row * 11) % 250)
  return { inputIds, labels: inputIds, row }
})
const score = async (model: Model, programs?: Programs) =>
  Float32Array.from((await scoreExamples(model, examples, { programs })).flatMap((row) => [...row]))

/** An adapter that has been somewhere: every number of it is other than at the start. */
async function trained(name: string, given: Partial<LoraConfig>, model: Model, seed: number): Promise<Adapter> {
  const adapter = await createAdapter(name, given, model, seed)
  const moved = (numbers: Float32Array, deviation: number, key: string) => {
    const noise = new Float32Array(numbers.length)
    fillNormal(noise, deviation, seed, nameCounter(key))
    return numbers.map((x, i) => x + noise[i])
  }
  const modules = [...adapter.modules].map(([path, m]) => {
    const magnitude = m.magnitude && moved(m.magnitude, 0.1, `${path}.m`)
    return [path, { ...m, b: moved(m.b, 0.05, path), ...(magnitude && { magnitude }) }] as const
  })
  const saved = [...adapter.saved].map(([key, numbers]) => [key, moved(numbers, 0.05, key)] as const)
  const whole = { ...adapter, modules: new Map(modules), saved: new Map(saved) }
  model.adapters.set(name, whole)
  return whole
}

const targets = (await candidates()).filter(({ label }) => !label.includes('2 threads'))
for (const candidate of targets)
  describe.skipIf(candidate.skip !== undefined)(`adapters on a model, ${candidate.label}`, () => {
    it('are set, swapped, disabled and set again without compiling anything twice', async () => {
      const target = await candidate.open()
      const { model } = await randomModel(target)
      const programs = new Programs(model)
      // Ranks 5 and 8 fall into one bucket.
      await trained('one', { r: 8 }, model, 1)
      await trained('two', { r: 5, useRslora: true }, model, 2)
      const compile = vi.spyOn(target, 'compile')
      const base = await score(model, programs)
      await model.setAdapters(['one'])
      const one = await score(model, programs)
      expect(compile).toHaveBeenCalledTimes(2)
      const { version } = model
      await model.setAdapters(['two'])
      const two = await score(model, programs)
      await model.setAdapters(['one'])
      expect(await score(model, programs)).toEqual(one)
      expect(model.version).toBe(version)
      expect(compile).toHaveBeenCalledTimes(2)
      await model.setAdapters([])
      expect(await score(model, programs)).toEqual(base)
      for (const [x, y] of [
        [base, one],
        [base, two],
        [one, two],
      ])
        expect(relativeError(x, y)).toBeGreaterThan(0.01)
      await model.setAdapters(['one', 'two'])
      const both = await score(model, programs)
      await model.setAdapters(['two', 'one'])
      expect(relativeError(await score(model, programs), both)).toBeLessThan(1e-5)
      expect(relativeError(both, one)).toBeGreaterThan(0.01)
      await expect(model.setAdapters(['three'])).rejects.toThrow(/"three" is not loaded \(loaded: one, two\)/)
      programs.clear()
      await target.close()
    })

    it("are as they were after a visit to the target, whatever the rank's padding", async () => {
      const target = await candidate.open()
      const { model } = await randomModel(target)
      const adapter = await trained('a', { r: 3, useDora: true, modulesToSave: ['lm_head', 'norm'] }, model, 1)
      await model.setAdapters(['a'])
      await model.pullAdapters()
      expect(model.adapters.get('a')).toEqual(adapter)
      await target.close()
    })

    it('an own embedding leaves the tied output layer as it was, and the other way round (as in PEFT)', async () => {
      const target = await candidate.open()
      const { model } = await randomModel(target)
      const lora = { targetModules: ['q_proj'] }
      await trained('embedding', { ...lora, modulesToSave: ['embed_tokens'] }, model, 1)
      await trained('output', { ...lora, modulesToSave: ['lm_head'] }, model, 1)
      const scores: Float32Array[] = [await score(model)]
      for (const name of ['embedding', 'output']) {
        await model.setAdapters([name])
        scores.push(await score(model))
      }
      await model.setAdapters(['embedding', 'output'])
      scores.push(await score(model))
      for (const [i, x] of scores.entries())
        for (const y of scores.slice(0, i)) expect(relativeError(x, y)).toBeGreaterThan(0.01)
      await target.close()
    })

    const merges: [what: string, given: Partial<LoraConfig>[]][] = [
      ['LoRA', [{ r: 8 }]],
      ['rsLoRA', [{ r: 5, useRslora: true }]],
      ['DoRA', [{ r: 4, useDora: true }]],
      ['rank pattern', [{ rankPattern: { q_proj: 3 }, alphaPattern: { up_proj: 5 }, targetModules: '.*(q|up)_proj' }]],
      ['LoRA and DoRA together', [{ r: 8 }, { r: 4, useDora: true }]],
      ['whole modules', [{ targetModules: ['q_proj'], modulesToSave: ['norm', 'mlp'] }]],
      ['an own output layer of a tied model', [{ modulesToSave: ['lm_head'] }]],
      ['an own embedding of a tied model', [{ modulesToSave: ['embed_tokens'] }]],
    ]
    for (const [what, given] of merges)
      it(`merged and saved, scores are the same: ${what}`, async () => {
        const target = await candidate.open()
        const lm = await randomModel(target)
        const base = await score(lm.model)
        for (const [i, lora] of given.entries()) await trained(`${i}`, lora, lm.model, i + 1)
        await lm.model.setAdapters([...given.keys()].map(String))
        const adapted = await score(lm.model)
        expect(relativeError(adapted, base)).toBeGreaterThan(0.01)
        const folder = join(mkdtempSync(join(scratch, 'merged-')), 'new')
        await lm.saveMerged(folder, 'f32')
        await target.close()
        const device = candidate.label === 'reference' ? 'reference' : 'wasm'
        const merged = await loadModel(folder, { device, threads: 1 })
        expect(relativeError(await score(merged.model), adapted)).toBeLessThan(1e-5)
        await merged.close()
      })
  })

describe('saveMerged', () => {
  it('writes a whole snapshot in the dtype asked for, and never over something', async () => {
    const target = await targets[0].open()
    const lm = await randomModel(target)
    await trained('a', {}, lm.model, 1)
    await lm.model.setAdapters(['a'])
    const folder = join(scratch, 'half', 'new')
    await lm.saveMerged(folder)
    expect(readdirSync(folder).sort()).toEqual([
      'chat_template.jinja',
      'config.json',
      'generation_config.json',
      'model.safetensors',
      'tokenizer.json',
      'tokenizer_config.json',
    ])
    expect(readJson(join(folder, 'config.json'))).toMatchObject({ dtype: 'bfloat16', tie_word_embeddings: true })
    expect(readdirSync(join(scratch, 'half'))).toEqual(['new'])
    await expect(lm.saveMerged(folder)).rejects.toThrow(OptionError)
    await expect(lm.saveMerged(`${folder}-2`, 'BF16' as 'bf16')).rejects.toThrow(
      'dtype: "BF16" is not one of f32, f16, bf16, q8, q4a, q4',
    )
    for (const [dtype, tolerance] of [
      ['f32', 0],
      ['f16', 2 ** -11],
      ['bf16', 2 ** -8],
    ] as const) {
      const store = memoryStore()
      await lm.saveMerged(store, dtype)
      const { tensors } = await openTensors(store)
      for (const [name, tensor] of tensors) {
        expect(tensor.dtype).toBe(dtype.toUpperCase())
        if (!name.endsWith('q_proj.weight')) continue
        const exact = await lm.model.readFloats(name)
        addUpdates(exact, [lm.model.adapters.get('a')!.modules.get(name.slice(0, -7))!])
        expect(relativeError(await readFloats(tensor), exact)).toBeLessThanOrEqual(tolerance)
      }
      const names = [...lm.model.weights.keys()]
      expect([...tensors.keys()].sort()).toEqual(names.sort())
    }
    await target.close()
  })
})

const golden = join(goldenRoot, 'tables', 'lora_peft.json')
describe.skipIf(!existsSync(golden))("PEFT's merged weights", () => {
  interface Case {
    readonly kind: string
    readonly r: number
    readonly alpha: number
    readonly W: number[][]
    readonly A: number[][]
    readonly B: number[][]
    readonly magnitude?: number[]
    readonly mergedW: number[][]
  }
  const { cases } = existsSync(golden) ? readJson<{ cases: Case[] }>(golden) : { cases: [] }
  for (const c of cases)
    it(c.kind, () => {
      const w = Float32Array.from(c.W.flat())
      const [a, b] = [Float32Array.from(c.A.flat()), Float32Array.from(c.B.flat())]
      const scale = c.alpha / (c.kind === 'rslora' ? Math.sqrt(c.r) : c.r)
      const magnitude = c.magnitude && Float32Array.from(c.magnitude)
      addUpdates(w, [{ rank: c.r, scale, a, b, ...(magnitude && { magnitude }) }])
      expect(relativeError(w, c.mergedW.flat())).toBeLessThan(1e-6)
    })
})

const pebble = join(dirname(goldenRoot), 'models', 'pebble-7m-instruct')
const wasm = targets.find(({ label }) => label.startsWith('wasm'))
describe.skipIf(!existsSync(pebble) || wasm === undefined || wasm.skip !== undefined)(
  'the warm adapter on Pebble',
  () => {
    it('makes the unseen problems likelier, merged as well as apart', async () => {
      const lm = await loadModel(pebble, { device: 'wasm', threads: 1, dtype: 'f32' })
      const file = join(dirname(goldenRoot), 'data', 'pebble', 'unseen_test.jsonl')
      const rows = readFileSync(file, 'utf8').split('\n').slice(0, 8)
      const chats = rows.map((line, row): Example => {
        const { question, solution, answer } = JSON.parse(line)
        const prompt = lm.chatPrompt([{ role: 'user', content: question }])
        const text = `<think>\n${solution}\n</think>\n<answer>${answer}</answer><|im_end|>`
        const inputIds = [...prompt, ...lm.tokenizer.encode(text)]
        return { inputIds, labels: inputIds.map((id, i) => (i < prompt.length ? -100 : id)), row }
      })
      const all = async () => Float32Array.from((await scoreExamples(lm.model, chats)).flatMap((row) => [...row]))
      const base = await all()
      await loadAdapter(lm, join(pebble, 'warm-adapter'))
      expect(lm.model.activeAdapters).toEqual(['warm-adapter'])
      const warm = await all()
      expect(relativeError(warm, base)).toBeGreaterThan(0.01)
      const folder = join(scratch, 'pebble')
      await lm.saveMerged(folder, 'f32')
      await lm.model.setAdapters([])
      expect(await all()).toEqual(base)
      await lm.close()
      const merged = await loadModel(folder, { device: 'wasm', threads: 1 })
      const again = await scoreExamples(merged.model, chats)
      expect(relativeError(Float32Array.from(again.flatMap((row) => [...row])), warm)).toBeLessThan(1e-5)
      await merged.close()
    })
  },
)
