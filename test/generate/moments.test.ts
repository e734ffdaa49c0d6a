import { expect, it } from 'vitest'
import { inputFactors } from '../../sdk/generate/moments.ts'
import type { Tensor } from '../../sdk/graph/graph.ts'
import { parseConfig } from '../../sdk/model/config.ts'
import { packedHidden } from '../../sdk/model/decoder.ts'
import { Model } from '../../sdk/model/model.ts'
import { toFloats } from '../../sdk/quant/convert.ts'
import { unitFactor } from '../../sdk/quant/feedback.ts'
import { wasmTarget } from '../../targets/wasm/index.ts'
import { readAs } from '../formats/read-as.ts'
import { randomTensors } from '../train/model.ts'

const [hidden, inner, length] = [32, 2048, 24]
const config = parseConfig(
  {
    ...{ architectures: ['Qwen2ForCausalLM'], model_type: 'qwen2', vocab_size: 64, hidden_size: hidden },
    ...{ intermediate_size: inner, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 1 },
    ...{ rms_norm_eps: 1e-6, max_position_embeddings: 64, tie_word_embeddings: true },
  },
  'random',
)

/** What comes into the last matrix of the layer, a row a token. */
async function downInputs(model: Model, windows: readonly (readonly number[])[]): Promise<Float32Array[]> {
  const i32 = { dtype: 'i32', shape: [length] } as const
  const executable = await model.compile('inputs', (g) => {
    const onInput = (x: Tensor, name: string) => name.includes('down_proj') && g.output('x', x)
    const c = { ...model.context(), onInput }
    packedHidden(g, c, g.input('ids', i32), g.input('positions', i32), g.input('starts', i32))
  })
  const rows: Float32Array[] = []
  for (const window of windows) {
    const [ids, starts] = [Int32Array.from(window), new Int32Array(length)]
    const { x } = await executable.run({ ids, positions: starts.map((_, i) => i), starts })
    for (let t = 0; t < length; t++) rows.push((x as Float32Array).slice(t * inner, (t + 1) * inner))
  }
  return rows
}

it('second moments of inputs are those of all windows; wide ones come in groups of columns', async () => {
  const tensors = randomTensors(config)
  const model = await Model.load(await wasmTarget({ threads: 2 }), config, tensors, 'random', { dtype: 'f32' })
  const windows = [1, 5, 7].map((step) => Array.from({ length }, (_, i) => (i * step + 3) % 64))
  const told: number[] = []
  const factorsOf = await inputFactors(model, windows, { onProgress: (n) => told.push(n) })
  expect(told).toEqual([2, 3])

  // The first layer sees normed rows of the table.
  const table = toFloats(await readAs(tensors.get('model.embed_tokens.weight')!, 'f32'), 'f32')
  const moments = new Float32Array(hidden ** 2)
  for (const id of windows.flat()) {
    const x = table.subarray(id * hidden, (id + 1) * hidden)
    const scale = 1 / (x.reduce((sum, v) => sum + v * v, 0) / hidden + 1e-6)
    for (let i = 0; i < hidden; i++) for (let j = 0; j < hidden; j++) moments[i * hidden + j] += scale * x[i] * x[j]
  }
  const [want] = [await unitFactor(moments, 0.1)]
  const layer = 'model.layers.0'
  const [got] = (await factorsOf(`${layer}.self_attn.v_proj.weight`))!
  for (let i = 0; i < hidden; i++)
    for (let j = i; j < hidden; j++) expect(Math.abs(got[i * hidden + j] - want[i * hidden + j])).toBeLessThan(1e-3)
  expect(factorsOf(`${layer}.self_attn.q_proj.weight`)).toBe(factorsOf(`${layer}.self_attn.k_proj.weight`))

  const sizes = async (name: string) => (await factorsOf(name))?.map((factor) => Math.sqrt(factor.length))
  expect(await sizes(`${layer}.mlp.down_proj.weight`)).toEqual([1024, 1024])
  expect(await sizes(`${layer}.mlp.up_proj.weight`)).toEqual([hidden])
  expect(await sizes('model.embed_tokens.weight')).toEqual([hidden])
  expect(factorsOf(`${layer}.input_layernorm.weight`)).toBe(null)
  // Groups are columns that lie side by side: D begins with the square of the first, and the damping.
  const down = await downInputs(model, windows)
  const squares = Array.from({ length: inner }, (_, c) => down.reduce((sum, x) => sum + x[c] ** 2, 0))
  const groups = (await factorsOf(`${layer}.mlp.down_proj.weight`))!
  for (const [group, [d]] of groups.entries()) {
    const own = squares.slice(group * 1024, (group + 1) * 1024)
    expect(d / (own[0] + (0.1 * own.reduce((a, b) => a + b)) / 1024)).toBeCloseTo(1, 4)
  }
  await model.target.close()
})
