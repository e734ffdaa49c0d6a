import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { FormatError } from '../../sdk/errors.ts'
import { unquantized } from '../../sdk/formats/quantized.ts'
import type { TensorData } from '../../sdk/formats/safetensors.ts'
import { readFloats, type StoredTensor } from '../../sdk/formats/stored.ts'
import { openModel } from '../../sdk/formats/stored-model.ts'
import { scoreExamples } from '../../sdk/generate/score.ts'
import { loadModel } from '../../sdk/load.ts'
import { fromFloats } from '../../sdk/quant/convert.ts'
import { numberToHalf } from '../../sdk/quant/float16.ts'
import { quantizeModel } from '../../sdk/quantize.ts'
import { storeAt } from '../../sdk/store/store.ts'
import {
  awq,
  awqConfig,
  config,
  type GptqKind,
  gptq,
  gptqConfig,
  mlx,
  mlxConfig,
  type Pack,
  packedModel,
  writeFolder,
} from './packed-files.ts'
import { expectAnyRange } from './ranges.ts'
import { stored } from './tiny-source.ts'

const root = mkdtempSync(join(tmpdir(), 'halfling-packed-'))
afterAll(() => rmSync(root, { recursive: true }))

const sizes = [32, 64, 128]
const kinds: [what: string, groupSize: number, pack: Pack, own: object, isMlx: boolean][] = [
  ...sizes.flatMap((g): (typeof kinds)[number][] => [
    [`awq ${g}`, g, awq(g), awqConfig(g), false],
    [`gptq ${g}`, g, gptq(g, { format: 'gptq' }), gptqConfig(g, { format: 'gptq' }), false],
    [`mlx ${g}`, g, mlx(g, 'F16'), mlxConfig(g), true],
  ]),
  ['gptq v2', 64, gptq(64, { format: 'gptq_v2' }), gptqConfig(64, { format: 'gptq_v2' }), false],
  ['gptq sym', 64, gptq(64, { format: 'gptq', sym: true }), gptqConfig(64, { format: 'gptq', sym: true }), false],
  // As some writers do: zeros as in v2 under the name of v1.
  ['gptq sym v2', 64, gptq(64, { format: 'gptq_v2', sym: true }), gptqConfig(64, { format: 'gptq', sym: true }), false],
  ['mlx bf16', 64, mlx(64, 'BF16'), mlxConfig(64), true],
  ['mlx f32', 64, mlx(64, 'F32'), mlxConfig(64), true],
]

/** The largest share of its bound that a value is off by; where the bound is 0, any is too much. */
function worst(values: Float32Array, wanted: Float64Array, bounds: Float64Array): number {
  expect(values.length).toBe(wanted.length)
  let most = 0
  for (let i = 0; i < values.length; i++) {
    const off = Math.abs(values[i] - wanted[i])
    if (off !== 0) most = Math.max(most, off / bounds[i])
  }
  return most
}

const f32Folder = async (path: string, source: ReadonlyMap<string, StoredTensor>): Promise<string> => {
  const tensors: TensorData[] = []
  for (const [name, tensor] of source) {
    const data = fromFloats(await readFloats(tensor), 'f32')
    tensors.push({ name, dtype: 'F32', shape: tensor.shape, data })
  }
  return writeFolder(path, tensors, {})
}

const ids = [5, 72, 101, 260, 33, 289, 0, 140, 7, 7, 81]
const examples = [{ inputIds: ids, labels: [-100, ...ids.slice(1)], row: 0 }]

async function logProbs(folder: string): Promise<Float32Array> {
  const lm = await loadModel(folder, { device: 'wasm', threads: 1, onWarning: () => {} })
  try {
    return (await scoreExamples(lm.model, examples))[0]
  } finally {
    await lm.close()
  }
}

describe.each(kinds)('%s', (what, _, pack, own, isMlx) => {
  const { tensors, matrices } = packedModel(pack, isMlx)
  const folder = writeFolder(join(root, what), tensors, own)

  it('opens as q4a, with the values of its formula', async () => {
    const model = await openModel(await storeAt(folder))
    expect(model.config).toEqual(config)
    expect(model.warnings).toEqual([])
    expect(matrices.size).toBe(isMlx ? 15 : 14)
    for (const [name, { values, bounds }] of matrices) {
      const tensor = model.tensors.get(name)!
      expect([tensor.dtype, tensor.shape.reduce((a, b) => a * b)]).toEqual(['Q4_1', values.length])
      expect(worst(await readFloats(tensor), values, bounds), name).toBeLessThanOrEqual(1)
    }
    // What is not quantized is as it was, and nothing else is there.
    const plain = tensors.filter(({ dtype, name }) => dtype === 'F16' && !/scales|biases/.test(name))
    expect([...model.tensors.keys()].sort()).toEqual([...matrices.keys(), ...plain.map(({ name }) => name)].sort())
    for (const { name, data } of plain) expect(await model.tensors.get(name)!.read()).toEqual(data)
  })
})

describe('a range of a tensor', () => {
  it.each(kinds.slice(0, 3))('%s: is that of the whole', async (_, __, pack, own) => {
    const { values } = pack('a', 16, 256, 7)
    const tensors = new Map(
      pack('a', 16, 256, 7).tensors.map((t) => [t.name, stored(t.name, t.dtype, t.shape, t.data)]),
    )
    const found = await unquantized(own as Record<string, unknown>, 'config.json', tensors)
    const tensor = found.tensors.get('a.weight')!
    const whole = await tensor.read()
    expect(whole.length).toBe((values.length / 32) * 20)
    await expectAnyRange(tensor, whole)
  })

  it('is cut from blocks that are made once', async () => {
    let reads = 0
    const counted = (t: TensorData) => {
      const tensor = stored(t.name, t.dtype, t.shape, t.data)
      const read = (at?: number, length?: number) => {
        if (t.name.endsWith('qweight')) reads++
        return tensor.read(at, length)
      }
      return [t.name, { ...tensor, read }] as const
    }
    const all = [...awq(64)('a', 16, 256, 1).tensors, ...awq(64)('b', 16, 256, 2).tensors]
    const { tensors } = await unquantized(awqConfig(64), 'config.json', new Map(all.map(counted)))
    const [a, b] = ['a.weight', 'b.weight'].map((name) => tensors.get(name)!)
    for (let at = 0; at < a.bytes; at += 320) await a.read(at, 320)
    expect(reads).toBe(1)
    // Its end was read, so it is not kept; nor is what another tensor takes the place of.
    await a.read(0, 20)
    await b.read(0, 20)
    await a.read(0, 20)
    expect(reads).toBe(4)
  })
})

const actOrder: GptqKind = { format: 'gptq', actOrder: true }

describe('act-order', () => {
  it('opens as q8, says so, and is within half a step of q8', async () => {
    const { tensors, matrices } = packedModel(gptq(32, actOrder), false)
    const folder = writeFolder(join(root, 'act-order'), tensors, gptqConfig(32, actOrder))
    const model = await openModel(await storeAt(folder))
    const warning = `${join(folder, 'config.json')}: quantized with act-order (desc_act): 14 matrices are rounded to q8, `
    expect(model.warnings).toHaveLength(1)
    expect(model.warnings[0].startsWith(warning)).toBe(true)
    for (const [name, { values }] of matrices) {
      const tensor = model.tensors.get(name)!
      expect(tensor.dtype).toBe('Q8_0')
      const bounds = new Float64Array(values.length)
      for (let from = 0; from < values.length; from += 32) {
        const largest = Math.max(...values.subarray(from, from + 32).map(Math.abs))
        // The scale is rounded to f16 too, and multiplied by up to 127.
        bounds.fill(largest * (0.5 / 127 + 2 ** -11) * 1.0001, from, from + 32)
      }
      expect(worst(await readFloats(tensor), values, bounds), name).toBeLessThanOrEqual(1)
    }
    const said: string[] = []
    const lm = await loadModel(folder, { device: 'wasm', threads: 1, onWarning: (message) => said.push(message) })
    await lm.close()
    expect(said).toEqual(model.warnings)
  })

  it('with groups that are in order all the same opens as q4a', async () => {
    const { tensors } = packedModel(gptq(64, { format: 'gptq' }), false)
    const model = await openModel(await storeAt(writeFolder(join(root, 'in order'), tensors, gptqConfig(64, actOrder))))
    expect(model.warnings).toEqual([])
    expect(model.tensors.get('model.layers.1.mlp.down_proj.weight')!.dtype).toBe('Q4_1')
  })
})

it.each(['awq 64', 'gptq 64', 'mlx 64', 'act-order'])(
  '%s computes what the same weights in f32 compute',
  async (what) => {
    const folder = join(root, what)
    const { tensors } = await openModel(await storeAt(folder))
    const [got, want] = [await logProbs(folder), await logProbs(await f32Folder(join(root, `${what} f32`), tensors))]
    expect(got.length).toBe(ids.length - 1)
    for (const [t, x] of got.entries()) expect(Math.abs(x - want[t]), `token ${t + 1}`).toBeLessThan(1e-5)
  },
)

it('inputs that are no multiple of the group have a smaller last group in GPTQ', async () => {
  const { tensors, values, bounds } = gptq(128, { format: 'gptq' })('a', 16, 192, 3)
  const found = await unquantized(
    gptqConfig(128, { format: 'gptq' }),
    'config.json',
    new Map(tensors.map((t) => [t.name, stored(t.name, t.dtype, t.shape, t.data)])),
  )
  expect(worst(await readFloats(found.tensors.get('a.weight')!), values, bounds)).toBeLessThanOrEqual(1)
})

it('modules of MLX may have groups of their own', async () => {
  const { tensors, values, bounds } = mlx(32, 'F16')('a', 16, 128, 3)
  const own = { group_size: 64, bits: 4, a: { group_size: 32, bits: 4 }, lm_head: false }
  const found = await unquantized(
    { quantization: own },
    'config.json',
    new Map(tensors.map((t) => [t.name, stored(t.name, t.dtype, t.shape, t.data)])),
  )
  expect(worst(await readFloats(found.tensors.get('a.weight')!), values, bounds)).toBe(0)
})

it('quantizing to q4a keeps the codes', async () => {
  const folder = join(root, 'awq 64')
  const output = join(root, 'awq.gguf')
  await quantizeModel(folder, output, { dtype: 'q4a' })
  const [before, after] = [await openModel(await storeAt(folder)), await openModel(await storeAt(output))]
  const name = 'model.layers.1.mlp.up_proj.weight'
  expect(await after.tensors.get(name)!.read()).toEqual(await before.tensors.get(name)!.read())
})

describe('refuses', () => {
  const v1: GptqKind = { format: 'gptq' }
  const changed = (own: object, key: string, changes: object) => {
    const settings = (own as Record<string, object>)[key]
    return { ...own, [key]: { ...settings, ...changes } }
  }
  const [other, mlxKey] = ['quantization_config', 'quantization']
  const settings: [what: string, own: object, message: string][] = [
    ['awq of 8 bits', changed(awqConfig(64), other, { bits: 8 }), `${other}.bits: `],
    ['awq in groups of 48', changed(awqConfig(64), other, { group_size: 48 }), `${other}.group_size: `],
    ['awq for gemv', changed(awqConfig(64), other, { version: 'gemv' }), `${other}.version: `],
    ['awq of llm-awq', changed(awqConfig(64), other, { backend: 'llm-awq' }), `${other}.backend: `],
    ['awq without zeros', changed(awqConfig(64), other, { zero_point: false }), `${other}.zero_point: `],
    ['gptq of 3 bits', changed(gptqConfig(64, v1), other, { bits: 3 }), `${other}.bits: `],
    ['gptq of whole rows', changed(gptqConfig(64, v1), other, { group_size: -1 }), `${other}.group_size: `],
    ['marlin', changed(gptqConfig(64, v1), other, { checkpoint_format: 'marlin' }), `${other}.checkpoint_format: `],
    ['gptq by module', changed(gptqConfig(64, v1), other, { dynamic: { '+:mlp': { bits: 8 } } }), `${other}.dynamic: `],
    ['mlx of 8 bits', changed(mlxConfig(64), mlxKey, { bits: 8 }), `${mlxKey}.bits: `],
    ['mlx in groups of 48', changed(mlxConfig(64), mlxKey, { group_size: 48 }), `${mlxKey}.group_size: `],
    ['mxfp4', changed(mlxConfig(32), mlxKey, { mode: 'mxfp4' }), `${mlxKey}.mode: `],
    [
      'mlx by layer',
      changed(mlxConfig(64), mlxKey, { 'model.layers.0.mlp.up_proj': { group_size: 64, bits: 6 } }),
      `${mlxKey}.model.layers.0.mlp.up_proj.bits: `,
    ],
  ]
  it.each(settings)('%s', async (_, own, message) => {
    const read = unquantized(own as Record<string, unknown>, 'm/config.json', new Map())
    await expect(read).rejects.toThrow(FormatError)
    await expect(read).rejects.toThrow(`m/config.json: ${message}`)
    await expect(read).rejects.toThrow("use the model's GGUF, or its unquantized folder")
  })

  const of = (tensors: readonly TensorData[]) =>
    new Map(tensors.map((t) => [t.name, stored(t.name, t.dtype, t.shape, t.data)]))
  const a = awq(64)('a', 16, 128, 1).tensors
  const g = gptq(64, v1)('a', 16, 128, 1).tensors
  const m = mlx(64, 'F16')('a', 16, 128, 1).tensors
  const without = (tensors: TensorData[], name: string) => tensors.filter((t) => t.name !== name)
  const reshaped = (tensors: TensorData[], name: string, shape: number[]) =>
    tensors.map((t) => (t.name === name ? { ...t, shape } : t))
  const retyped = (tensors: TensorData[], name: string, dtype: TensorData['dtype']) =>
    tensors.map((t) => (t.name === name ? { ...t, dtype } : t))
  const broken: [what: string, own: object, tensors: TensorData[], message: string][] = [
    ['awq without scales', awqConfig(64), without(a, 'a.scales'), 'a.qweight: is quantized, but a.scales is missing'],
    ['awq without zeros', awqConfig(64), without(a, 'a.qzeros'), 'a.qweight: is quantized, but a.qzeros is missing'],
    ['scales of nothing', awqConfig(64), without(a, 'a.qweight'), 'a.qzeros: there is no a.qweight for it'],
    ['other groups', awqConfig(32), a, 'a.scales: expected [4, 16], got [2, 16] (does config.json belong to it?)'],
    ['gptq as awq', awqConfig(64), without(g, 'a.g_idx'), 'a.qweight: [16, 16] is not of a matrix'],
    ['another dtype', awqConfig(64), retyped(a, 'a.qweight', 'U32'), 'a.qweight: U32 is not supported'],
    ['integer scales', awqConfig(64), retyped(a, 'a.scales', 'I16'), 'a.scales: I16 is not supported'],
    [
      'a weight twice',
      awqConfig(64),
      [...a, { name: 'a.weight', dtype: 'F16', shape: [1], data: new Uint8Array(2) }],
      'a.qweight: there is a.weight also',
    ],
    ['zeros of another shape', gptqConfig(64, v1), reshaped(g, 'a.qzeros', [1, 4]), 'a.qzeros: expected [2, 2]'],
    [
      'act-order without g_idx',
      gptqConfig(64, { ...v1, actOrder: true }),
      without(g, 'a.g_idx'),
      'a.qweight: is quantized, but a.g_idx is missing',
    ],
    [
      'a group that is not there',
      gptqConfig(64, v1),
      g.map((t) => (t.name === 'a.g_idx' ? { ...t, data: new Uint8Array(new Int32Array(128).fill(-1).buffer) } : t)),
      'a.g_idx: number 0 is -1, there are 2 groups',
    ],
    ['mlx without scales', mlxConfig(64), without(m, 'a.scales'), 'a.weight: is quantized, but a.scales is missing'],
    ['mlx without biases', mlxConfig(64), without(m, 'a.biases'), 'a.weight: is quantized, but a.biases is missing'],
    ['mlx scales of nothing', mlxConfig(64), without(m, 'a.weight'), 'a.scales: there is no a.weight of dtype U32'],
    ['mlx in other groups', mlxConfig(32), m, 'a.scales: expected [16, 4], got [16, 2]'],
    ['mlx rows', mlxConfig(64), reshaped(m, 'a.weight', [32, 4]), 'a.weight: [32, 4] is no matrix with rows of'],
    ['quantize_config.json', {}, a, 'has no quantization_config, and there is a.qweight'],
  ]
  it.each(broken)('%s', async (_, own, tensors, message) => {
    const read = unquantized(own as Record<string, unknown>, 'm/config.json', of(tensors))
    await expect(read).rejects.toThrow(FormatError)
    await expect(read).rejects.toThrow(message)
  })

  const halves = (count: number, x: number) => new Uint8Array(new Uint16Array(count).fill(numberToHalf(x)).buffer)
  const numbers: [what: string, own: object, tensors: TensorData[], message: string][] = [
    [
      'scales that are not finite',
      awqConfig(64),
      a.map((t) => (t.name === 'a.scales' ? { ...t, data: halves(32, Number.NaN) } : t)),
      'tiny: a.scales: number 0 gives NaN, which f16 cannot hold (use',
    ],
    [
      'mlx biases beyond f16',
      mlxConfig(64),
      m.map((t) =>
        t.name === 'a.biases'
          ? { ...t, dtype: 'F32' as const, data: fromFloats(new Float32Array(32).fill(1e6), 'f32') }
          : t,
      ),
      'tiny: a.biases: number 0 gives 1000000, which f16 cannot hold (use',
    ],
    [
      'zeros that are not symmetric',
      gptqConfig(64, { ...v1, sym: true }),
      g,
      'tiny: a.qzeros: has zeros other than 8, though config.json says sym',
    ],
  ]
  it.each(numbers)('%s', async (_, own, tensors, message) => {
    const found = await unquantized(own as Record<string, unknown>, 'm/config.json', of(tensors))
    const read = found.tensors.get('a.weight')!.read()
    await expect(read).rejects.toThrow(FormatError)
    await expect(read).rejects.toThrow(message)
  })
})
