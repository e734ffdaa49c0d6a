import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { FormatError } from '../../sdk/errors.ts'
import type { LoraConfig } from '../../sdk/formats/lora-config.ts'
import { adapterConfigJson, adapterFiles, parseAdapterConfig, readAdapter } from '../../sdk/formats/peft.ts'
import { parseConfig } from '../../sdk/model/config.ts'
import { adapterFromPeft, adapterToPeft } from '../../sdk/model/lora.ts'
import { storeAt, writeFiles } from '../../sdk/store/store.ts'
import { goldenRoot } from '../golden/golden.ts'

const scratch = mkdtempSync(join(tmpdir(), 'halfling-adapters-'))
afterAll(() => rmSync(scratch, { recursive: true }))

const plain = { peft_type: 'LORA', target_modules: ['q_proj'] }
const parse = (more: object) => parseAdapterConfig({ ...plain, ...more }, 'a/adapter_config.json')

describe('adapter_config.json', () => {
  it("defaults are PEFT's", () => {
    expect(parse({})).toEqual({
      r: 8,
      loraAlpha: 8,
      loraDropout: 0,
      useRslora: false,
      useDora: false,
      targetModules: ['q_proj'],
      rankPattern: {},
      alphaPattern: {},
      modulesToSave: [],
    })
  })

  const all: LoraConfig = {
    r: 4,
    loraAlpha: 12.5,
    loraDropout: 0.05,
    useRslora: true,
    useDora: true,
    targetModules: ['q_proj', 'up_proj'],
    excludeModules: '.*\\.0\\..*',
    layersToTransform: [1, 2],
    layersPattern: ['layers'],
    rankPattern: { q_proj: 2 },
    alphaPattern: { up_proj: 3 },
    modulesToSave: ['norm'],
    baseModel: 'pebble',
  }
  for (const config of [all, { ...parse({}), targetModules: '.*q_proj' }, { ...all, excludeModules: ['o_proj'] }])
    it(`written and read: ${JSON.stringify(config)}`, () => {
      expect(parseAdapterConfig(JSON.parse(JSON.stringify(adapterConfigJson(config))), 'again')).toEqual(config)
    })

  it('says what it is not: an adapter of mlx-lm, a file without a type', () => {
    const mlx = { fine_tune_type: 'dora', num_layers: 4, lora_parameters: { rank: 4 } }
    expect(() => parseAdapterConfig(mlx, 'a/adapter_config.json')).toThrow('an adapter of mlx-lm, not of PEFT')
    expect(() => parseAdapterConfig({}, 'a/adapter_config.json')).toThrow(
      'a/adapter_config.json: peft_type: is missing',
    )
  })

  const refused: [field: string, value: unknown][] = [
    ['peft_type', 'IA3'],
    ['task_type', 'SEQ_CLS'],
    ['bias', 'all'],
    ['bias', 'lora_only'],
    ['init_lora_weights', 'pissa_niter_4'],
    ['init_lora_weights', 'olora'],
    ['init_lora_weights', 'corda'],
    ['init_lora_weights', 'loftq'],
    ['fan_in_fan_out', true],
    ['use_qalora', true],
    ['alora_invocation_tokens', [1, 2]],
    ['lora_bias', true],
    ['layer_replication', [[0, 2]]],
    ['target_parameters', ['experts.gate_up_proj']],
    ['trainable_token_indices', [5]],
    ['trainable_token_indices', { embed_tokens: [5] }],
    ['megatron_config', { tensor_model_parallel_size: 2 }],
    ['ensure_weight_tying', true],
    ['arrow_config', { top_k: 3 }],
    ['use_bdlora', { nblocks: 2 }],
    ['kasa_config', { beta: 1 }],
    ['velora_config', { rank: 1 }],
    ['monteclora_config', { num_samples: 8 }],
    ['a_field_of_the_future', true],
    ['a_field_of_the_future', 'on'],
    ['a_field_of_the_future', 2],
    // wrong types and ranges
    ['r', 0],
    ['r', 2.5],
    ['r', 1e9],
    ['r', '16'],
    ['lora_alpha', null],
    ['lora_dropout', 1],
    ['lora_dropout', -0.1],
    ['target_modules', null],
    ['target_modules', [1]],
    ['rank_pattern', { q_proj: 0 }],
    ['alpha_pattern', { q_proj: 'x' }],
    ['modules_to_save', 'lm_head'],
  ]
  for (const [field, value] of refused)
    it(`refused by name: ${field} ${JSON.stringify(value)}`, () => {
      const read = () => parse({ [field]: value })
      expect(read).toThrow(FormatError)
      expect(read).toThrow(new RegExp(`^a/adapter_config\\.json: ${field}`))
    })

  it('refuses layers_to_transform beside a pattern', () => {
    expect(() => parse({ target_modules: '.*q_proj', layers_to_transform: [1] })).toThrow(/layers_to_transform \[1\]/)
  })

  const harmless: Record<string, unknown> = {
    a_field_of_the_future: null,
    another: false,
    and_another: [],
    yet_another: {},
    init_lora_weights: 'gaussian',
    eva_config: { rho: 2 },
    loftq_config: { loftq_bits: 4 },
    peft_version: '0.5.0',
    qalora_group_size: 16,
    task_type: null,
  }
  for (const [field, value] of Object.entries(harmless))
    it(`does no harm: ${field} ${JSON.stringify(value)}`, () => {
      expect(parse({ [field]: value })).toEqual(parse({}))
    })
})

describe('adapter folders', () => {
  it('a folder without an adapter', async () => {
    await expect(readAdapter(await storeAt(scratch))).rejects.toThrow(
      /adapter_config\.json: no such file \(an adapter is a folder/,
    )
  })

  it('pickled tensors', async () => {
    const folder = mkdtempSync(join(scratch, 'bin-'))
    writeFileSync(join(folder, 'adapter_config.json'), JSON.stringify(plain))
    writeFileSync(join(folder, 'adapter_model.bin'), 'x')
    await expect(readAdapter(await storeAt(folder))).rejects.toThrow(/adapter_model\.bin is a pickle/)
  })

  it('truncated tensors', async () => {
    const folder = mkdtempSync(join(scratch, 'cut-'))
    const key = 'base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight'
    await writeFiles(
      await storeAt(folder),
      adapterFiles(parse({}), new Map([[key, { shape: [2, 4], data: new Float32Array(8) }]])),
    )
    expect((await readAdapter(await storeAt(folder))).tensors.get(key)).toEqual({
      shape: [2, 4],
      data: new Float32Array(8),
    })
    const file = join(folder, 'adapter_model.safetensors')
    writeFileSync(file, readFileSync(file).subarray(0, -4))
    await expect(readAdapter(await storeAt(folder))).rejects.toThrow(
      /adapter_model\.safetensors: .*lora_A\.weight: .*truncated/,
    )
  })
})

// An adapter that PEFT made.
const pebble = join(dirname(goldenRoot), 'models', 'pebble-7m-instruct')
const warm = join(pebble, 'warm-adapter')
describe.skipIf(!existsSync(warm))('the warm adapter, made by PEFT', () => {
  it('loads and is saved again with the same bytes and an equivalent config', async () => {
    const { config, tensors } = await readAdapter(await storeAt(warm))
    const model = parseConfig(JSON.parse(readFileSync(join(pebble, 'config.json'), 'utf8')), pebble)
    const adapter = adapterFromPeft('warm', config, tensors, model, warm)
    expect(adapter.modules.size).toBe(56)
    for (const { rank, scale } of adapter.modules.values()) expect([rank, scale]).toEqual([16, 2])
    const folder = join(scratch, 'warm')
    const out = adapterToPeft(adapter, model)
    await writeFiles(await storeAt(folder), adapterFiles(out.config, out.tensors))
    const bytes = (at: string) => readFileSync(join(at, 'adapter_model.safetensors'))
    expect(bytes(folder).equals(bytes(warm))).toBe(true)
    const json = (at: string) => JSON.parse(readFileSync(join(at, 'adapter_config.json'), 'utf8'))
    // PEFT keeps the names in a set: their order means nothing.
    expect(json(folder)).toEqual(json(warm))
    expect(Object.keys(json(folder))).toEqual(Object.keys(json(warm)))
  })
})
