import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import { FormatError, OptionError } from '../../sdk/errors.ts'
import type { LoraConfig } from '../../sdk/formats/lora-config.ts'
import type { PeftTensor } from '../../sdk/formats/peft.ts'
import { type Adapter, adapterBuffers, paddedRank, structureOf, withNumbers } from '../../sdk/model/adapter.ts'
import { adapterFromPeft, adapterToPeft, createAdapter } from '../../sdk/model/lora.ts'
import { weightShapes } from '../../sdk/model/names.ts'
import { referenceTarget } from '../../targets/reference/index.ts'
import { randomModel } from '../train/model.ts'

const target = await referenceTarget()
const { model } = await randomModel(target)
const c = model.config
afterAll(() => target.close())

const first = 'model.layers.0.self_attn.q_proj'

describe('a fresh adapter', () => {
  it("has TRL's defaults and changes nothing: r 16, alpha 32, all seven linear modules, B zero", async () => {
    const adapter = await createAdapter('a', {}, model, 1)
    expect(adapter.modules.size).toBe(7 * c.numHiddenLayers)
    expect(adapter.config).toMatchObject({ r: 16, loraAlpha: 32, loraDropout: 0, targetModules: 'all-linear' })
    for (const { rank, scale, a, b, magnitude } of adapter.modules.values()) {
      expect([rank, scale, magnitude]).toEqual([16, 2, undefined])
      expect(a.some((x) => x !== 0)).toBe(true)
      expect(b.every((x) => x === 0)).toBe(true)
    }
  })

  it('A is uniform in ±1/sqrt(in), as kaiming_uniform with a = sqrt(5)', async () => {
    const adapter = await createAdapter('a', { r: 64 }, model, 1)
    for (const [path, { a }] of adapter.modules) {
      const bound = 1 / Math.sqrt(a.length / 64)
      const sorted = Float32Array.from(a).sort()
      expect(sorted[0], path).toBeGreaterThanOrEqual(Math.fround(-bound))
      expect(sorted.at(-1), path).toBeLessThan(bound)
      // Kolmogorov-Smirnov distance from the uniform distribution, at about one in a million.
      const distance = sorted.reduce((d, x, i) => Math.max(d, Math.abs((x / bound + 1) / 2 - i / sorted.length)), 0)
      expect(distance * Math.sqrt(sorted.length), path).toBeLessThan(2.7)
    }
  })

  it('is the same for the same seed, whatever else is adapted, and another for another seed', async () => {
    const a = async (given: Partial<LoraConfig>, seed: number) =>
      (await createAdapter('a', given, model, seed)).modules.get(first)!.a
    const one = await a({}, 5)
    expect(await a({ targetModules: ['q_proj'] }, 5)).toEqual(one)
    expect(await a({}, 6)).not.toEqual(one)
    // Pinned: these are the same on every machine.
    expect([...one.subarray(0, 3)]).toEqual(pinned)
    const modules = [...(await createAdapter('a', {}, model, 5)).modules.values()].map((m) => m.a.slice(0, 8).join())
    expect(new Set(modules).size).toBe(modules.length)
  })

  it("DoRA's magnitude is the row norms of the base weight", async () => {
    const adapter = await createAdapter('a', { useDora: true, useRslora: true, r: 4, loraAlpha: 6 }, model, 1)
    const w = await model.readFloats(`${first}.weight`)
    const { magnitude, scale } = adapter.modules.get(first)!
    expect(scale).toBe(3)
    expect(magnitude!.length).toBe(w.length / c.hiddenSize)
    for (const [o, m] of magnitude!.entries())
      expect(m).toBeCloseTo(Math.hypot(...w.subarray(o * c.hiddenSize, (o + 1) * c.hiddenSize)), 6)
  })

  it("DoRA's magnitude of quantized weights is that of the numbers they stand for", async () => {
    const quantized = (await randomModel(target, 'q8')).model
    const exact = (await createAdapter('a', { useDora: true }, model, 1)).modules.get(first)!.magnitude!
    const rounded = (await createAdapter('a', { useDora: true }, quantized, 1)).modules.get(first)!.magnitude!
    expect(rounded).not.toEqual(exact)
    for (const [o, m] of rounded.entries()) expect(Math.abs(m / exact[o] - 1)).toBeLessThan(0.005)
    quantized.free()
  })

  it('modulesToSave start as copies of the base weights, an output layer of its own too', async () => {
    const adapter = await createAdapter('a', { modulesToSave: ['lm_head', 'model.norm'] }, model, 1)
    expect([...adapter.saved.keys()].sort()).toEqual(['lm_head.weight', 'model.norm.weight'])
    expect(adapter.saved.get('lm_head.weight')).toEqual(await model.readFloats('model.embed_tokens.weight'))
    expect(adapter.saved.get('model.norm.weight')).toEqual(await model.readFloats('model.norm.weight'))
  })

  const wrong: [given: Partial<LoraConfig>, message: RegExp][] = [
    [{ r: 0 }, /^r: 0 is not an integer from 1 to 65536/],
    [{ r: 1.5 }, /^r: 1\.5/],
    [{ rankPattern: { q_proj: -1 } }, /^rankPattern: q_proj: -1 is not an integer from 1/],
    [{ loraAlpha: Number.NaN }, /^loraAlpha: NaN/],
    [{ loraDropout: 1 }, /^loraDropout: 1 is not a number from 0 below 1/],
    [{ targetModules: ['c_attn'] }, /no linear module "c_attn"/],
    [{ modulesToSave: ['score'] }, /no module "score"/],
  ]
  for (const [given, message] of wrong)
    it(`refused: ${JSON.stringify(given)}`, async () => {
      const made = createAdapter('a', given, model, 1)
      await expect(made).rejects.toThrow(message)
      await expect(made).rejects.toThrow(OptionError)
    })
})

const pinned = [-0.0734408050775528, 0.008556485176086426, -0.11320263147354126]

describe('PEFT in and out', () => {
  const given: Partial<LoraConfig>[] = [
    { r: 3 },
    { r: 4, useRslora: true, targetModules: ['q_proj', 'layers.1.mlp.up_proj'] },
    { r: 2, useDora: true, rankPattern: { q_proj: 5 }, alphaPattern: { 'layers.1.*': 7 } },
    { targetModules: '.*o_proj', modulesToSave: ['embed_tokens', 'norm'] },
  ]
  for (const lora of given)
    it(`round trip of ${JSON.stringify(lora)}`, async () => {
      const adapter = await createAdapter('a', lora, model, 3)
      const { config, tensors } = adapterToPeft(adapter, c)
      const back = adapterFromPeft('a', config, tensors, c, 'there')
      expect(back).toEqual({ ...adapter, config })
      for (const key of tensors.keys()) expect(key).toMatch(/^base_model\.model\.(model|lm_head)\./)
      const kinds = new Set([...tensors.keys()].map((key) => /lora_.*/.exec(key)?.[0] ?? 'whole'))
      expect(kinds).toEqual(
        new Set([
          'lora_A.weight',
          'lora_B.weight',
          ...(lora.useDora ? ['lora_magnitude_vector.weight'] : []),
          ...(lora.modulesToSave ? ['whole'] : []),
        ]),
      )
    })

  it("reads DoRA's older key", async () => {
    const adapter = await createAdapter('a', { useDora: true }, model, 3)
    const { config, tensors } = adapterToPeft(adapter, c)
    const older = new Map(
      [...tensors].map(([key, t]) => [key.replace('magnitude_vector.weight', 'magnitude_vector'), t]),
    )
    expect(adapterFromPeft('a', config, older, c, 'there').modules).toEqual(adapter.modules)
  })

  const damage: [what: string, change: (t: Map<string, PeftTensor>) => void, message: RegExp][] = [
    [
      'another hidden size',
      (t) => t.set(`base_model.model.${first}.lora_A.weight`, { shape: [4, 896], data: new Float32Array(4 * 896) }),
      /^there: base_model\.model\.model\.layers\.0\.self_attn\.q_proj\.lora_A\.weight: expected \[4, 64\], got \[4, 896\]: this adapter belongs to another model \(it was made for big\)/,
    ],
    [
      'another rank',
      (t) => t.set(`base_model.model.${first}.lora_B.weight`, { shape: [64, 8], data: new Float32Array(64 * 8) }),
      /lora_B\.weight: expected \[64, 4\], got \[64, 8\].*adapter_config\.json/,
    ],
    [
      'a missing tensor',
      (t) => t.delete(`base_model.model.${first}.lora_B.weight`),
      /q_proj\.lora_B\.weight \[64, 4\] is missing: this adapter belongs to another model/,
    ],
    [
      'a layer too many',
      (t) => t.set('base_model.model.model.layers.9.x.lora_A.weight', { shape: [4, 64], data: new Float32Array(256) }),
      /layers\.9\.x\.lora_A\.weight \[4, 64\]: no place in this model/,
    ],
    [
      'a magnitude without use_dora',
      (t) =>
        t.set(`base_model.model.${first}.lora_magnitude_vector.weight`, { shape: [64], data: new Float32Array(64) }),
      /lora_magnitude_vector\.weight \[64\]: no place/,
    ],
  ]
  for (const [what, change, message] of damage)
    it(`an adapter for another model: ${what}`, async () => {
      const { config, tensors } = adapterToPeft(await createAdapter('a', { r: 4 }, model, 3), c)
      const damaged = new Map(tensors)
      change(damaged)
      const read = () => adapterFromPeft('a', { ...config, baseModel: 'big' }, damaged, c, 'there')
      expect(read).toThrow(message)
      expect(read).toThrow(FormatError)
    })

  it('a config that targets what the model lacks is wrong in its file', async () => {
    const { config, tensors } = adapterToPeft(await createAdapter('a', {}, model, 3), c)
    const read = () => adapterFromPeft('a', { ...config, targetModules: ['c_attn'] }, tensors, c, 'there')
    expect(read).toThrow(/^there: targetModules: .*"c_attn"/)
    expect(read).toThrow(FormatError)
  })
})

describe('padding of ranks', () => {
  it('pads to 8, 16, 32 ...', () => {
    expect([1, 7, 8, 9, 16, 17, 33, 64, 65].map(paddedRank)).toEqual([8, 8, 8, 16, 16, 32, 64, 64, 128])
  })

  const shapes = weightShapes(c)
  const floats = (n: number) => fc.float32Array({ minLength: n, maxLength: n, noNaN: true })
  const adapters = fc
    .record({
      rank: fc.integer({ min: 1, max: 40 }),
      input: fc.integer({ min: 1, max: 9 }),
      output: fc.integer({ min: 1, max: 9 }),
      dora: fc.boolean(),
    })
    .chain(({ rank, input, output, dora }) =>
      fc
        .record({ a: floats(rank * input), b: floats(output * rank), m: floats(output), norm: floats(c.hiddenSize) })
        .map(
          ({ a, b, m, norm }): Adapter => ({
            name: 'a',
            config: {} as LoraConfig,
            modules: new Map([[first, { rank, scale: 2, a, b, ...(dora && { magnitude: m }) }]]),
            saved: new Map([['model.norm.weight', norm]]),
            tables: new Map(),
          }),
        ),
    )

  it('padded and unpadded is the same; B·A is the same padded; the padding is zero', () => {
    fc.assert(
      fc.property(adapters, (adapter) => {
        const structure = structureOf([adapter], 3)
        const buffers = adapterBuffers([adapter], structure, shapes)
        const { rank, a, b, magnitude } = adapter.modules.get(first)!
        const [A, B] = [buffers.get(`${first}.lora_A`)!, buffers.get(`${first}.lora_B`)!]
        const [padded, input] = A.shape
        const [output] = B.shape
        expect([padded, input * rank, output * rank]).toEqual([paddedRank(rank), a.length, b.length])
        for (let k = 0; k < padded; k++) {
          for (let i = 0; i < input; i++) expect(A.data[k * input + i]).toBe(k < rank ? a[k * input + i] : 0)
          for (let o = 0; o < output; o++) expect(B.data[o * padded + k]).toBe(k < rank ? b[o * rank + k] : 0)
        }
        expect(buffers.get(`${first}.scale`)!.data[0]).toBe(2)
        expect(buffers.has(`${first}.lora_magnitude_vector`)).toBe(magnitude !== undefined)
        expect(structure).toMatchObject({ prefix: 'adapter/3', saved: ['model.norm.weight'] })
        expect(withNumbers(adapter, (name) => buffers.get(name)!.data)).toEqual(adapter)
      }),
    )
  })
})
