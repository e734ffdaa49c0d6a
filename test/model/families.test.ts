import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { packBatch } from '../../sdk/data/pack.ts'
import { scoreExamples } from '../../sdk/generate/score.ts'
import { type ModelConfig, parseConfig } from '../../sdk/model/config.ts'
import { adapterFromPeft } from '../../sdk/model/lora.ts'
import { Model } from '../../sdk/model/model.ts'
import { layerName, linearModules } from '../../sdk/model/names.ts'
import type { Target } from '../../sdk/target.ts'
import { crossEntropy } from '../../sdk/train/objectives.ts'
import { TrainStep } from '../../sdk/train/step.ts'
import { wasmTarget } from '../../targets/wasm/index.ts'
import { greedy } from '../golden/golden.ts'
import { golden, numbers, tensors } from './families.ts'

function adapter(c: ModelConfig) {
  const loras = c.layers.flatMap((_, layer) =>
    [...linearModules(c)].flatMap(([module, [out, input]]) => {
      const at = `${layerName(layer)}.${module}`
      return [
        [`${at}.lora_A.weight`, [4, input], 0.2],
        [`${at}.lora_B.weight`, [out, 4], 0.1],
      ] as const
    }),
  )
  const data = new Map(
    loras.map(([name, shape, scale]) => [`base_model.model.${name}`, { shape, data: numbers(name, shape, scale) }]),
  )
  const config = {
    ...{ r: 4, loraAlpha: 8, loraDropout: 0, useRslora: false, useDora: false },
    ...{ targetModules: [...linearModules(c).keys()].map((path) => path.split('.')[1]) },
    ...{ rankPattern: {}, alphaPattern: {}, modulesToSave: [] },
  }
  return adapterFromPeft('golden', config, data, c, 'families.test.ts')
}

describe(`families, ${golden.made}`, () => {
  let target: Target
  beforeAll(async () => {
    target = await wasmTarget({ threads: 1 })
  })
  afterAll(() => target?.close())

  describe.each(golden.families)('$title', ({ config: json, logProbs, curve }) => {
    const config = parseConfig(json, 'config.json')
    const examples = golden.ids.map((inputIds, row) => ({ row, inputIds, labels: inputIds }))

    it('scores as transformers does, and decodes what it scores', async () => {
      const model = await Model.load(target, config, tensors(config), 'random')
      const got = await scoreExamples(model, examples)
      for (const [row, want] of logProbs.entries())
        for (const [t, x] of want.entries()) expect(Math.abs(got[row][t] - x), `row ${row}, ${t}`).toBeLessThan(1e-4)
      const prompt = golden.ids[0].slice(0, 12)
      const inputIds = [...prompt, ...(await greedy(model, prompt, 8))]
      const [scored] = await scoreExamples(model, [{ row: 0, inputIds, labels: inputIds }])
      // The likeliest of 96 tokens is not below the mean.
      for (const x of scored.slice(11)) expect(x).toBeGreaterThan(-Math.log(96))
      model.free()
    })

    it('learns by LoRA as PEFT does: losses and gradient norms of four steps', async () => {
      const model = await Model.load(target, config, tensors(config), 'random')
      model.adapters.set('golden', adapter(config))
      await model.setAdapters(['golden'])
      const step = new TrainStep(model, {
        ...({ trains: 'adapter', gradientCheckpointing: false, dropout: 0, objective: crossEntropy } as const),
      })
      const batch = packBatch(examples.map((e) => ({ ...e, labels: [-100, ...e.labels.slice(1)] })))
      const weights = Float32Array.from(batch.rows, (row) => (row < 0 ? 0 : 1 / batch.scored))
      for (const [s, want] of curve.entries()) {
        const { loss } = await step.accumulate(batch, { targets: batch.targets, weights }, [0, 0])
        expect(Math.abs(loss[0] / want.loss - 1), `loss of step ${s + 1}`).toBeLessThan(1e-4)
        const norm = await step.apply({
          ...{ learningRate: 1e-2, weightDecay: 0, maxGradNorm: 1 },
          ...{ adamBeta1: 0.9, adamBeta2: 0.999, adamEpsilon: 1e-8 },
        })
        expect(Math.abs(norm / want.norm - 1), `norm of step ${s + 1}`).toBeLessThan(1e-3)
      }
      model.free()
    })
  })

  it.each([
    ['lfm2', /it has convolutions between attention layers \(llama is the nearest family\)/],
    ['qwen3_5', /it has linear attention \(qwen3 is the nearest family\)/],
    ['gemma3', /it has images \(its text alone is gemma3_text\)/],
    ['mamba', /is not supported \(llama, granite, /],
  ])('%s is refused with the nearest family', (model_type, message) => {
    expect(() => parseConfig({ ...golden.families[0].config, model_type }, 'config.json')).toThrow(message)
  })

  it('longrope up to its original context is one divisor per frequency', () => {
    const { config: mini } = golden.families.find(({ title }) => title === 'MiniCPM')!
    const short = [1, 1.5, 2, 3]
    const read = (json: object) => {
      const rope_scaling = { rope_type: 'longrope', long_factor: [9, 9, 9, 9], short_factor: short, ...json }
      return parseConfig({ ...mini, rope_scaling }, 'config.json').layers[0].rope!.scaling
    }
    expect(read({ original_max_position_embeddings: 128 })).toEqual({ type: 'factors', factors: short })
    for (const wrong of [{ original_max_position_embeddings: 64 }, { short_factor: [1] }])
      expect(() => read(wrong)).toThrow('config.json: rope scaling "longrope" is not supported')
  })

  it('layers that are not rotated: by list, by interval, of the right number', () => {
    const smol = golden.families.find(({ title }) => title === 'SmolLM3')!.config
    const still = (json: object) =>
      parseConfig({ ...smol, ...json }, 'config.json').layers.map(({ rope }) => rope === null)
    expect(still({})).toEqual([false, false, false, true, false])
    expect(still({ no_rope_layers: [0, 1, 1, 0, 1] })).toEqual([true, false, false, true, false])
    expect(() => still({ no_rope_layers: [0] })).toThrow('no_rope_layers has 1 entries, num_hidden_layers is 5')
  })
})
