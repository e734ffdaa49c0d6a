import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { HalflingError } from '../../sdk/errors.ts'
import { evaluate } from '../../sdk/eval/evaluate.ts'
import { LanguageModel } from '../../sdk/generate/language-model.ts'
import { loadAdapter, loadModel } from '../../sdk/load.ts'
import { quantizeModel } from '../../sdk/quantize.ts'
import { memoryStore } from '../../sdk/store/memory.ts'
import { SFTTrainer } from '../../sdk/train/sft.ts'

// A model out of a Map of bytes and all that is done with it, without a disk and without a hub: whoever asks for one fails.

const asked = vi.hoisted(() => [] as string[])
vi.mock('node:fs/promises', async (original) => {
  const real = await original<Record<string, unknown>>()
  const guarded = (name: string) => {
    const own = real[name] as (...args: unknown[]) => unknown
    return (...args: unknown[]) => {
      // The kernels are a part of the program.
      if (name === 'readFile' && /\.wasm$/.test(String(args[0]))) return own(...args)
      asked.push(`${name} ${args[0]}`)
      throw new Error(`node:fs/promises: ${name} ${args[0]}`)
    }
  }
  const names = Object.keys(real).filter((name) => typeof real[name] === 'function')
  const mocked = Object.fromEntries(names.map((name) => [name, guarded(name)]))
  return { ...mocked, default: mocked }
})
vi.mock('../../sdk/hub/models.ts', () => {
  throw new Error('the hub was asked for')
})
vi.mock('../../sdk/store/disk.ts', () => {
  throw new Error('the disk was asked for')
})

const files = new Map<string, Uint8Array>()
let lm: LanguageModel
beforeAll(async () => {
  const { readdirSync, readFileSync } = await vi.importActual<typeof import('node:fs')>('node:fs')
  for (const name of readdirSync('models/nano')) files.set(name, new Uint8Array(readFileSync(`models/nano/${name}`)))
  lm = await loadModel(memoryStore(files, { name: 'nano' }), { device: 'wasm', threads: 1, dtype: 'f32' })
})
afterAll(async () => {
  await lm.close()
  expect(asked).toEqual([])
})

const question = [{ role: 'user' as const, content: 'What is 2 + 3?' }]
const answer = async (model: LanguageModel) =>
  (await LanguageModel.complete(model.chat(question, { maxNewTokens: 8, temperature: 0 }))).tokenIds
const rows = Array.from({ length: 4 }, (_, i) => ({ question: `What is ${i} + 3?`, answer: `${i + 3}` }))
const train = async (outputDir: ReturnType<typeof memoryStore>, resume = false, maxSteps = 3) => {
  const args = { outputDir, maxSteps, saveSteps: 1, learningRate: 2e-3, perDeviceTrainBatchSize: 2 }
  for await (const _ of new SFTTrainer({ model: lm, trainDataset: rows, peft: { r: 4 }, args }).train({ resume }));
}

it('chats', async () => {
  expect(await answer(lm)).not.toHaveLength(0)
})

it('is evaluated into a store, and the run goes on there', async () => {
  const output = memoryStore()
  const options = { subject: { task: null, model: 'nano', adapters: [], dtype: 'f32' }, maxNewTokens: 8, output }
  const { n } = await evaluate(lm, rows, options)
  expect(n).toBe(4)
  expect((await output.list()).map(({ name }) => name)).toEqual([
    'items.jsonl',
    'report.md',
    'results.json',
    'run.json',
  ])
  const again: number[] = []
  await evaluate(lm, rows, { ...options, onProgress: ({ before }) => again.push(before) })
  expect(again).toEqual([])
})

it('is trained into a store, goes on from its checkpoints, and a full store keeps the last whole one', async () => {
  const held = new Map<string, Uint8Array>()
  const whole = memoryStore(held)
  await train(whole)
  const names = (await whole.list()).map(({ name }) => name)
  expect(names).toEqual([
    'adapter_config.json',
    'adapter_model.safetensors',
    'checkpoint-1',
    'checkpoint-2',
    'checkpoint-3',
    'metrics.jsonl',
  ])
  await lm.removeAdapter('default')

  // Room for two checkpoints, not for three.
  const size = [...held].reduce((sum, [name, { length }]) => sum + (name.startsWith('checkpoint-1/') ? length : 0), 0)
  const small = new Map<string, Uint8Array>()
  const error = await train(memoryStore(small, { name: 'small', mostBytes: 2.5 * size })).catch((e) => e)
  expect(error).toBeInstanceOf(HalflingError)
  expect(error.message).toMatch(/^small\/checkpoint-3.*: cannot be written: the store is full/)
  expect([...small.keys()].filter((name) => name.startsWith('checkpoint-3'))).toEqual([])
  for (const [name, bytes] of held)
    if (/^checkpoint-[12].*safetensors$/.test(name)) expect(small.get(name)).toEqual(bytes)

  await train(memoryStore(small), true)
  expect(small.get('adapter_model.safetensors')).toEqual(held.get('adapter_model.safetensors'))
  await loadAdapter(lm, memoryStore(small), 'again')
  await lm.removeAdapter('again')
})

it('is merged and quantized into stores, which open again', async () => {
  const [merged, gguf] = [memoryStore(), memoryStore(new Map(), { name: 'nano.gguf' })]
  await lm.setAdapters([])
  await lm.saveMerged(merged, 'f32')
  await quantizeModel(memoryStore(files), gguf, { dtype: 'q8' })
  const texts = []
  for (const store of [merged, gguf]) {
    const again = await loadModel(store, { device: 'wasm', threads: 1 })
    texts.push(await answer(again))
    await again.close()
  }
  expect(texts[0]).toEqual(await answer(lm))
  expect(texts[1].length).toBeGreaterThan(0)
})
