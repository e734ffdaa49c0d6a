import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { FormatError, OptionError } from '../../sdk/errors.ts'
import { compressedConfig, compressedTensor, uncompressed } from '../../sdk/formats/compressed.ts'
import { openSafetensors, safetensorsStream } from '../../sdk/formats/safetensors.ts'
import { readFloats, type StoredTensor } from '../../sdk/formats/stored.ts'
import { openModel } from '../../sdk/formats/stored-model.ts'
import { dequantizeQ8, quantizeQ8 } from '../../sdk/quant/blocks.ts'
import { fromFloats } from '../../sdk/quant/convert.ts'
import { quantizeModel } from '../../sdk/quantize.ts'
import { bytesSource } from '../../sdk/store/byte-source.ts'
import { storeAt } from '../../sdk/store/store.ts'
import { expectAnyRange } from './ranges.ts'
import { readAs } from './read-as.ts'
import { randomFloats, stored, tinySource } from './tiny-source.ts'

const root = mkdtempSync(join(tmpdir(), 'halfling-compressed-'))
afterAll(() => rmSync(root, { recursive: true }))

const config = { model_type: 'llama', quantization_config: compressedConfig(['lm_head']) }
const name = 'a.weight'
const values = randomFloats(6 * 64, 1)
const original = stored(name, 'F32', [6, 64], fromFloats(values, 'f32'))

async function written(tensor: StoredTensor): Promise<ReadonlyMap<string, StoredTensor>> {
  const chunks: Uint8Array[] = []
  for await (const chunk of safetensorsStream(compressedTensor(tensor))) chunks.push(chunk)
  return (await openSafetensors(bytesSource('x.safetensors', Buffer.concat(chunks)))).tensors
}

describe('a pair of tensors', () => {
  it('is int8 and one f16 scale for 32 numbers, and reads as the q8 blocks that it was made of', async () => {
    const pair = await written(original)
    expect([...pair.values()].map(({ name, dtype, shape }) => [name, dtype, shape])).toEqual([
      ['a.weight_scale', 'F16', [6, 2]],
      ['a.weight', 'I8', [6, 64]],
    ])
    const { config: rest, tensors } = uncompressed(config, 'config.json', pair)
    expect(rest).toEqual({ model_type: 'llama' })
    expect([...tensors.keys()]).toEqual([name])
    const joined = tensors.get(name)!
    expect([joined.dtype, joined.shape, joined.bytes]).toEqual(['Q8_0', [6, 64], 12 * 34])
    const blocks = quantizeQ8(values)
    expect(await joined.read()).toEqual(blocks)
    expect(await readFloats(joined)).toEqual(dequantizeQ8(blocks))
    // And once more: nothing is rounded twice.
    const again = uncompressed(config, 'config.json', await written(joined)).tensors.get(name)!
    expect(await again.read()).toEqual(blocks)
  })

  it('reads any range', async () => {
    const joined = uncompressed(config, 'config.json', await written(original)).tensors.get(name)!
    const blocks = quantizeQ8(values)
    await expectAnyRange(joined, blocks)
  })
})

describe('refuses', () => {
  const quantization = compressedConfig([]) as { config_groups: { group_0: { weights: object } } }
  const group = (changes: object) => ({
    config_groups: { group_0: { ...quantization.config_groups.group_0, ...changes } },
  })
  const weights = (changes: object) => group({ weights: { ...quantization.config_groups.group_0.weights, ...changes } })
  const kinds: [what: string, changes: Record<string, unknown>, key: string][] = [
    ['bitsandbytes', { quant_method: 'bitsandbytes' }, 'quant_method'],
    ['fp8', { quant_method: 'fp8' }, 'quant_method'],
    ['packed weights', { format: 'pack-quantized' }, 'format'],
    ['a packed group', group({ format: 'pack-quantized' }), 'config_groups.group_0.format'],
    ['four bits', weights({ num_bits: 4 }), 'config_groups.group_0.weights.num_bits'],
    ['floats', weights({ type: 'float' }), 'config_groups.group_0.weights.type'],
    ['one scale a row', weights({ strategy: 'channel', group_size: null }), 'config_groups.group_0.weights.strategy'],
    ['groups of 128', weights({ group_size: 128 }), 'config_groups.group_0.weights.group_size'],
    ['zero points', weights({ symmetric: false }), 'config_groups.group_0.weights.symmetric'],
    ['quantized activations', group({ input_activations: { num_bits: 8 } }), 'config_groups.group_0.input_activations'],
    ['a quantized cache', { kv_cache_scheme: { num_bits: 8 } }, 'kv_cache_scheme'],
    ['a model that is not quantized yet', { quantization_status: 'calibration' }, 'quantization_status'],
    ['no groups', { config_groups: null }, 'config_groups'],
  ]
  for (const [what, changes, key] of kinds)
    it(what, () => {
      const other = { ...config, quantization_config: { ...quantization, ...changes } }
      const read = () => uncompressed(other, 'm/config.json', new Map())
      expect(read).toThrow(FormatError)
      expect(read).toThrow(`m/config.json: quantization_config.${key}: `)
      expect(read).toThrow('supported is compressed-tensors of 8 bits: int, symmetric, groups of 32, weights only')
    })

  const zeros = (name: string, dtype: 'I8' | 'F16' | 'BF16', shape: number[], bytes: number) =>
    stored(name, dtype, shape, new Uint8Array(bytes))
  const int8 = zeros(name, 'I8', [2, 64], 128)
  const scale = zeros(`${name}_scale`, 'F16', [2, 2], 8)
  const pairs: [what: string, tensors: StoredTensor[], message: string][] = [
    ['a missing scale', [int8], 'a.weight: is quantized, but a.weight_scale is missing'],
    ['a scale of another shape', [int8, { ...scale, shape: [4, 1] }], 'a.weight_scale: expected [2, 2], got [4, 1]'],
    ['a scale of another type', [int8, zeros(scale.name, 'BF16', [2, 2], 8)], 'a.weight_scale: BF16 is not supported'],
    ['a scale of nothing', [scale], 'a.weight_scale: there is no a.weight of dtype I8 to scale'],
    ['rows that are no groups', [zeros(name, 'I8', [2, 48], 96), scale], 'a.weight: [2, 48] is no matrix with rows'],
    ['a vector', [zeros(name, 'I8', [64], 64), scale], 'a.weight: [64] is no matrix'],
    ['zero points', [int8, scale, zeros(`${name}_zero_point`, 'I8', [2, 2], 4)], 'a.weight_zero_point: belongs to'],
  ]
  for (const [what, tensors, message] of pairs)
    it(`${what} among the tensors`, () => {
      const read = () => uncompressed(config, 'config.json', new Map(tensors.map((t) => [t.name, t])))
      expect(read).toThrow(FormatError)
      expect(read).toThrow(`tiny: ${message}`)
    })

  for (const [what, high] of [
    ['NaN', 0x7e],
    ['infinite', 0xfc],
  ] as const)
    it(`a scale that is ${what}`, async () => {
      const bytes = new Uint8Array(8)
      bytes[5] = high
      const tensors = new Map([int8, stored(scale.name, 'F16', [2, 2], bytes)].map((t) => [t.name, t]))
      const joined = uncompressed(config, 'config.json', tensors).tensors.get(name)!
      await expect(readAs(joined, 'f32')).rejects.toThrow('tiny: a.weight_scale: number 2 is not finite')
      // The blocks before it can be read.
      expect((await joined.read(0, 68)).every((byte) => byte === 0)).toBe(true)
    })
})

describe('a folder in q8', () => {
  const folder = join(root, 'q8')

  it('has matrices in q8, tables in f16 and vectors in f32, and loads as that', async () => {
    const source = tinySource({ tie_word_embeddings: false })
    const report = await quantizeModel(source, folder, { dtype: 'q8' })
    const back = await openModel(await storeAt(folder))
    const { quantization_config: quantization } = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8'))
    expect(quantization).toEqual(compressedConfig(['lm_head']))
    expect(back.config).toEqual({ ...source.config, dtype: 'float16' })
    expect([back.generationConfig, back.tokenizerJson, back.tokenizerConfig, back.chatTemplate]).toEqual([
      source.generationConfig,
      source.tokenizerJson,
      source.tokenizerConfig,
      source.chatTemplate,
    ])
    expect([...back.tensors.keys()].sort()).toEqual([...source.tensors.keys()].sort())
    let [squares, errors] = [0, 0]
    for (const [name, tensor] of source.tensors) {
      const dtype = tensor.shape.length === 1 ? 'f32' : /embed|lm_head/.test(name) ? 'f16' : 'q8'
      const got = back.tensors.get(name)!
      expect(got.dtype, name).toBe({ f32: 'F32', f16: 'F16', q8: 'Q8_0' }[dtype])
      expect(await got.read(), name).toEqual(await readAs(tensor, dtype))
      const [before, after] = [await readFloats(tensor), await readFloats(got)]
      for (const [i, x] of before.entries()) {
        squares += x ** 2
        errors += (x - after[i]) ** 2
      }
    }
    expect(report.relativeError).toBeCloseTo(Math.sqrt(errors / squares), 12)
    expect(report.parts.map(({ part, dtype, weights }) => [part, dtype, weights])).toEqual([
      ['embedding', 'f16', 290 * 32],
      ['vectors', 'f32', 5 * 32],
      ['attention', 'q8', 2 * (32 + 16 + 16 + 32) * 32],
      ['mlp', 'q8', 2 * 3 * 64 * 32],
      ['head', 'f16', 290 * 32],
    ])
    const q8Bytes = (2 * (96 + 3 * 64) * 32 * 34) / 32
    expect([report.inputBytes, report.outputBytes]).toEqual([
      2 * (2 * 290 * 32 + 160 + 2 * (96 + 192) * 32),
      4 * 290 * 32 + 4 * 160 + q8Bytes,
    ])
  })

  it('names the modules that stay as they are', async () => {
    const odd = join(root, 'odd')
    await quantizeModel(tinySource({ intermediate_size: 48 }), odd, { dtype: 'q8' })
    const back = await openModel(await storeAt(odd))
    const { quantization_config: quantization } = JSON.parse(readFileSync(join(odd, 'config.json'), 'utf8'))
    const downs = [0, 1].map((layer) => `model.layers.${layer}.mlp.down_proj`)
    expect(quantization.ignore).toEqual(['lm_head', ...downs])
    expect(back.tensors.get(`${downs[1]}.weight`)!.dtype).toBe('F16')
  })

  it('is not written over, unless told to, nor over anything but a model', async () => {
    const before = readFileSync(join(folder, 'model.safetensors'))
    await expect(quantizeModel(tinySource(), folder, { dtype: 'f32' })).rejects.toThrow(OptionError)
    expect(readFileSync(join(folder, 'model.safetensors'))).toEqual(before)
    writeFileSync(join(folder, 'stale.txt'), '')
    await quantizeModel(tinySource(), folder, { dtype: 'f32', force: true })
    expect(readdirSync(folder).sort()).toEqual([
      'chat_template.jinja',
      'config.json',
      'generation_config.json',
      'model.safetensors',
      'tokenizer.json',
      'tokenizer_config.json',
    ])
    // This folder holds folders.
    await expect(quantizeModel(tinySource(), root, { dtype: 'f32', force: true })).rejects.toThrow(
      'is not replaced, it holds more than a model',
    )
    await expect(
      quantizeModel(tinySource(), join(folder, 'config.json'), { dtype: 'f32', force: true }),
    ).rejects.toThrow('is a file')
  })

  it('may replace the model that it is made of', async () => {
    const own = join(root, 'own')
    await quantizeModel(tinySource(), own, { dtype: 'bf16' })
    await quantizeModel(own, own, { dtype: 'q8', force: true })
    const [back, source] = [await openModel(await storeAt(own)), tinySource()]
    const name = 'model.layers.1.mlp.up_proj.weight'
    expect(await back.tensors.get(name)!.read()).toEqual(await readAs(source.tensors.get(name)!, 'q8'))
  })

  it('is not there after an interruption or an error', async () => {
    const there = readdirSync(root)
    const stop = new AbortController()
    const reason = new Error('enough')
    const options = { dtype: 'q8', signal: stop.signal, onProgress: () => stop.abort(reason) } as const
    await expect(quantizeModel(tinySource(), join(root, 'x'), options)).rejects.toBe(reason)
    const name = 'model.layers.0.self_attn.k_proj.weight'
    const { tensors, ...source } = tinySource()
    const large = stored(name, 'F32', [16, 32], fromFloats(new Float32Array(512).fill(1e38), 'f32'))
    for (const dtype of ['q8', 'f16'] as const) {
      const broken = { ...source, tensors: new Map([...tensors, [name, large]]) }
      const error = await quantizeModel(broken, join(root, 'x'), { dtype }).catch((e) => e)
      expect(error).toBeInstanceOf(FormatError)
      expect(error.message).toContain(`tiny: ${name}: has weights that are no numbers, or too large for ${dtype}`)
    }
    await expect(quantizeModel(tinySource(), join(root, 'x'), { dtype: 'q4' })).rejects.toThrow(
      'q4 is written as GGUF only',
    )
    expect(readdirSync(root)).toEqual(there)
  })
})
