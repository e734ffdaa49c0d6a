import { mkdtempSync, readdirSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { InferenceSession, Tensor } from 'onnxruntime-node'
import { describe, expect, it } from 'vitest'
import { openTarget } from '../sdk/device.ts'
import { OptionError } from '../sdk/errors.ts'
import { exportOnnx } from '../sdk/export/onnx.ts'
import type { StoredModel } from '../sdk/formats/stored-model.ts'
import { scoreExamples } from '../sdk/generate/score.ts'
import { generateBatch, loadModel } from '../sdk/index.ts'
import { parseConfig } from '../sdk/model/config.ts'
import { Model } from '../sdk/model/model.ts'
import { golden, tensors } from './model/families.ts'

const folder = () => join(mkdtempSync(join(tmpdir(), 'halfling-export-')), 'model')
const ids64 = (ids: readonly number[]) => new Tensor('int64', BigInt64Array.from(ids.map(BigInt)), [1, ids.length])

/** An exported file by onnxruntime's own binding, as transformers.js runs it. */
class Exported {
  private readonly session: InferenceSession
  private past: Record<string, Tensor>
  private seen = 0

  private constructor(session: InferenceSession, past: Record<string, Tensor>) {
    this.session = session
    this.past = past
  }

  static async open(file: string): Promise<Exported> {
    const session = await InferenceSession.create(file, { logSeverityLevel: 3 })
    const caches = session.inputMetadata.filter(({ name }) => name.startsWith('past_key_values.'))
    const empty = caches.map((cache) => {
      const [, heads, , headDim] = (cache as unknown as { shape: readonly number[] }).shape
      return [cache.name, new Tensor('float32', new Float32Array(0), [1, heads, 0, headDim])] as const
    })
    return new Exported(session, Object.fromEntries(empty))
  }

  /** Logits of each of the next tokens. */
  async run(ids: readonly number[]): Promise<Float32Array[]> {
    this.seen += ids.length
    const mask = ids64(Array(this.seen).fill(1))
    const out = await this.session.run({ input_ids: ids64(ids), attention_mask: mask, ...this.past })
    this.past = Object.fromEntries(
      Object.keys(this.past).map((name) => [name, out[name.replace('past_key_values', 'present')] as Tensor]),
    )
    const vocabulary = out.logits.dims[2]
    return ids.map((_, i) => (out.logits.data as Float32Array).slice(i * vocabulary, (i + 1) * vocabulary))
  }

  close = () => this.session.release()
}

const likeliest = (logits: Float32Array): number => logits.indexOf(Math.max(...logits))
function logProb(logits: Float32Array, id: number): number {
  const top = Math.max(...logits)
  return logits[id] - top - Math.log(logits.reduce((sum, z) => sum + Math.exp(z - top), 0))
}

function modelOf(config: Record<string, unknown>): StoredModel {
  const nothing = { generationConfig: {}, tokenizerJson: {}, tokenizerConfig: {}, chatTemplate: null, title: null }
  const own = { config, configFile: 'config.json', tensors: tensors(parseConfig(config, 'config.json')) }
  return { ...nothing, ...own, license: null, warnings: [] }
}

describe('an exported model', () => {
  it('says what it says here, in each type', async () => {
    const output = folder()
    const files = await exportOnnx('nano', output, { dtypes: ['f32', 'q4', 'q8'] })
    expect(readdirSync(join(output, 'onnx')).sort()).toEqual([...files].sort())
    for (const [i, dtype] of (['f32', 'q4', 'q8'] as const).entries()) {
      const lm = await loadModel('nano', { device: 'wasm', dtype, exactActivations: true })
      const prompt = lm.encodePrompt('How many apples are 3 and 4 apples?')
      const options = { temperature: 0, repetitionPenalty: 1, maxNewTokens: 16 }
      let expected: number[] = []
      for await (const { tokenIds } of generateBatch(lm, [prompt], options)) expected = tokenIds
      await lm.close()
      const exported = await Exported.open(join(output, 'onnx', files[i]))
      const ids: number[] = []
      for (let next = prompt; ids.length < expected.length; next = ids.slice(-1))
        ids.push(likeliest((await exported.run(next)).at(-1)!))
      await exported.close()
      expect(ids).toEqual(expected)
    }
    expect(JSON.parse(readFileSync(join(output, 'tokenizer_config.json'), 'utf8')).chat_template).toMatch(/message/)
    await expect(exportOnnx('nano', output)).rejects.toThrow(OptionError)
  })

  // Heads twice as wide as transformers' numbers are for: onnxruntime's attention takes multiples of 16.
  const families = golden.families.map(
    ({ title, config }) => [title, { ...config, head_dim: 16, rope_scaling: null }] as const,
  )
  it.each(families)('%s: whole prompts and token by token', async (_, json) => {
    const output = folder()
    const config = parseConfig(json, 'config.json')
    const [file] = await exportOnnx(modelOf(json), output, { dtypes: ['f32'] })
    const target = await openTarget({ device: 'wasm', threads: 1 })
    const model = await Model.load(target, config, tensors(config), 'random')
    const expected = await scoreExamples(
      model,
      golden.ids.map((inputIds, row) => ({ row, inputIds, labels: inputIds })),
    )
    await target.close()
    for (const [row, ids] of golden.ids.entries()) {
      const exported = await Exported.open(join(output, 'onnx', file))
      const half = Math.floor(ids.length / 2)
      const logits = await exported.run(ids.slice(0, half))
      for (const id of ids.slice(half)) logits.push(...(await exported.run([id])))
      await exported.close()
      for (const [i, id] of ids.slice(1).entries())
        expect(Math.abs(logProb(logits[i], id) - expected[row][i]), `row ${row}, ${i}`).toBeLessThan(1e-4)
    }
  })

  it('is refused where onnxruntime has no attention for it', async () => {
    const wanted = 'config.json: head_dim is 8, GroupQueryAttention of onnxruntime takes multiples of 16'
    await expect(exportOnnx(modelOf(golden.families[0].config), folder())).rejects.toThrow(wanted)
  })

  it('is refused in a type that is not written', async () => {
    const error = exportOnnx('nano', folder(), { dtypes: ['q4a' as never] })
    await expect(error).rejects.toThrow('dtypes: "q4a" is not one of f32, q4, q8')
  })
})
