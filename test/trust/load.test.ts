import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { writeTinyModel } from '../../examples/tiny-model.ts'
import { HalflingError } from '../../sdk/errors.ts'
import { LanguageModel } from '../../sdk/generate/language-model.ts'
import { loadModel } from '../../sdk/load.ts'
import { randomBits } from '../../sdk/random.ts'
import { SFTTrainer } from '../../sdk/train/sft.ts'

// Broken models and adapters: a typed error that names the file, or a model that works. Nothing else.

let source: string
let adapter: string
const temp = () => mkdtempSync(join(tmpdir(), 'halfling-trust-'))

beforeAll(async () => {
  source = join(temp(), 'tiny')
  await writeTinyModel(source)
  adapter = temp()
  const lm = await loadModel(source, { threads: 1, dtype: 'f32' })
  const args = { outputDir: adapter, maxSteps: 1, saveStrategy: 'no' as const }
  const trainer = new SFTTrainer({ model: lm, trainDataset: [{ text: 'hello there' }], peft: { r: 4 }, args })
  for await (const _ of trainer.train());
  await lm.close()
})

/** Loads a broken copy and, where that goes well, generates two tokens. Returns the typed error, or null. */
async function attempt(breakIt: (folder: string, adapter: string) => void): Promise<HalflingError | null> {
  const folder = temp()
  const [model, lora] = [join(folder, 'model'), join(folder, 'adapter')]
  cpSync(source, model, { recursive: true })
  cpSync(adapter, lora, { recursive: true })
  breakIt(model, lora)
  try {
    const lm = await loadModel(model, { threads: 1, adapter: lora })
    try {
      const messages = [{ role: 'user', content: 'hi' }]
      await LanguageModel.complete(lm.chat(messages, { maxNewTokens: 2, temperature: 0 }))
    } finally {
      await lm.close()
    }
    return null
  } catch (error) {
    if (error instanceof HalflingError) return error
    throw error
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Changes keys of a JSON file; undefined deletes. */
const edit = (file: string, changes: Record<string, unknown>) => (folder: string) => {
  const path = join(folder, file)
  writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, 'utf8')), ...changes }))
}
const inAdapter = (change: (folder: string) => void) => (_: string, lora: string) => change(lora)

describe('a broken model or adapter is named', () => {
  it.each<[string, (folder: string, adapter: string) => void, string]>([
    ['an unknown architecture', edit('config.json', { model_type: 'mamba' }), 'model_type "mamba" is not supported'],
    ['no hidden_size', edit('config.json', { hidden_size: undefined }), 'hidden_size'],
    ['a huge vocabulary', edit('config.json', { vocab_size: 1e15 }), 'vocab_size'],
    ['fractional layers', edit('config.json', { num_hidden_layers: 1.5 }), 'num_hidden_layers'],
    ['another hidden size', edit('config.json', { hidden_size: 128 }), 'expected [288, 128], got [288, 64]'],
    ['heads that do not divide', edit('config.json', { num_key_value_heads: 3 }), 'not a multiple'],
    ['more layers than the file has', edit('config.json', { num_hidden_layers: 3 }), 'model.layers.2'],
    ['another rope', edit('config.json', { rope_scaling: { rope_type: 'longrope', factor: 2 } }), 'longrope'],
    ['an activation of its own', edit('config.json', { hidden_act: 'gelu' }), 'gelu'],
    ['config.json that is no JSON', (f) => writeFileSync(join(f, 'config.json'), '{'), 'config.json'],
    ['config.json that is a list', (f) => writeFileSync(join(f, 'config.json'), '[]'), 'config.json'],
    ['no config.json', (f) => rmSync(join(f, 'config.json')), 'config.json'],
    ['no tokenizer.json', (f) => rmSync(join(f, 'tokenizer.json')), 'tokenizer.json'],
    ['a tokenizer without a model', edit('tokenizer.json', { model: null }), 'tokenizer.json'],
    ['a token that the vocabulary lacks', edit('tokenizer_config.json', { eos_token: '<nope>' }), "eos_token '<nope>'"],
    ['eos ids of the wrong kind', edit('generation_config.json', { eos_token_id: 'x' }), 'eos_token_id'],
    ['eos ids past the vocabulary', edit('generation_config.json', { eos_token_id: [9999] }), 'eos_token_id'],
    ['a template that does not parse', edit('tokenizer_config.json', { chat_template: '{% for %}' }), 'chat template'],
    [
      'a template that refuses',
      edit('tokenizer_config.json', { chat_template: "{{ raise_exception('no') }}" }),
      'refuses these messages: no',
    ],
    ['no weights', (f) => rmSync(join(f, 'model.safetensors')), 'model.safetensors'],
    ['an adapter of other ranks', inAdapter(edit('adapter_config.json', { r: 8 })), 'lora_A'],
    ['an adapter with a bias', inAdapter(edit('adapter_config.json', { bias: 'all' })), 'bias'],
    ['another kind of adapter', inAdapter(edit('adapter_config.json', { peft_type: 'IA3' })), 'IA3'],
    ['an unknown field that is set', inAdapter(edit('adapter_config.json', { use_quantum: true })), 'use_quantum'],
    ['other target modules', inAdapter(edit('adapter_config.json', { target_modules: ['q_proj'] })), 'lora'],
    ['an adapter without weights', (_, a) => rmSync(join(a, 'adapter_model.safetensors')), 'adapter_model.safetensors'],
  ])('%s', async (_, breakIt, message) => {
    const error = await attempt(breakIt)
    expect(error?.message ?? 'it loaded').toContain(message)
  })

  it('weights that are NaN give a typed error instead of text', async () => {
    const error = await attempt((folder) => {
      const path = join(folder, 'model.safetensors')
      const bytes = readFileSync(path)
      bytes.fill(0xff, bytes.length - 4096)
      writeFileSync(path, bytes)
    })
    expect(error).toBeInstanceOf(HalflingError)
  })
})

describe('seeded damage ends in a model or in a typed error', () => {
  const files = [
    'config.json',
    'tokenizer.json',
    'tokenizer_config.json',
    'generation_config.json',
    'model.safetensors',
  ]
  const lora = ['adapter_config.json', 'adapter_model.safetensors']
  for (const file of [...files, ...lora])
    it(file, async () => {
      let refused = 0
      for (let round = 0; round < 25; round++) {
        const error = await attempt((model, adapterFolder) => {
          const path = join(lora.includes(file) ? adapterFolder : model, file)
          const bytes = readFileSync(path)
          // The header of a weights file is where damage is interesting.
          const span = Math.min(bytes.length, file.endsWith('.safetensors') ? 3000 : bytes.length)
          for (let k = 0; k <= round % 4; k++) bytes[randomBits(1, round, k) % span] = randomBits(2, round, k) & 255
          writeFileSync(path, round % 5 === 4 ? bytes.subarray(0, randomBits(3, round) % bytes.length) : bytes)
        })
        if (error) refused++
      }
      expect(refused).toBeGreaterThan(3)
    })
})
