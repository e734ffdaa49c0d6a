import { byteLength } from '../dtype.ts'
import { bytesSource } from '../formats/byte-source.ts'
import { writeFolderAtomically } from '../formats/node-file.ts'
import { safetensorsStream, type TensorData } from '../formats/safetensors.ts'
import type { StoredTensor } from '../formats/stored.ts'
import { fromFloats } from '../quant/convert.ts'
import type { Adapter, AdapterModule } from './adapter.ts'
import { readWeight } from './lora.ts'
import type { Model } from './model.ts'
import { weightShapes } from './names.ts'

export type MergedDType = 'F32' | 'F16' | 'BF16'

const graphDType = { F32: 'f32', F16: 'f16', BF16: 'bf16' } as const
const configDType = { F32: 'float32', F16: 'float16', BF16: 'bfloat16' } as const

const table = 'model.embed_tokens.weight'
const head = 'lm_head.weight'

/**
 * The weights of the model with its active adapters merged in (in f32, then rounded to `dtype`), by checkpoint name. Quantized base
 * weights are dequantized. A tied model whose adapter has its own copy of one of the two tables comes out untied.
 */
export async function* mergedTensors(model: Model, dtype: MergedDType = 'F32'): AsyncGenerator<TensorData, void> {
  await model.pullAdapters()
  for (const [name, shape] of mergedShapes(model)) yield { name, dtype, shape, data: await merged(model, name, dtype) }
}

/**
 * Writes the merged model as an HF snapshot: model.safetensors, and `files` (`LanguageModel.configFiles`) with config.json brought
 * into line. All of it appears at once, in a folder that must not be there yet (or be empty). Holds one tensor at a time.
 *
 * @throws OptionError when the folder has files in it
 */
export async function saveMerged(
  model: Model,
  folder: string,
  files: ReadonlyMap<string, string>,
  dtype: MergedDType = 'BF16',
): Promise<void> {
  await model.pullAdapters()
  const shapes = mergedShapes(model)
  const tensors = [...shapes].map(([name, shape]) => ({
    name,
    dtype,
    shape,
    bytes: byteLength({ dtype: graphDType[dtype], shape }),
    async *chunks() {
      yield await merged(model, name, dtype)
    },
  }))
  const all = new Map<string, Iterable<Uint8Array> | AsyncIterable<Uint8Array>>([
    ['model.safetensors', safetensorsStream(tensors, { format: 'pt' })],
  ])
  for (const [name, text] of files) {
    const own = name === 'config.json' ? mergedConfig(text, dtype, !shapes.has(head)) : text
    all.set(name, [new TextEncoder().encode(own)])
  }
  await writeFolderAtomically(folder, all)
}

function mergedConfig(text: string, dtype: MergedDType, tied: boolean): string {
  const { torch_dtype: _, ...config } = JSON.parse(text)
  return `${JSON.stringify({ ...config, dtype: configDType[dtype], tie_word_embeddings: tied }, null, 2)}\n`
}

/** The merged weights as tensors that are computed when they are read; the last one is kept. f32, row-major. */
export async function mergedStored(model: Model): Promise<Map<string, StoredTensor>> {
  await model.pullAdapters()
  let last: { name: string; bytes: Uint8Array } | undefined
  const stored = [...mergedShapes(model)].map(([name, shape]): [string, StoredTensor] => {
    const bytes = byteLength({ dtype: 'f32', shape })
    const read = async (byteOffset = 0, length = bytes - byteOffset): Promise<Uint8Array> => {
      if (last?.name !== name) {
        last = undefined
        last = { name, bytes: await merged(model, name, 'F32') }
      }
      return bytesSource(name, last.bytes).read(byteOffset, length)
    }
    return [name, { name, dtype: 'F32', shape, bytes, file: 'the merged model', read }]
  })
  return new Map(stored)
}

const activeAdapters = (model: Model): Adapter[] => model.activeAdapters.map((name) => model.adapters.get(name)!)

function mergedShapes(model: Model): Map<string, readonly number[]> {
  const shapes = weightShapes(model.config)
  if (activeAdapters(model).some(({ saved }) => saved.has(head) || saved.has(table)))
    shapes.set(head, shapes.get(table)!)
  return shapes
}

async function merged(model: Model, name: string, dtype: MergedDType): Promise<Uint8Array> {
  const active = activeAdapters(model)
  const copy = active.findLast(({ saved }) => saved.has(name))?.saved.get(name)
  const weight = copy?.slice() ?? (await readWeight(model, model.weights.has(name) ? name : table))
  const path = name.replace(/\.weight$/, '')
  addUpdates(
    weight,
    active.flatMap(({ modules }) => modules.get(path) ?? []),
  )
  return fromFloats(weight, graphDType[dtype])
}

/**
 * Adds to w [O, I], in place, what each module contributes: s·BA, or with DoRA m/||W + s·BA||·(W + s·BA) - W, where W is w as it
 * was before any of them (the decoder adds up adapters in the same way).
 */
export function addUpdates(w: Float32Array, modules: readonly AdapterModule[]): void {
  if (modules.length === 0) return
  const input = modules[0].a.length / modules[0].rank
  const update = new Float64Array(input)
  const row = new Float64Array(input)
  for (let o = 0; o < w.length / input; o++) {
    const base = w.subarray(o * input, (o + 1) * input)
    row.set(base)
    for (const { rank, scale, a, b, magnitude } of modules) {
      update.fill(0)
      for (let k = 0; k < rank; k++) {
        const factor = scale * b[o * rank + k]
        for (let i = 0; i < input; i++) update[i] += factor * a[k * input + i]
      }
      if (!magnitude) {
        for (let i = 0; i < input; i++) row[i] += update[i]
        continue
      }
      let squares = 0
      for (let i = 0; i < input; i++) squares += (base[i] + update[i]) ** 2
      const gain = magnitude[o] / Math.sqrt(squares)
      for (let i = 0; i < input; i++) row[i] += gain * (base[i] + update[i]) - base[i]
    }
    base.set(row)
  }
}
