import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import type { Example } from '../../sdk/data/tokenize.ts'
import { FormatError, OptionError } from '../../sdk/errors.ts'
import { adapterFiles, type PeftTensor, parseAdapterConfig } from '../../sdk/formats/peft.ts'
import type { LanguageModel } from '../../sdk/generate/language-model.ts'
import { scoreExamples } from '../../sdk/generate/score.ts'
import { loadAdapter, loadModel } from '../../sdk/load.ts'
import { adapterFromPeft, adapterToPeft } from '../../sdk/model/lora.ts'
import type { Model } from '../../sdk/model/model.ts'
import { fillNormal, nameCounter } from '../../sdk/random.ts'
import { memoryStore } from '../../sdk/store/memory.ts'
import { writeFiles } from '../../sdk/store/store.ts'
import { SFTTrainer } from '../../sdk/train/sft.ts'
import { wasmTarget } from '../../targets/wasm/index.ts'
import { relativeError } from '../golden/golden.ts'
import { randomModel, rows } from '../train/model.ts'

// Adapters of the vocabulary's tables, and tables that PEFT writes beside an adapter (save_embedding_layers).

const scratch = mkdtempSync(join(tmpdir(), 'halfling-tables-'))
afterAll(() => rmSync(scratch, { recursive: true }))

const first = 'layers.0.self_attn.q_proj'
const [vocab, width, rank, alpha] = [258, 64, 4, 8]
const top = 'base_model.model.'
const embed = `${top}model.embed_tokens`

const random = (name: string, shape: number[], deviation = 0.1): [string, PeftTensor] => {
  const data = new Float32Array(shape.reduce((a, b) => a * b))
  fillNormal(data, deviation, 3, nameCounter(name))
  return [name, { shape, data }]
}
const linear = (path: string, output: number, input = width) => [
  random(`${top}${path}.lora_A.weight`, [rank, input]),
  random(`${top}${path}.lora_B.weight`, [output, rank]),
]
const query = linear(`model.${first}`, width)
const embedding = [
  random(`${embed}.lora_embedding_A`, [rank, vocab]),
  random(`${embed}.lora_embedding_B`, [width, rank]),
]
const head = linear('lm_head', vocab)

const configOf = (targets: string[], more = {}) =>
  parseAdapterConfig({ peft_type: 'LORA', r: rank, lora_alpha: alpha, target_modules: targets, ...more }, 'test')

const examples: Example[] = [29, 11].map((length, row) => {
  const inputIds = Array.from({ length }, (_, i) => (i * 37 + row * 11) % 250)
  return { inputIds, labels: inputIds, row }
})
const score = async (model: Model) =>
  Float32Array.from((await scoreExamples(model, examples)).flatMap((row) => [...row]))

async function adapted(targets: string[], tensors: [string, PeftTensor][], more = {}): Promise<LanguageModel> {
  const lm = await randomModel(await wasmTarget({ threads: 1 }))
  const config = configOf(targets, more)
  lm.model.adapters.set('a', adapterFromPeft('a', config, new Map(tensors), lm.model.config, 'test'))
  await lm.model.setAdapters(['a'])
  return lm
}

/** The model with other tables. */
async function withTables(of: LanguageModel, tables: Record<string, Float32Array>): Promise<LanguageModel> {
  await of.model.setAdapters([])
  const { tensors, ...files } = await of.mergedModel()
  const all = new Map(tensors)
  for (const [name, data] of Object.entries(tables)) {
    const bytes = new Uint8Array(data.buffer)
    const read = async (offset = 0, length = bytes.length - offset) => bytes.slice(offset, offset + length)
    all.set(name, { name, dtype: 'F32', shape: [vocab, width], bytes: bytes.length, file: name, read })
  }
  const folder = join(mkdtempSync(join(scratch, 'm-')), 'model')
  const { writeModel } = await import('../../sdk/model/write.ts')
  const { storeAt } = await import('../../sdk/store/store.ts')
  const config = { ...files.config, tie_word_embeddings: !('lm_head.weight' in tables) }
  await writeModel({ ...files, config, tensors: all }, await storeAt(folder), { dtype: 'f32' })
  return loadModel(folder, { device: 'wasm', threads: 1 })
}

/** W + s·(columns of A)·B, written out as PEFT computes it. */
function peftEmbedding(w: Float32Array): Float32Array {
  const [a, b] = embedding.map(([, { data }]) => data)
  return w.map((x, at) => {
    const [v, c] = [Math.floor(at / width), at % width]
    let update = 0
    for (let k = 0; k < rank; k++) update += a[k * vocab + v] * b[c * rank + k]
    return x + (alpha / rank) * update
  })
}
function peftHead(w: Float32Array): Float32Array {
  const [a, b] = head.map(([, { data }]) => data)
  return w.map((x, at) => {
    const [v, c] = [Math.floor(at / width), at % width]
    let update = 0
    for (let k = 0; k < rank; k++) update += b[v * rank + k] * a[k * width + c]
    return x + (alpha / rank) * update
  })
}

describe('LoRA of the embedding and of the output layer', () => {
  it.each<[string, [string, PeftTensor][], (w: Float32Array) => Record<string, Float32Array>]>([
    ['embed_tokens', embedding, (w) => ({ 'model.embed_tokens.weight': peftEmbedding(w), 'lm_head.weight': w })],
    ['lm_head', head, (w) => ({ 'lm_head.weight': peftHead(w) })],
  ])('%s: as PEFT computes it, merged too, and written as it was read', async (target, tensors, tables) => {
    const lm = await adapted([target], tensors)
    const scores = await score(lm.model)
    const merged = join(mkdtempSync(join(scratch, 'merged-')), 'model')
    await lm.saveMerged(merged, 'f32')
    await lm.model.pullAdapters()
    const again = adapterToPeft(lm.model.adapters.get('a')!, lm.model.config)
    expect(again.tensors).toEqual(new Map(tensors))
    expect(again.config.targetModules).toEqual([target])
    const other = await withTables(lm, tables(await lm.model.readFloats('model.embed_tokens.weight')))
    const want = await score(other.model)
    expect(relativeError(scores, want)).toBeLessThan(1e-5)
    expect(relativeError(scores, await score(lm.model))).toBeGreaterThan(0.01)
    const loaded = await loadModel(merged, { device: 'wasm', threads: 1 })
    expect(relativeError(await score(loaded.model), want)).toBeLessThan(1e-5)
    for (const model of [lm, other, loaded]) await model.close()
  })

  it('together with linear modules, and beside another adapter of the same table', async () => {
    const lm = await adapted([first, 'lm_head'], [...query, ...head])
    const once = await score(lm.model)
    lm.model.adapters.set('b', { ...lm.model.adapters.get('a')!, name: 'b' })
    await lm.model.setAdapters(['a', 'b'])
    const twice = await score(lm.model)
    expect(relativeError(twice, once)).toBeGreaterThan(0.01)
    const folder = join(mkdtempSync(join(scratch, 'merged-')), 'model')
    await lm.saveMerged(folder, 'f32')
    const loaded = await loadModel(folder, { device: 'wasm', threads: 1 })
    expect(relativeError(await score(loaded.model), twice)).toBeLessThan(1e-5)
    await expect(lm.model.setAdaptersByRow(['a', 'b'])).rejects.toThrow(/tables of the vocabulary, are for all rows/)
    for (const model of [lm, loaded]) await model.close()
  })

  it('is not trained: new ones, and going on from one', async () => {
    const lm = await adapted([first, 'lm_head'], [...query, ...head])
    const train = async (peft?: object) => {
      const trainer = new SFTTrainer({ model: lm, trainDataset: rows, peft, args: { outputDir: null, maxSteps: 1 } })
      for await (const _ of trainer.train());
    }
    await expect(train()).rejects.toThrow(/lm_head cannot train as a LoRA adapter/)
    await lm.model.setAdapters([])
    await expect(train({ targetModules: ['embed_tokens'] })).rejects.toThrow(OptionError)
    await lm.close()
  })

  it('DoRA of the embedding is refused', async () => {
    const dora = adapted(['embed_tokens'], embedding, { use_dora: true })
    await expect(dora).rejects.toThrow(/use_dora for model.embed_tokens is not supported/)
    await expect(dora).rejects.toThrow(FormatError)
  })
})

describe('tables beside an adapter', () => {
  const table = random(`${embed}.weight`, [vocab, width])

  it('replace those of the model, both where it ties them', async () => {
    const lm = await adapted([first], [...query, table])
    const scores = await score(lm.model)
    const [, { data }] = table
    const other = await withTables(lm, { 'model.embed_tokens.weight': data })
    const store = memoryStore()
    await writeFiles(store, adapterFiles(configOf([first]), new Map(query)))
    await loadAdapter(other, store, 'a')
    expect(relativeError(await score(other.model), scores)).toBeLessThan(1e-5)
    for (const model of [lm, other]) await model.close()
  })

  it.each<[string, [string, PeftTensor][], string[], object]>([
    [
      'a base layer beside its adapter',
      [...embedding, random(`${embed}.base_layer.weight`, [vocab, width])],
      ['embed_tokens'],
      {},
    ],
    ['both tables', [...query, table, random(`${top}lm_head.weight`, [vocab, width])], [first], {}],
  ])('merged, and written as it was read: %s', async (_, tensors, targets, more) => {
    const lm = await adapted(targets, tensors, more)
    const scores = await score(lm.model)
    expect(adapterToPeft(lm.model.adapters.get('a')!, lm.model.config).tensors).toEqual(new Map(tensors))
    const folder = join(mkdtempSync(join(scratch, 'merged-')), 'model')
    await lm.saveMerged(folder, 'f32')
    const loaded = await loadModel(folder, { device: 'wasm', threads: 1 })
    expect(relativeError(await score(loaded.model), scores)).toBeLessThan(1e-5)
    for (const model of [lm, loaded]) await model.close()
  })

  it('a saved module is read once, whatever PEFT writes beside it', async () => {
    const copy = random(`${top}lm_head.weight`, [vocab, width])
    const more = { modules_to_save: ['lm_head'] }
    const plain = await adapted([first], [...query, copy], more)
    const doubled = [
      ...query,
      copy,
      [`${top}lm_head.modules_to_save.weight`, copy[1]],
      [`${top}lm_head.original_module.weight`, table[1]],
    ]
    const lm = await adapted([first], doubled as [string, PeftTensor][], more)
    expect(await score(lm.model)).toEqual(await score(plain.model))
    for (const model of [lm, plain]) await model.close()
  })

  it('do not train with the adapter', async () => {
    const lm = await adapted([first], [...query, table])
    const trainer = new SFTTrainer({ model: lm, trainDataset: rows, args: { outputDir: null, maxSteps: 2 } })
    for await (const _ of trainer.train());
    const { tensors } = adapterToPeft(lm.model.adapters.get('a')!, lm.model.config)
    expect(tensors.get(table[0])).toEqual(table[1])
    expect(tensors.get(query[0][0])).not.toEqual(query[0][1])
    await lm.close()
  })

  it('of another vocabulary are refused, with what to do', async () => {
    const wide = random(`${embed}.weight`, [vocab + 3, width])
    await expect(adapted([first], [...query, wide])).rejects.toThrow(
      /embed_tokens.weight.*\[258, 64\], got \[261, 64\].*resize/,
    )
  })
})
