import { describe, expect, it } from 'vitest'
import type { StoredTensor } from '../../sdk/formats/safetensors.ts'
import { Graph } from '../../sdk/graph/graph.ts'
import { toProgram } from '../../sdk/graph/program.ts'
import { type ModelConfig, parseConfig } from '../../sdk/model/config.ts'
import { cachedHidden, cacheName, headWeight, packedHidden } from '../../sdk/model/decoder.ts'
import { Model } from '../../sdk/model/model.ts'
import { weightShapes } from '../../sdk/model/names.ts'
import { fill, gradient, linear, view, vocabPick } from '../../sdk/ops/index.ts'
import { fillNormal, nameCounter } from '../../sdk/random.ts'
import { relativeError } from '../../sdk/self-test.ts'
import { runReference } from '../../targets/reference/index.ts'
import { candidates } from '../suite.ts'

// What a config.json says of a layer: here what Gemma 3 has, as transformers' modeling_gemma3 computes it.
const gemma = {
  model_type: 'gemma3_text',
  vocab_size: 53,
  hidden_size: 24,
  intermediate_size: 40,
  num_hidden_layers: 3,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 8,
  query_pre_attn_scalar: 12,
  rms_norm_eps: 1e-6,
  max_position_embeddings: 128,
  sliding_window: 5,
  layer_types: ['sliding_attention', 'full_attention', 'sliding_attention'],
  rope_theta: 1e6,
  rope_local_base_freq: 10_000,
  rope_scaling: { rope_type: 'linear', factor: 8 },
}
const config = parseConfig(gemma, 'config.json')

/** Every weight, as it is in the checkpoint: norms around 0, since 1 is added to them. */
const numbers = (c: ModelConfig) =>
  new Map(
    [...weightShapes(c)].map(([name, shape]) => {
      const data = new Float32Array(shape.reduce((a, b) => a * b, 1))
      fillNormal(data, name.includes('norm') ? 0.3 : 0.25, 3, nameCounter(name))
      return [name, data] as const
    }),
  )

function stored(c: ModelConfig): Map<string, StoredTensor> {
  const [shapes, tensors] = [weightShapes(c), new Map<string, StoredTensor>()]
  for (const [name, data] of numbers(c)) {
    const bytes = new Uint8Array(data.buffer)
    const read = async (offset = 0, length = bytes.length - offset) => bytes.slice(offset, offset + length)
    tensors.set(name, { name, dtype: 'F32', shape: shapes.get(name)!, bytes: bytes.length, file: 'random', read })
  }
  return tensors
}

/** The logits of one sequence in plain float64, of nothing but the config.json above and the weights. [T, V] */
function plainLogits(ids: readonly number[]): number[][] {
  const weights = numbers(config)
  const row = (x: readonly number[], name: string, o: number): number => {
    const w = weights.get(name)!
    return x.reduce((sum, v, i) => sum + v * w[o * x.length + i], 0)
  }
  const times = (x: readonly number[], name: string): number[] =>
    Array.from({ length: weights.get(name)!.length / x.length }, (_, o) => row(x, name, o))
  const norm = (x: readonly number[], name: string): number[] => {
    const w = weights.get(`${name}.weight`)!
    const rms = Math.sqrt(x.reduce((sum, v) => sum + v * v, 0) / x.length + gemma.rms_norm_eps)
    return x.map((v, i) => (v / rms) * (1 + w[i]))
  }
  const gelu = (x: number) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)))
  const plus = (a: readonly number[], b: readonly number[]) => a.map((v, i) => v + b[i])
  const d = gemma.head_dim
  const heads = (x: readonly number[], name: string, position: number, frequency: (i: number) => number): number[][] =>
    Array.from({ length: x.length / d }, (_, h) => {
      const own = norm(x.slice(h * d, (h + 1) * d), name)
      return own.map((v, i) => {
        const angle = position * frequency(i % (d / 2))
        return v * Math.cos(angle) + (i < d / 2 ? -own[i + d / 2] : own[i - d / 2]) * Math.sin(angle)
      })
    })
  const table = weights.get('model.embed_tokens.weight')!
  const c = gemma.hidden_size
  let xs = ids.map((id) => Array.from({ length: c }, (_, i) => table[id * c + i] * Math.sqrt(c)))
  for (const [layer, type] of gemma.layer_types.entries()) {
    const at = `model.layers.${layer}`
    const isLocal = type === 'sliding_attention'
    const frequency = (i: number) =>
      isLocal ? gemma.rope_local_base_freq ** ((-2 * i) / d) : gemma.rope_theta ** ((-2 * i) / d) / 8
    const inputs = xs.map((x) => norm(x, `${at}.input_layernorm`))
    const of = (part: string) => inputs.map((x) => times(x, `${at}.self_attn.${part}_proj.weight`))
    const q = of('q').map((x, t) => heads(x, `${at}.self_attn.q_norm`, t, frequency))
    const k = of('k').map((x, t) => heads(x, `${at}.self_attn.k_norm`, t, frequency))
    const v = of('v')
    xs = xs.map((x, t) => {
      const first = isLocal ? Math.max(0, t - gemma.sliding_window + 1) : 0
      const attended = q[t].flatMap((query, h) => {
        const g = Math.floor(h / (gemma.num_attention_heads / gemma.num_key_value_heads))
        const seen = Array.from({ length: t - first + 1 }, (_, j) => first + j)
        const scores = seen.map((j) =>
          Math.exp(query.reduce((sum, a, i) => sum + a * k[j][g][i], 0) / Math.sqrt(gemma.query_pre_attn_scalar)),
        )
        const total = scores.reduce((a, b) => a + b)
        return Array.from({ length: d }, (_, i) =>
          seen.reduce((sum, j, n) => sum + (scores[n] / total) * v[j][g * d + i], 0),
        )
      })
      const output = times(attended, `${at}.self_attn.o_proj.weight`)
      const y = plus(x, norm(output, `${at}.post_attention_layernorm`))
      const inner = norm(y, `${at}.pre_feedforward_layernorm`)
      const up = times(inner, `${at}.mlp.up_proj.weight`)
      const hidden = times(inner, `${at}.mlp.gate_proj.weight`).map((gate, i) => gelu(gate) * up[i])
      return plus(y, norm(times(hidden, `${at}.mlp.down_proj.weight`), `${at}.post_feedforward_layernorm`))
    })
  }
  return xs.map((x) => times(norm(x, 'model.norm'), 'model.embed_tokens.weight'))
}

const [first, second] = [
  [3, 17, 8, 41, 5, 29, 11, 3, 50, 22, 7],
  [12, 0, 36, 8, 8, 19, 44],
]
const i32 = (...values: number[]) => Int32Array.from(values)
const steps = (n: number, from = 0) => Array.from({ length: n }, (_, i) => from + i)

/** Logits of both sequences packed, the second after the first. */
async function packedLogits(model: Model): Promise<Float32Array> {
  const [n, a] = [first.length + second.length, first.length]
  const executable = await model.compile('packed', (g) => {
    const [ids, positions, starts] = ['ids', 'positions', 'starts'].map((name) =>
      g.input(name, { dtype: 'i32', shape: [n] }),
    )
    const c = model.context()
    g.output('y', linear(g, packedHidden(g, c, ids, positions, starts), headWeight(g, c)))
  })
  const { y } = await executable.run({
    ids: i32(...first, ...second),
    positions: i32(...steps(a), ...steps(second.length)),
    starts: i32(...new Array(a).fill(0), ...new Array(second.length).fill(a)),
  })
  return y as Float32Array
}

/** Logits of a sequence through the cache: `prompt` tokens at once, then one at a time. */
async function cachedLogits(model: Model, sequence: readonly number[], prompt: number): Promise<Float32Array> {
  const cache = { dtype: 'f32', shape: [1, config.numKeyValueHeads, 32, config.headDim] } as const
  const run = async (rows: number, at: number) => {
    const executable = await model.compile(`cached ${rows}`, (g) => {
      const [ids, positions] = ['ids', 'positions'].map((name) => g.input(name, { dtype: 'i32', shape: [rows] }))
      const slot = rows > 1 ? g.input('slot', { dtype: 'i32', shape: [1] }) : undefined
      const c = model.context()
      g.output('y', linear(g, cachedHidden(g, c, ids, positions, cache, slot), headWeight(g, c)))
    })
    const ids = i32(...sequence.slice(at, at + rows))
    const { y } = await executable.run({ ids, positions: i32(...steps(rows, at)), ...(rows > 1 && { slot: i32(0) }) })
    return [...y]
  }
  const rows = [await run(prompt, 0)]
  for (let at = prompt; at < sequence.length; at++) rows.push(await run(1, at))
  for (const layer of config.layers.keys())
    for (const part of ['k', 'v'] as const) model.release(cacheName(part, layer))
  return Float32Array.from(rows.flat())
}

const targets = await candidates()

describe('layers of a config.json', () => {
  it('are data: norms, activation, window, rotary embedding, multipliers', () => {
    const [sliding, full] = config.layers
    expect(config.layers).toEqual([sliding, full, sliding])
    expect(sliding).toEqual({
      norms: {
        attentionInput: 'input_layernorm',
        attentionOutput: 'post_attention_layernorm',
        mlpInput: 'pre_feedforward_layernorm',
        mlpOutput: 'post_feedforward_layernorm',
        query: 'self_attn.q_norm',
        key: 'self_attn.k_norm',
      },
      activation: 'gelu_tanh',
      window: 5,
      rope: { theta: 10_000, scaling: { type: 'default' } },
      attentionScale: 1 / Math.sqrt(12),
    })
    expect(full).toEqual({ ...sliding, window: 0, rope: { theta: 1e6, scaling: { type: 'linear', factor: 8 } } })
    expect([config.normOffset, config.embeddingScale, config.tieWordEmbeddings]).toEqual([1, Math.sqrt(24), true])
  })

  it('come out the same of the settings of transformers 5, and of the pattern of its older ones', () => {
    const { rope_theta, rope_local_base_freq, rope_scaling, layer_types, ...rest } = gemma
    const newer = {
      full_attention: { ...rope_scaling, rope_theta },
      sliding_attention: { rope_type: 'default', rope_theta: rope_local_base_freq },
    }
    expect(parseConfig({ ...rest, layer_types, rope_parameters: newer }, 'c')).toEqual(config)
    const older = { ...rest, rope_scaling, sliding_window_pattern: 2 }
    expect(parseConfig(older, 'c')).toEqual(config)
  })

  it("Qwen's windows begin at max_window_layers, where they are used", () => {
    const qwen = {
      ...gemma,
      model_type: 'qwen2',
      layer_types: undefined,
      max_window_layers: 2,
      rope_scaling: undefined,
    }
    const windows = (json: object) => parseConfig(json, 'c').layers.map(({ window }) => window)
    expect(windows(qwen)).toEqual([0, 0, 0])
    expect(windows({ ...qwen, use_sliding_window: true })).toEqual([0, 0, 5])
    expect(windows({ ...qwen, use_sliding_window: true, layer_types: gemma.layer_types })).toEqual([5, 0, 5])
  })

  it.each([
    ['hidden_act "relu"', { hidden_activation: 'relu' }],
    ['final_logit_softcapping', { final_logit_softcapping: 30 }],
    ['attn_logit_softcapping', { attn_logit_softcapping: 50 }],
    ['use_bidirectional_attention', { use_bidirectional_attention: true }],
    ['layer_types.1', { layer_types: ['full_attention', 'chunked_attention', 'full_attention'] }],
    ['layer_types has 1', { layer_types: ['full_attention'] }],
    ['use_sliding_window without', { sliding_window: null }],
    ['model_type "gemma3"', { model_type: 'gemma3' }],
  ])('what is not computed is refused by name: %s', (named, changes) => {
    expect(() => parseConfig({ ...gemma, ...changes }, 'config.json')).toThrow(`config.json: ${named}`)
  })

  for (const candidate of targets)
    describe.skipIf(candidate.skip)(`${candidate.label}${candidate.skip ? ` (${candidate.skip})` : ''}`, () => {
      it('logits are those of the plain computation, packed and through the cache', async () => {
        const target = await candidate.open()
        const model = await Model.load(target, config, stored(config), 'random')
        const want = [plainLogits(first), plainLogits(second)]
        expect(relativeError(await packedLogits(model), want.flat(2))).toBeLessThan(1e-4)
        for (const prompt of [1, 4, 9])
          expect(relativeError(await cachedLogits(model, first, prompt), want[0].flat())).toBeLessThan(1e-4)
        model.free()
        await target.close()
      })
    })

  it('gradients are central differences', () => {
    const n = 9
    const bound: Record<string, Float64Array> = {}
    for (const [name, data] of numbers(config)) bound[name] = Float64Array.from(data)
    const build = (trains: boolean) => {
      const g = new Graph()
      const input = (name: string, ...shape: number[]) => g.input(name, { dtype: 'i32', shape })
      const types = new Map([...weightShapes(config)].map(([name, shape]) => [name, { dtype: 'f32', shape }] as const))
      const c = {
        config,
        weights: types,
        trainable: new Set<string>(trains ? types.keys() : []),
        adapters: [],
        ropeTable: ({ theta }: { theta: number }) =>
          ({ name: `rope ${theta}`, type: { dtype: 'f32', shape: [n, config.headDim] } }) as const,
      }
      const hidden = packedHidden(g, c, input('ids', n), input('positions', n), input('starts', n))
      const one = fill(g, [1], 1)
      const [logProbs] = vocabPick(g, hidden, headWeight(g, c), input('picks', n, 1), one)
      const loss = linear(g, view(g, logProbs, [1, n]), g.input('weights', { dtype: 'f32', shape: [1, n] }))
      g.output('loss', view(g, loss, [1]))
      if (trains) gradient(g, [[g.outputs.get('loss')!, one]], { recompute: true })
      return toProgram(g, 'loss')
    }
    const inputs = {
      ids: Float64Array.from(first.slice(0, n)),
      positions: Float64Array.from(steps(n)),
      starts: new Float64Array(n),
      picks: Float64Array.from(first.slice(1, n + 1)),
      weights: Float64Array.from({ length: n }, (_, i) => 0.3 + 0.1 * i),
    }
    for (const { theta } of new Set(config.layers.map(({ rope }) => rope!)))
      bound[`rope ${theta}`] = Float64Array.from({ length: n * config.headDim }, (_, at) => {
        const [p, i] = [Math.floor(at / config.headDim), at % config.headDim]
        const angle = p * theta ** (-(i % 4) / 4)
        return i < 4 ? Math.cos(angle) : Math.sin(angle)
      })
    const states = Object.fromEntries(
      [...weightShapes(config)].map(([name]) => [`grad/${name}`, new Float64Array(bound[name].length)]),
    )
    runReference(build(true), inputs, { ...bound, ...states })
    const program = build(false)
    const loss = () => runReference(program, inputs, bound).loss[0]
    const step = 1e-5
    for (const name of weightShapes(config).keys()) {
      const grad = states[`grad/${name}`]
      const largest = Math.max(...grad.map(Math.abs))
      expect(largest, name).toBeGreaterThan(1e-4)
      for (const i of [0, Math.floor(grad.length / 3), grad.length - 1]) {
        const before = bound[name][i]
        bound[name][i] = before + step
        const above = loss()
        bound[name][i] = before - step
        const below = loss()
        bound[name][i] = before
        expect(Math.abs((above - below) / (2 * step) - grad[i]), `${name} ${i}`).toBeLessThan(1e-6 * (1 + largest))
      }
    }
  })
})
