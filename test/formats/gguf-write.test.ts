import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { type FloatDType, floatDTypes } from '../../sdk/dtype.ts'
import { FormatError, OptionError } from '../../sdk/errors.ts'
import { openGguf } from '../../sdk/formats/gguf.ts'
import { ggufStream } from '../../sdk/formats/gguf-write.ts'
import { convertedStream, readFloats } from '../../sdk/formats/stored.ts'
import { openModel, type StoredModel } from '../../sdk/formats/stored-model.ts'
import { parseConfig } from '../../sdk/model/config.ts'
import { ropeTable } from '../../sdk/model/rope.ts'
import { fromFloats } from '../../sdk/quant/convert.ts'
import { fittedFloats } from '../../sdk/quant/fit.ts'
import { quantizeModel } from '../../sdk/quantize.ts'
import { bytesSource } from '../../sdk/store/byte-source.ts'
import { storeAt } from '../../sdk/store/store.ts'
import { loadTokenizer } from '../../sdk/text/tokenizer.ts'
import { readAs } from './read-as.ts'
import { missing, model } from './shared.ts'
import { randomFloats, stored, tinySource, tinyTokenizer } from './tiny-source.ts'

const root = mkdtempSync(join(tmpdir(), 'halfling-gguf-'))
afterAll(() => rmSync(root, { recursive: true }))

let files = 0
async function roundTrip(source: StoredModel, dtype: FloatDType) {
  const path = join(root, `${files++}.gguf`)
  const report = await quantizeModel(source, path, { dtype })
  return { path, report, back: await openModel(await storeAt(path)) }
}

const texts = [
  'hello the hello',
  "It's 12 o'clock, the bell's rung 1234 times.\n\n  Spaces   and\ttabs ",
  'a<think> hell</think> <|im_end|>the <|end|>\r\nüñí 漢字 🙂 e\u0301',
  '',
]
const sameText = (a: StoredModel, b: StoredModel, specials = false) => {
  const [one, other] = [a, b].map(({ tokenizerJson, tokenizerConfig }) => loadTokenizer(tokenizerJson, tokenizerConfig))
  for (const text of texts)
    expect(other.encode(text, { addSpecialTokens: specials }), text).toEqual(
      one.encode(text, { addSpecialTokens: specials }),
    )
  for (const key of ['eosTokenId', 'padTokenId'] as const) expect(other[key], key).toBe(one[key])
  return one.encode(texts[1]).length
}

describe('a file', () => {
  it('has every type of value, and tensors that begin at multiples of 32', async () => {
    const floats = randomFloats(96, 1)
    const f32 = stored('f', 'F32', [3, 32], fromFloats(floats, 'f32'))
    const tensors = floatDTypes.map((dtype) => convertedStream({ ...f32, name: dtype }, dtype))
    const chunks: Uint8Array[] = []
    const metadata = new Map([
      ['a', { u32: 4_000_000_000 }],
      ['b', { f32: 1e-6 }],
      ['c', { bool: true }],
      ['d', { string: '\uFEFFünï' }],
      ['e', { strings: ['', 'x'.repeat(100_000), '漢'] }],
      ['f', { i32s: [-1, 2] }],
      ['g', { f32s: [0.5] }],
    ])
    for await (const chunk of ggufStream(metadata, tensors)) chunks.push(chunk)
    const bytes = Buffer.concat(chunks)
    const file = await openGguf(bytesSource('x.gguf', bytes))
    expect(file.version).toBe(3)
    expect(Object.fromEntries(file.metadata)).toEqual({
      a: 4_000_000_000,
      b: Math.fround(1e-6),
      c: true,
      d: '\uFEFFünï',
      e: ['', 'x'.repeat(100_000), '漢'],
      f: Int32Array.of(-1, 2),
      g: Float32Array.of(0.5),
    })
    for (const { name, dtype, shape, bytes } of tensors) {
      const got = file.tensors.get(name)!
      expect([got.dtype, got.shape, got.bytes]).toEqual([dtype, shape, bytes])
      expect(await got.read()).toEqual(fittedFloats(floats, name as 'f32'))
    }
    expect(bytes.length % 32).toBe(0)
    await expect(ggufStream(metadata, [tensors[0], tensors[0]]).next()).rejects.toThrow('f32: this name is taken')
  })
})

describe('a model', () => {
  const families: [what: string, changes: Record<string, unknown>][] = [
    ['llama', {}],
    [
      'llama with biases everywhere, its own head',
      { attention_bias: true, mlp_bias: true, tie_word_embeddings: false },
    ],
    ['llama with linear scaling', { rope_parameters: { rope_type: 'linear', factor: 2.5, rope_theta: 5e5 } }],
    [
      'qwen2 with yarn',
      {
        model_type: 'qwen2',
        rope_parameters: {
          rope_type: 'yarn',
          factor: 4,
          original_max_position_embeddings: 16,
          beta_fast: 24,
          rope_theta: 1e6,
        },
      },
    ],
    ['qwen2', { model_type: 'qwen2' }],
    ['smollm3', { model_type: 'smollm3', num_hidden_layers: 4 }],
    [
      'granite',
      {
        model_type: 'granite',
        embedding_multiplier: 12,
        residual_multiplier: 0.25,
        attention_multiplier: 0.5,
        logits_scaling: 8,
      },
    ],
    ['minicpm', { model_type: 'minicpm', num_hidden_layers: 4, scale_emb: 12, scale_depth: 1, dim_model_base: 8 }],
    ['qwen3 with wide heads', { model_type: 'qwen3', head_dim: 16 }],
  ]
  for (const [what, changes] of families)
    it(`${what} is the same model again`, async () => {
      const source = tinySource(changes)
      const { back, report } = await roundTrip(source, 'f32')
      expect(parseConfig(back.config, 'back')).toEqual(parseConfig(source.config, 'source'))
      expect([...back.tensors.keys()].sort()).toEqual([...source.tensors.keys()].sort())
      for (const [name, tensor] of source.tensors)
        expect(await readFloats(back.tensors.get(name)!), name).toEqual(await readFloats(tensor))
      expect(report.relativeError).toBe(0)
      expect(back.generationConfig).toEqual({ bos_token_id: 256, eos_token_id: [257, 256], pad_token_id: 258 })
      expect(back.chatTemplate).toBe(source.chatTemplate)
      sameText(source, back)
    })

  it("stores llama's query and key rows as llama.cpp wants them", async () => {
    const source = tinySource()
    const { path } = await roundTrip(source, 'f32')
    const bytes = readFileSync(path)
    const file = await openGguf(bytesSource(path, bytes))
    const name = 'model.layers.1.self_attn.k_proj.weight'
    const [theirs, ours] = [
      await readFloats(file.tensors.get('blk.1.attn_k.weight')!),
      await readFloats(source.tensors.get(name)!),
    ]
    const row = (of: Float32Array, i: number) => of.subarray(32 * i, 32 * i + 32)
    // Two heads of 8 rows: the first half of a head in its even rows, the second in its odd ones.
    const places = [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]
    for (const [at, from] of places.entries()) expect(row(theirs, at)).toEqual(row(ours, from))
  })

  const kinds = [
    ['q8', 'Q8_0', 'Q8_0', 'q8', 'q8'],
    ['q4a', 'Q4_1', 'Q8_0', 'q4a', 'q8'],
    ['q4', 'Q4_0', 'Q8_0', 'q4', 'q8'],
    ['f16', 'F16', 'F16', 'f16', 'f16'],
    ['bf16', 'BF16', 'BF16', 'bf16', 'bf16'],
  ] as const
  for (const [dtype, matrix, table, matrixType, tableType] of kinds)
    it(`in ${dtype} has matrices of ${matrix}, a table of ${table} and vectors of F32`, async () => {
      const source = tinySource({ model_type: 'qwen2' })
      const { back } = await roundTrip(source, dtype)
      for (const [name, tensor] of source.tensors) {
        const got = back.tensors.get(name)!
        const vector = tensor.shape.length === 1
        expect(got.dtype, name).toBe(vector ? 'F32' : /embed/.test(name) ? table : matrix)
        const wanted = vector ? 'f32' : /embed/.test(name) ? tableType : matrixType
        expect(await got.read(), name).toEqual(fittedFloats(await readFloats(tensor), wanted))
      }
    })

  it('keeps rows that are no multiple of 32 in F16', async () => {
    const { back } = await roundTrip(tinySource({ intermediate_size: 48 }), 'q4')
    expect(back.tensors.get('model.layers.0.mlp.down_proj.weight')!.dtype).toBe('F16')
    expect(back.tensors.get('model.layers.0.mlp.up_proj.weight')!.dtype).toBe('Q4_0')
  })

  it("has Llama 3's scaling as divisors", async () => {
    const llama3 = {
      rope_type: 'llama3',
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 64,
      rope_theta: 100,
    }
    const source = tinySource({ head_dim: 16, max_position_embeddings: 128, rope_parameters: llama3 })
    const { back } = await roundTrip(source, 'f32')
    const { rope_type: type, factors } = back.config.rope_parameters as { rope_type: string; factors: number[] }
    expect(type).toBe('factors')
    // High frequencies stay, low ones are divided by the factor, and some lie between.
    expect([factors[0], factors.at(-1)]).toEqual([1, 8])
    expect(factors.filter((f) => f > 1 && f < 8).length).toBeGreaterThan(0)
    const [a, b] = [parseConfig(source.config, 'a'), parseConfig(back.config, 'b')]
    const [want, got] = [a, b].map(({ layers: [{ rope }] }) => ropeTable(rope!, { shape: [128, 16] }))
    for (const [i, x] of want.entries()) expect(Math.abs(got[i] - x)).toBeLessThan(2e-5)
    const yarn = { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 16, rope_theta: 1e6 }
    for (const more of [{ attention_factor: 1 }, { mscale: 1, mscale_all_dim: 2 }, { truncate: false }])
      await expect(roundTrip(tinySource({ rope_parameters: { ...yarn, ...more } }), 'f32')).rejects.toThrow(
        'an attention_factor, mscale or truncate of "yarn" has no place in GGUF',
      )
    const qwen = tinySource({ model_type: 'qwen2', rope_parameters: llama3 })
    await expect(roundTrip(qwen, 'f32')).rejects.toThrow('rope scaling "llama3" of a qwen2 has no place in GGUF')
  })

  it('is made of a GGUF file too, and stays what it was', async () => {
    const { back, path } = await roundTrip(tinySource({ attention_bias: true }), 'q8')
    const again = await roundTrip(back, 'q8')
    const [one, other] = await Promise.all(
      [path, again.path].map(async (p) => openGguf(bytesSource(p, readFileSync(p)))),
    )
    expect([...other.tensors.keys()]).toEqual([...one.tensors.keys()])
    for (const [name, tensor] of one.tensors) expect(await other.tensors.get(name)!.read()).toEqual(await tensor.read())
    for (const [key, value] of one.metadata)
      if (key !== 'general.name') expect(other.metadata.get(key), key).toEqual(value)
    const folder = join(root, 'folder')
    await quantizeModel(again.back, folder, { dtype: 'q8' })
    const asFolder = await openModel(await storeAt(folder))
    const name = 'model.layers.1.self_attn.q_proj.weight'
    expect(await asFolder.tensors.get(name)!.read()).toEqual(await back.tensors.get(name)!.read())
  })

  it('is not written over unless told to, and not there after an interruption', async () => {
    const { path } = await roundTrip(tinySource(), 'q8')
    const before = readFileSync(path)
    await expect(quantizeModel(tinySource(), path, { dtype: 'q4' })).rejects.toThrow(OptionError)
    const stop = new AbortController()
    const options = { dtype: 'q4', force: true, signal: stop.signal, onProgress: () => stop.abort() } as const
    const there = readdirSync(root)
    await expect(quantizeModel(tinySource(), path, options)).rejects.toThrow('aborted')
    expect(readFileSync(path)).toEqual(before)
    expect(readdirSync(root)).toEqual(there)
    await quantizeModel(tinySource(), path, { dtype: 'q4', force: true })
    expect(readFileSync(path).length).toBeLessThan(before.length)
  })
})

describe('a tokenizer', () => {
  type Json = Record<string, unknown>
  const split = (Regex: string) => ({ type: 'Split', pattern: { Regex }, behavior: 'Isolated', invert: false })
  const bytes = (use_regex: boolean) => ({ type: 'ByteLevel', add_prefix_space: false, use_regex })
  const pre = (...pretokenizers: unknown[]) => ({ pre_tokenizer: { type: 'Sequence', pretokenizers } })
  const qwen2 = ((tinyTokenizer().pre_tokenizer as Json).pretokenizers as Json[])[0].pattern as { Regex: string }
  const plain = { normalizer: null }
  const named: [name: string, changes: Json, model?: Json][] = [
    ['qwen2', {}],
    ['qwen2', pre({ ...split(qwen2.Regex), behavior: 'Removed', invert: true }, bytes(false))],
    ['qwen2', {}, { merges: ['h e', 'l l', 'he ll', 'hell o', 'Ġ t', 'Ġt he'] }],
    ['gpt-2', { ...plain, pre_tokenizer: bytes(true) }],
    ['starcoder', { ...plain, ...pre({ type: 'Digits', individual_digits: true }, bytes(true)) }],
    [
      'llama-bpe',
      { ...plain, ...pre(split(qwen2.Regex.replace('|\\p{N}|', '|\\p{N}{1,3}|')), bytes(false)) },
      { ignore_merges: true },
    ],
    ['dbrx', { ...plain, ...pre(split(qwen2.Regex.replace('|\\p{N}|', '|\\p{N}{1,3}|')), bytes(false)) }],
  ]
  const changed = (changes: Json, model: Json = {}): Json => {
    const json = tinyTokenizer()
    return { ...json, ...changes, model: { ...(json.model as Json), ...model } }
  }
  for (const [name, changes, model] of named)
    it(`of ${name} splits text as before (${JSON.stringify([changes, model]).length} characters of JSON)`, async () => {
      const source = tinySource({}, changed(changes, model))
      const { back, path } = await roundTrip(source, 'q8')
      const file = await openGguf(bytesSource(path, readFileSync(path)))
      expect(file.metadata.get('tokenizer.ggml.pre')).toBe(name)
      sameText(source, back)
    })

  it('names its rows: control, user-defined and unused ones', async () => {
    const source = tinySource()
    const { back, path } = await roundTrip(source, 'q8')
    const [one, other] = [source, back].map((s) => loadTokenizer(s.tokenizerJson, s.tokenizerConfig))
    expect(other.fingerprint).toBe(one.fingerprint)
    const { metadata } = await openGguf(bytesSource(path, readFileSync(path)))
    const [tokens, types] = ['tokens', 'token_type'].map((key) => metadata.get(`tokenizer.ggml.${key}`) as string[])
    expect([tokens.length, types.length]).toEqual([290, 290])
    expect([...tokens.slice(255, 261), ...tokens.slice(288)]).toEqual([
      'ÿ',
      '<|end|>',
      '<|im_end|>',
      '<|pad|>',
      '<think>',
      'he',
      '[PAD288]',
      '[PAD289]',
    ])
    expect([...types.slice(255, 261), ...types.slice(288)]).toEqual([1, 3, 3, 3, 4, 1, 5, 5])
    expect(metadata.get('tokenizer.ggml.merges')).toEqual(['h e', 'l l', 'he ll', 'hell o', 'Ġ t', 'Ġt he'])
    expect(metadata.get('tokenizer.ggml.eos_token_id')).toBe(257)
    expect(metadata.get('tokenizer.ggml.add_bos_token')).toBe(false)
  })

  it('says whether it puts a token before the text', async () => {
    const source = {
      ...tinySource(),
      tokenizerConfig: { bos_token: '<|end|>', eos_token: '<|im_end|>', add_bos_token: true },
    }
    const { back } = await roundTrip(source, 'q8')
    sameText(source, back, true)
    expect(loadTokenizer(back.tokenizerJson, back.tokenizerConfig).encode('h', { addSpecialTokens: true })[0]).toBe(256)
  })

  const token = (flag: string) => ({ added_tokens: [{ ...(tinyTokenizer().added_tokens as Json[])[0], [flag]: true }] })
  /** Without the byte of NUL, with a token for what is unknown. */
  const lacking = {
    changes: {},
    model: {
      vocab: Object.fromEntries(
        Object.entries((tinyTokenizer().model as { vocab: object }).vocab).filter(([token]) => token !== '\u0100'),
      ),
      unk_token: '<|end|>',
    },
  }
  const refused: [what: string, json: Json, message: string][] = [
    ['an unknown way to split', changed(pre(split('\\w+|\\W+'), bytes(false))), 'its pre_tokenizer is none of those'],
    ['no bytes', changed({ pre_tokenizer: split(qwen2.Regex) }), 'it is not byte-level'],
    ['another step', changed(pre({ type: 'Punctuation' }, bytes(true))), 'its pre_tokenizer has a step Punctuation'],
    ["qwen2's split without NFC", changed({ normalizer: null }), 'its pre_tokenizer is none of those'],
    ["gpt-2's split with NFC", changed({ pre_tokenizer: bytes(true) }), 'its pre_tokenizer is none of those'],
    ['an unknown-token of bytes', changed(lacking.changes, lacking.model), 'GGUF cannot hold how it reads text'],
    ['lower case', changed({ normalizer: { type: 'Lowercase' } }), 'its normalizer is Lowercase'],
    ['a suffix', changed({}, { end_of_word_suffix: '</w>' }), 'has a end_of_word_suffix'],
    ['tokens that eat spaces', changed(token('rstrip')), "token '<|end|>' takes the spaces around it"],
    ['word pieces', changed({}, { type: 'WordPiece', unk_token: '<|end|>' }), 'its model is WordPiece, not BPE'],
    [
      'merges of SentencePiece that are not all there',
      changed(
        { pre_tokenizer: null, normalizer: null },
        {
          byte_fallback: true,
          merges: [
            ['h', 'e'],
            ['l', 'l'],
            ['hell', 'o'],
          ],
        },
      ),
      'its merges are not those of SentencePiece',
    ],
  ]
  for (const [what, json, message] of refused)
    it(`refuses ${what}`, async () => {
      const there = readdirSync(root)
      const error = await roundTrip(tinySource({}, json), 'q8').catch((e) => e)
      expect(error).toBeInstanceOf(FormatError)
      expect(error.message).toContain(`tokenizer.json: ${message}`)
      expect(readdirSync(root)).toEqual(there)
    })
})

describe('trained models', () => {
  for (const name of ['stories260K', 'pebble-7m-instruct'])
    it.skipIf(missing(model(name)))(`${name} keeps its weights, and reads text alike`, async () => {
      const source = await openModel(await storeAt(model(name)))
      const { back } = await roundTrip(source, 'q8')
      expect(parseConfig(back.config, 'back')).toEqual(parseConfig(source.config, 'source'))
      for (const [key, tensor] of source.tensors) {
        const got = back.tensors.get(key)!
        const dtype = { F32: 'f32', F16: 'f16', Q8_0: 'q8' }[got.dtype as 'F32']!
        expect(Buffer.compare(await got.read(), await readAs(tensor, dtype as 'f32')), key).toBe(0)
      }
      expect(sameText(source, back)).toBeGreaterThan(10)
      sameText(source, back, true)
    })

  const q8 = model('pebble-7m-instruct', 'gguf', 'pebble-7m-instruct-q8_0.gguf')
  it.skipIf(missing(q8))("are what llama.cpp's own tools make of them", async () => {
    const source = await openModel(await storeAt(model('pebble-7m-instruct')))
    const { path } = await roundTrip(source, 'q8')
    const [theirs, ours] = await Promise.all([q8, path].map(async (p) => openGguf(bytesSource(p, readFileSync(p)))))
    expect([...ours.tensors.keys()].sort()).toEqual([...theirs.tensors.keys()].sort())
    for (const [name, tensor] of theirs.tensors)
      expect(Buffer.compare(await ours.tensors.get(name)!.read(), await tensor.read()), name).toBe(0)
    for (const [key, value] of theirs.metadata)
      if (key !== 'general.name') expect(ours.metadata.get(key), key).toEqual(value)
  })
})
