import { bytesOf } from '../bytes.ts'
import { byteLength } from '../dtype.ts'
import type { StoredTensor } from '../formats/stored.ts'
import { bytesSource } from '../store/byte-source.ts'
import { type Adapter, type AdapterModule, isTableModule } from './adapter.ts'
import { readWeight } from './lora.ts'
import type { Model } from './model.ts'
import { embeddingName, outputName, weightShapes } from './names.ts'

/**
 * The weights of the model with its active adapters merged in, by checkpoint name: f32, computed when they are read; the last one is
 * kept. Quantized base weights are dequantized. A tied model whose adapter has its own copy of one of the two tables comes out untied.
 */
export async function mergedTensors(model: Model): Promise<Map<string, StoredTensor>> {
  await model.pullAdapters()
  let last: { name: string; bytes: Uint8Array } | undefined
  const stored = [...mergedShapes(model)].map(([name, shape]): [string, StoredTensor] => {
    const bytes = byteLength({ dtype: 'f32', shape })
    const read = async (byteOffset = 0, length = bytes - byteOffset): Promise<Uint8Array> => {
      if (last?.name !== name) {
        last = undefined
        last = { name, bytes: bytesOf(await merged(model, name)) }
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
  const unties = ({ modules, saved, tables }: Adapter) =>
    saved.has(outputName) ||
    saved.has(embeddingName) ||
    tables.get(outputName) !== tables.get(embeddingName) ||
    [...modules.keys()].some(isTableModule)
  if (activeAdapters(model).some(unties)) shapes.set(outputName, shapes.get(embeddingName)!)
  return shapes
}

/** A weight with its active adapters. */
export async function merged(model: Model, name: string): Promise<Float32Array> {
  const active = activeAdapters(model)
  const copies = active.map(({ saved, tables }) => saved.get(name) ?? tables.get(name))
  const weight =
    copies.findLast((copy) => copy !== undefined)?.slice() ??
    (await readWeight(model, model.weights.has(name) ? name : embeddingName))
  const path = name.replace(/\.weight$/, '')
  addUpdates(
    weight,
    active.flatMap(({ modules }) => modules.get(path) ?? []),
  )
  return weight
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
