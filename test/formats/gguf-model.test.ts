import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { FormatError } from '../../sdk/errors.ts'
import { openGguf } from '../../sdk/formats/gguf.ts'
import { ggufModel } from '../../sdk/formats/gguf-model.ts'
import { readFloats } from '../../sdk/formats/stored.ts'
import { openModel } from '../../sdk/formats/stored-model.ts'
import { parseConfig } from '../../sdk/model/config.ts'
import { quantizeQ8 } from '../../sdk/quant/blocks.ts'
import { bytesSource } from '../../sdk/store/byte-source.ts'
import { storeAt } from '../../sdk/store/store.ts'
import { loadTokenizer } from '../../sdk/text/tokenizer.ts'
import { ggufBytes, type TensorBytes, tinyLlama, type Value } from './gguf-bytes.ts'
import { goldenFile, integers, missing, model, table } from './shared.ts'

const words = ['<unk>', '<s>', '</s>', '▁', 'a', 'b', 'ab', '▁a', '<0x0A>']
const zeros = (name: string, ...shape: number[]): TensorBytes => ({
  name,
  shape,
  type: 0,
  data: new Uint8Array(4 * shape.reduce((a, b) => a * b, 1)),
})
const embedding = zeros('token_embd.weight', words.length, 32)
const open = async (metadata: [string, Value][], tensors: TensorBytes[] = [embedding]) =>
  ggufModel(await openGguf(bytesSource('x.gguf', ggufBytes(metadata, tensors))))
const changed = (key: string, value?: Value): [string, Value][] => [
  ...tinyLlama(words).filter(([k]) => k !== key),
  ...(value ? [[key, value] as [string, Value]] : []),
]

const stories = model('stories260K', 'stories260K-f32.gguf')

describe.skipIf(missing(stories))('stories260K', () => {
  it('has the tensors of the safetensors folder, query and key rows in order again', async () => {
    const folder = await openModel(await storeAt(model('stories260K')))
    const gguf = await openModel(await storeAt(stories))
    expect([...folder.tensors.keys()].every((name) => gguf.tensors.has(name))).toBe(true)
    for (const [name, tensor] of folder.tensors) {
      const got = gguf.tensors.get(name)!
      expect([got.name, got.shape]).toEqual([name, tensor.shape])
      expect(Buffer.compare(await got.read(), await tensor.read()), name).toBe(0)
    }
    for (const [key, value] of Object.entries(gguf.config))
      if (key in folder.config && key !== 'tie_word_embeddings') expect(value, key).toEqual(folder.config[key])
  })

  it.skipIf(missing(table('tokenizer_stories260K.json')))('tokenizes as llama.cpp does', async () => {
    const gguf = await openModel(await storeAt(stories))
    const tokenizer = loadTokenizer(gguf.tokenizerJson, gguf.tokenizerConfig)
    const { cases } = JSON.parse(readFileSync(table('tokenizer_stories260K.json'), 'utf8'))
    for (const { text, ids } of cases) expect(tokenizer.encode(text), text).toEqual(ids)
    expect(tokenizer.encode('hi', { addSpecialTokens: true })[0]).toBe(1)
  })
})

describe('pebble', () => {
  for (const kind of ['f16', 'q8_0', 'q4_0']) {
    const file = model('pebble-7m-instruct', 'gguf', `pebble-7m-instruct-${kind}.gguf`)
    const prompts = goldenFile('pebble-7m-instruct', `gguf-${kind}.json`)
    it.skipIf(missing(file) || missing(prompts))(`${kind} is the folder's model`, async () => {
      const folder = await openModel(await storeAt(model('pebble-7m-instruct')))
      const gguf = await openModel(await storeAt(file))
      expect([...gguf.tensors.keys()].sort()).toEqual([...folder.tensors.keys()].sort())
      for (const [name, tensor] of folder.tensors) expect(gguf.tensors.get(name)!.shape).toEqual(tensor.shape)
      for (const [key, value] of Object.entries(gguf.config))
        if (key in folder.config) expect(value, key).toEqual(folder.config[key])
      expect(gguf.generationConfig).toMatchObject({
        bos_token_id: 2045,
        eos_token_id: [2047, 2045],
        pad_token_id: 2045,
      })
      expect(gguf.chatTemplate).toBe(folder.chatTemplate)
      const tokenizer = loadTokenizer(gguf.tokenizerJson, gguf.tokenizerConfig)
      for (const { prompt, promptIds } of Object.values<{ prompt: string; promptIds: number[] }>(
        JSON.parse(readFileSync(prompts, 'utf8')),
      ))
        expect(tokenizer.encode(prompt)).toEqual(promptIds)
      expect(tokenizer.fingerprint).toBe(loadTokenizer(folder.tokenizerJson, folder.tokenizerConfig).fingerprint)
      const name = 'model.layers.3.self_attn.k_proj.weight'
      const [got, want] = await Promise.all([
        readFloats(gguf.tensors.get(name)!),
        readFloats(folder.tensors.get(name)!),
      ])
      const step = { f16: 1e-6, q8_0: 0.01, q4_0: 0.1 }[kind]!
      expect(Math.max(...got.map((v, i) => Math.abs(v - want[i])))).toBeLessThan(step)
    })
  }
})

describe('config', () => {
  it('of a llama with linear scaling and an untied table', async () => {
    const { config, configFile } = await open(
      [
        ...tinyLlama(words, 2),
        ['llama.rope.scaling.type', { string: 'linear' }],
        ['llama.rope.scaling.factor', { f32: 2.5 }],
        ['tokenizer.ggml.eos_token_id', { u32: 2 }],
      ],
      [embedding, zeros('output.weight', words.length, 32)],
    )
    expect(configFile).toBe('x.gguf')
    expect(config).toEqual({
      architectures: ['LlamaForCausalLM'],
      model_type: 'llama',
      vocab_size: words.length,
      hidden_size: 32,
      intermediate_size: 64,
      num_hidden_layers: 2,
      num_attention_heads: 2,
      num_key_value_heads: 1,
      head_dim: 16,
      hidden_act: 'silu',
      rms_norm_eps: 1e-5,
      max_position_embeddings: 64,
      rope_parameters: { rope_type: 'linear', factor: 2.5, rope_theta: 10_000 },
      tie_word_embeddings: false,
      attention_bias: false,
      mlp_bias: false,
      bos_token_id: 1,
      eos_token_id: 2,
      pad_token_id: null,
    })
  })

  it('of a Gemma 3: four norms that have 1 added, windows as llama.cpp knows them', async () => {
    const all = tinyLlama(words, 1)
    const metadata = all.map(([key, value]): (typeof all)[number] => [key.replace('llama.', 'gemma3.'), value])
    metadata[0] = ['general.architecture', { string: 'gemma3' }]
    const norm = (name: string) => {
      const data = new Uint8Array(Float32Array.from({ length: 32 }, (_, i) => 1 + i / 8).buffer)
      return { name, shape: [32], type: 0, data }
    }
    const names = ['attn_norm', 'post_attention_norm', 'ffn_norm', 'post_ffw_norm'].map(
      (name) => `blk.0.${name}.weight`,
    )
    const norms = ['output_norm.weight', ...names].map(norm)
    const { config, tensors } = await open(
      [...metadata, ['gemma3.attention.sliding_window', { u32: 7 }]],
      [embedding, ...norms],
    )
    expect([...tensors.keys()].sort()).toEqual([
      'model.embed_tokens.weight',
      'model.layers.0.input_layernorm.weight',
      'model.layers.0.post_attention_layernorm.weight',
      'model.layers.0.post_feedforward_layernorm.weight',
      'model.layers.0.pre_feedforward_layernorm.weight',
      'model.norm.weight',
    ])
    for (const [name, tensor] of tensors)
      if (name.includes('norm')) {
        expect([...(await readFloats(tensor))]).toEqual(Array.from({ length: 32 }, (_, i) => i / 8))
        expect(new Float32Array((await tensor.read(4, 8)).buffer)).toEqual(Float32Array.of(1 / 8, 2 / 8))
      }
    const { layers, normOffset, family } = parseConfig({ ...config, num_hidden_layers: 6 }, 'x.gguf')
    expect([family, normOffset]).toEqual(['gemma3_text', 1])
    expect(layers.map(({ window, rope }) => [window, rope!.theta])).toEqual([
      ...new Array(5).fill([7, 10_000]),
      [0, 10_000],
    ])
    expect(layers[0]).toMatchObject({ activation: 'gelu_tanh', attentionScale: 1 / 4 })
    await expect(open(metadata, [embedding])).rejects.toThrow('gemma3.attention.sliding_window: is missing')
    const granite = metadata.map(([key, value]): (typeof all)[number] => [key.replace('gemma3.', 'granite.'), value])
    granite[0] = ['general.architecture', { string: 'granite' }]
    await expect(open(granite, [embedding])).rejects.toThrow('granite.embedding_scale: is missing')
  })

  it("has the divisors of Llama 3's scaling", async () => {
    const data = new Uint8Array(Float32Array.of(1, 1, 1, 1, 2, 8, 32, 32).buffer)
    const { config, tensors } = await open(tinyLlama(words), [
      embedding,
      { name: 'rope_freqs.weight', shape: [8], type: 0, data },
    ])
    expect(config.rope_parameters).toEqual({
      rope_type: 'factors',
      factors: [1, 1, 1, 1, 2, 8, 32, 32],
      rope_theta: 10_000,
    })
    expect([...tensors.keys()]).toEqual(['model.embed_tokens.weight'])
  })

  it('of a qwen3 keeps query rows and names the head norms', async () => {
    const metadata = tinyLlama(words).map(([key, value]): [string, Value] => [key.replace('llama.', 'qwen3.'), value])
    metadata[0] = ['general.architecture', { string: 'qwen3' }]
    metadata.push(['qwen3.attention.key_length', { u32: 8 }])
    const rows = Float32Array.from({ length: 16 * 32 }, (_, i) => i)
    const { config, tensors } = await open(metadata, [
      embedding,
      { name: 'blk.0.attn_q.weight', shape: [16, 32], type: 0, data: new Uint8Array(rows.buffer) },
      zeros('blk.0.attn_q_norm.weight', 8),
    ])
    expect([config.model_type, config.head_dim, config.tie_word_embeddings]).toEqual(['qwen3', 8, true])
    expect([...(await readFloats(tensors.get('model.layers.0.self_attn.q_proj.weight')!))]).toEqual([...rows])
    expect(tensors.has('model.layers.0.self_attn.q_norm.weight')).toBe(true)
  })

  const refused: [what: string, metadata: [string, Value][], tensors: TensorBytes[], message: string][] = [
    [
      'another architecture',
      changed('general.architecture', { string: 'mamba' }),
      [embedding],
      '"mamba" is not supported',
    ],
    ['no architecture', changed('general.architecture'), [embedding], 'general.architecture: is missing'],
    ['no layer count', changed('llama.block_count'), [embedding], 'llama.block_count: is missing'],
    ['no heads', changed('llama.attention.head_count', { u32: 0 }), [embedding], 'llama.attention.head_count: is 0'],
    ['heads as text', changed('llama.attention.head_count', { string: '2' }), [embedding], 'is not a size'],
    ['a negative size', changed('llama.embedding_length', { f32: -32 }), [embedding], 'is not a size'],
    ['experts', changed('llama.expert_count', { u32: 8 }), [embedding], 'mixtures of experts'],
    ['a partial rotation', changed('llama.rope.dimension_count', { u32: 8 }), [embedding], 'is not the head size, 16'],
    ['one of several files', changed('split.count', { u32: 3 }), [embedding], 'llama-gguf-split --merge'],
    ['no token table', tinyLlama(words), [], 'token_embd.weight: is missing'],
    [
      'a foreign tensor',
      tinyLlama(words),
      [embedding, zeros('blk.0.ssm_in.weight', 4)],
      'blk.0.ssm_in.weight: is no tensor',
    ],
    ['rows that are no heads', tinyLlama(words), [embedding, zeros('blk.0.attn_q.weight', 3, 32)], 'its 3 rows'],
    ['another tokenizer', changed('tokenizer.ggml.model', { string: 'rwkv' }), [embedding], '"rwkv" is not supported'],
    ['no tokens', changed('tokenizer.ggml.tokens'), [embedding], 'tokenizer.ggml.tokens: is missing'],
    ['no scores', changed('tokenizer.ggml.scores'), [embedding], 'tokenizer.ggml.scores: is missing'],
    ['too few scores', changed('tokenizer.ggml.scores', { f32s: [1] }), [embedding], 'is not a list of 9 scores'],
    ['an id that is none', changed('tokenizer.ggml.eos_token_id', { f32: 0.5 }), [embedding], 'is not a token id'],
  ]
  it.each(['bos', 'eos', 'eot', 'padding', 'unknown'])(
    'passes over the %s token that is in no vocabulary',
    async (name) => {
      for (const id of [9, 0xffffffff]) {
        const key = `tokenizer.ggml.${name}_token_id`
        const told = await open(changed(key, { u32: id }))
        const silent = await open(changed(key))
        expect(told.warnings).toEqual([`x.gguf: ${key}: no token has the id ${id}: passed over`])
        expect(told.tokenizerJson).toEqual(silent.tokenizerJson)
        expect(told.generationConfig).toEqual(silent.generationConfig)
      }
    },
  )

  for (const [what, metadata, tensors, message] of refused)
    it(`refuses ${what}`, async () => {
      const error = await open(metadata, tensors).catch((e) => e)
      expect(error).toBeInstanceOf(FormatError)
      expect(error.message).toContain('x.gguf: ')
      expect(error.message).toContain(message)
    })
})

describe("llama's query and key rows", () => {
  // 2 query heads of 16 rows, in the file with their halves interleaved.
  const rowOrder = Array.from({ length: 32 }, (_, row) => row - (row % 16) + (row % 2) * 8 + Math.floor((row % 16) / 2))
  const random = integers(7)
  const values = Array.from({ length: 32 }, () => Float32Array.from({ length: 32 }, () => random(2001) / 1000 - 1))
  const stored = (encode: (x: Float32Array) => Uint8Array) =>
    new Uint8Array(Buffer.concat(rowOrder.map((row) => encode(values[row]))))
  const floats = (x: Float32Array) => new Uint8Array(x.buffer)

  for (const [kind, type, encode] of [
    ['F32', 0, floats],
    ['Q8_0', 8, quantizeQ8],
  ] as const)
    it(`${kind}: any range is that of the rows in order`, async () => {
      const { tensors } = await open(tinyLlama(words), [
        embedding,
        { name: 'blk.0.attn_q.weight', shape: [32, 32], type, data: stored(encode) },
      ])
      const q = tensors.get('model.layers.0.self_attn.q_proj.weight')!
      const want = Buffer.concat(values.map(encode))
      expect(Buffer.compare(await q.read(), want)).toBe(0)
      await fc.assert(
        fc.asyncProperty(fc.nat(want.length), fc.nat(want.length), async (a, b) => {
          const [from, to] = [Math.min(a, b), Math.max(a, b)]
          expect(Buffer.compare(await q.read(from, to - from), want.subarray(from, to))).toBe(0)
        }),
        { seed: 8, numRuns: 200 },
      )
      await expect(q.read(0, want.length + 1)).rejects.toThrow(FormatError)
    })
})

describe('tokenizer', () => {
  /** llama.cpp's SentencePiece: join the best-scored neighbours, leftmost of equals, until no two make a token. */
  function sentencePiece(text: string, ids: Map<string, number>, scores: number[]): string[] {
    const parts = [...text]
    for (;;) {
      let best = -1
      for (let i = 0; i + 1 < parts.length; i++) {
        const id = ids.get(parts[i] + parts[i + 1])
        if (id !== undefined && (best < 0 || scores[id] > scores[ids.get(parts[best] + parts[best + 1])!])) best = i
      }
      if (best < 0) return parts
      parts.splice(best, 2, parts[best] + parts[best + 1])
    }
  }

  it('SentencePiece: any vocabulary and scores give what joining by score gives', async () => {
    const pieces = fc.uniqueArray(
      fc.string({ unit: fc.constantFrom('a', 'b', 'c', '▁'), minLength: 2, maxLength: 5 }),
      {
        maxLength: 30,
      },
    )
    const text = fc.string({ unit: fc.constantFrom('a', 'b', 'c', ' '), minLength: 1, maxLength: 24 })
    await fc.assert(
      fc.asyncProperty(pieces, fc.array(text, { minLength: 5, maxLength: 5 }), async (made, texts) => {
        const vocabulary = ['<unk>', '<s>', '</s>', 'a', 'b', 'c', '▁', ...made]
        const { tokenizerJson, tokenizerConfig } = await open(tinyLlama(vocabulary))
        const tokenizer = loadTokenizer(tokenizerJson, tokenizerConfig)
        const ids = new Map(vocabulary.map((token, i) => [token, i]))
        const scores = vocabulary.map((_, i) => -i)
        for (const one of texts) {
          const spaced = `▁${one.replaceAll(' ', '▁')}`
          expect(tokenizer.encode(one)).toEqual(sentencePiece(spaced, ids, scores).map((p) => ids.get(p)))
        }
      }),
      { seed: 9, numRuns: 300 },
    )
  })

  const bytePairs = (pre: string, tokens: string[], merges: string[]): [string, Value][] => [
    ...tinyLlama(words).filter(([key]) => !key.startsWith('tokenizer')),
    ['tokenizer.ggml.model', { string: 'gpt2' }],
    ['tokenizer.ggml.pre', { string: pre }],
    ['tokenizer.ggml.tokens', { strings: tokens }],
    ['tokenizer.ggml.merges', { strings: merges }],
    ['tokenizer.ggml.bos_token_id', { u32: 0 }],
  ]
  const pieces = async (pre: string, text: string, addSpecialTokens = false) => {
    const letters = [..."abc123Ġ's"].filter((c, i, all) => all.indexOf(c) === i)
    const tokens = ['<|x|>', ...letters, '12', '123', 'Ġa', 'ab', "'s", 'abc']
    const { tokenizerJson, tokenizerConfig } = await open(bytePairs(pre, tokens, ['1 2', '12 3', 'Ġ a', 'a b', "' s"]))
    const tokenizer = loadTokenizer(tokenizerJson, tokenizerConfig)
    return tokenizer.encode(text, { addSpecialTokens }).map((id) => tokenizer.idToToken(id))
  }

  it('BPE: the pre-tokenizer decides where tokens may not join', async () => {
    expect(await pieces('qwen2', "ab a123's")).toEqual(['ab', 'Ġa', '1', '2', '3', "'s"])
    expect(await pieces('llama-bpe', "ab a123's")).toEqual(['ab', 'Ġa', '123', "'s"])
    expect(await pieces('smollm', 'a123')).toEqual(['a', '1', '2', '3'])
    expect(await pieces('gpt-2', 'a1231')).toEqual(['a', '123', '1'])
    // llama-bpe takes a whole word that is a token, merges or not, and begins with <|x|>.
    expect(await pieces('llama-bpe', 'abc', true)).toEqual(['<|x|>', 'abc'])
    expect(await pieces('gpt-2', 'abc', true)).toEqual(['ab', 'c'])
  })

  it('refuses an unknown pre-tokenizer and merges of unknown tokens', async () => {
    await expect(pieces('no-such', 'a')).rejects.toThrow('tokenizer.ggml.pre: "no-such" is not supported')
    await expect(open(bytePairs('qwen2', ['a', 'b'], ['ab']))).rejects.toThrow('tokenizer.ggml.merges: merge 0 ("ab")')
    const { tokenizerJson, tokenizerConfig } = await open(bytePairs('qwen2', ['a', 'b'], ['a b']))
    expect(() => loadTokenizer(tokenizerJson, tokenizerConfig)).toThrow("the vocabulary lacks 'ab' of merge 0")
  })
})
