import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { scoreExamples } from '../../sdk/generate/score.ts'
import { parseConfig } from '../../sdk/model/config.ts'
import { Model } from '../../sdk/model/model.ts'
import { inverseFrequencies, ropeTable } from '../../sdk/model/rope.ts'
import type { Target } from '../../sdk/target.ts'
import { wasmTarget } from '../../targets/wasm/index.ts'
import { randomTensors } from '../train/model.ts'

interface Golden {
  readonly made: string
  readonly tables: readonly {
    readonly what: string
    readonly config: Record<string, unknown>
    readonly inverseFrequencies: readonly number[]
    readonly attentionFactor: number
  }[]
  readonly models: readonly {
    readonly config: Record<string, unknown>
    readonly ids: readonly number[]
    /** Of each next token. */
    readonly logProbs: readonly number[]
  }[]
}
const golden = JSON.parse(readFileSync(new URL('rope-scaling.json', import.meta.url), 'utf8')) as Golden

describe(`rope scaling, ${golden.made}`, () => {
  let target: Target
  beforeAll(async () => {
    target = await wasmTarget({ threads: 2 })
  })
  afterAll(() => target?.close())

  it.each(golden.tables)('$what: frequencies and factor', ({ config, inverseFrequencies: want, attentionFactor }) => {
    const { layers, headDim } = parseConfig(config, 'config.json')
    const [{ rope }] = layers
    const got = inverseFrequencies(rope!, headDim)
    expect(got).toHaveLength(want.length)
    // f32 has 24 bits: two units in the last place
    for (const [i, f] of want.entries()) expect(Math.abs(got[i] / f - 1), `pair ${i}`).toBeLessThan(2 ** -22)
    expect(ropeTable(rope!, { shape: [1, headDim] })[0]).toBe(Math.fround(attentionFactor))
  })

  const plain = {
    ...{ model_type: 'llama', vocab_size: 8, hidden_size: 8, intermediate_size: 8, num_hidden_layers: 1 },
    ...{ num_attention_heads: 2, rms_norm_eps: 1e-5, max_position_embeddings: 32 },
  }
  const ropeOf = (more: object) => parseConfig({ ...plain, ...more }, 'config.json').layers[0].rope
  const saved = { rope_type: 'default', rope_theta: 1e6 }
  const added = { rope_type: 'linear', factor: 2 }

  it('what is added under the older name counts, and takes its theta along', () => {
    const linear = (theta: number) => ({ theta, scaling: { type: 'linear', factor: 2 } })
    expect(ropeOf({ rope_parameters: saved, rope_scaling: { ...added, rope_theta: 5e5 } })).toEqual(linear(5e5))
    expect(ropeOf({ rope_parameters: saved, rope_scaling: added, rope_theta: 1e6 })).toEqual(linear(1e6))
    expect(ropeOf({ rope_parameters: { ...saved, rope_theta: 1e4 }, rope_scaling: added })).toEqual(linear(1e4))
    expect(ropeOf({ rope_parameters: saved, rope_scaling: {} })).toEqual({ theta: 1e6, scaling: { type: 'default' } })
    expect(ropeOf({ rope_parameters: saved, rope_scaling: null })!.theta).toBe(1e6)
    expect(() => ropeOf({ rope_parameters: saved, rope_scaling: added })).toThrow('rope_theta 1000000 is lost')
  })

  it('null is as left out', () => {
    const nulls = ['tie_word_embeddings', 'attention_bias', 'mlp_bias', 'hidden_act', 'rope_theta', 'head_dim']
    const config = { ...plain, ...Object.fromEntries(nulls.map((key) => [key, null])) }
    expect(parseConfig(config, 'config.json')).toEqual(parseConfig(plain, 'config.json'))
  })

  it.each(golden.models)(
    '$config.rope_scaling.rope_type: log-probabilities of rows beyond the original context',
    async ({ config: json, ids, logProbs }) => {
      const config = parseConfig(json, 'config.json')
      const model = await Model.load(target, config, randomTensors(config), 'random')
      const [packed] = await scoreExamples(model, [{ row: 0, inputIds: [...ids], labels: [-100, ...ids.slice(1)] }])
      expect(packed).toHaveLength(logProbs.length)
      for (const [t, want] of logProbs.entries())
        expect(Math.abs(packed[t] - want), `token ${t + 1}`).toBeLessThan(1e-4)
      model.free()
    },
  )
})
