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
