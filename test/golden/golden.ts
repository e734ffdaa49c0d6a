import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import type { FloatDType } from '../../sdk/dtype.ts'
import { decodeFloats, openSafetensors } from '../../sdk/formats/safetensors.ts'
import { openTensors } from '../../sdk/formats/stored-model.ts'
import { KeyValueCache } from '../../sdk/generate/cache.ts'
import { resolveSampling } from '../../sdk/generate/sampling.ts'
import { decode, feed, type Sequence } from '../../sdk/generate/steps.ts'
import type { Adapter } from '../../sdk/model/adapter.ts'
import { parseConfig } from '../../sdk/model/config.ts'
import { adapterFromPeft } from '../../sdk/model/lora.ts'
import { Model } from '../../sdk/model/model.ts'
import { storeAt } from '../../sdk/store/store.ts'
import { opened } from '../../sdk/store/text.ts'
import type { Target } from '../../sdk/target.ts'

// Cases are found by walking the golden folder, so that another folder of the same layout can be tested as well.

export const goldenRoot = process.env.HALFLING_GOLDEN ?? '../shared/golden'
export const missing = existsSync(goldenRoot) ? null : `golden folder ${goldenRoot} is not there`

/** Folders of the golden root that hold a file. */
export function foldersWith(file: string): string[] {
  if (missing) return []
  return readdirSync(goldenRoot, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && existsSync(join(goldenRoot, entry.name, file)))
    .map((entry) => join(goldenRoot, entry.name))
}

/** Files of a golden folder by a pattern. */
export const filesOf = (folder: string, pattern: RegExp): string[] =>
  existsSync(folder) ? readdirSync(folder).filter((name) => pattern.test(name)) : []

/** Where a golden folder's model lies: in it, or under `models/` beside the golden root. */
export function modelFolder(folder: string): string {
  if (existsSync(join(folder, 'config.json'))) return folder
  return join(dirname(goldenRoot), 'models', basename(folder))
}

export const readJson = <T>(path: string): T => JSON.parse(readFileSync(path, 'utf8')) as T

/** Every tensor of a safetensors file as f32. */
export async function readTensors(path: string): Promise<Map<string, { shape: number[]; data: Float32Array }>> {
  const file = await openSafetensors(await opened(await storeAt(path), ''))
  const all = new Map<string, { shape: number[]; data: Float32Array }>()
  for (const [name, tensor] of file.tensors)
    all.set(name, { shape: [...tensor.shape], data: decodeFloats(tensor.dtype, await tensor.read()) })
  return all
}

/** The model of a golden folder, which may have no tokenizer. */
export async function bareModel(target: Target, folder: string, dtype: 'auto' | FloatDType = 'auto'): Promise<Model> {
  const at = modelFolder(folder)
  const { tensors } = await openTensors(await storeAt(at))
  return Model.load(target, parseConfig(readJson(join(at, 'config.json')), at), tensors, at, { dtype })
}

/** max |a - b| relative to max |b|. */
export function relativeError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY
  let [error, size] = [0, 0]
  for (let i = 0; i < a.length; i++) {
    error = Math.max(error, Math.abs(a[i] - b[i]))
    size = Math.max(size, Math.abs(b[i]))
    if (!Number.isFinite(a[i])) return Number.POSITIVE_INFINITY
  }
  return error / Math.max(size, 1e-30)
}

export interface GoldenLora {
  readonly r: number
  readonly alpha: number
  readonly targets: string[]
  readonly dora?: boolean
  readonly rslora?: boolean
}

const goldenLora = (lora: GoldenLora) => ({
  r: lora.r,
  loraAlpha: lora.alpha,
  loraDropout: 0,
  useRslora: lora.rslora ?? false,
  useDora: lora.dora ?? false,
  targetModules: lora.targets,
  rankPattern: {},
  alphaPattern: {},
  modulesToSave: [],
})

/** Loads an adapter of the golden files and makes it active. */
export async function useAdapter(model: Model, path: string, lora: GoldenLora): Promise<Adapter> {
  const adapter = adapterFromPeft('golden', goldenLora(lora), await readTensors(path), model.config, path)
  model.adapters.set('golden', adapter)
  await model.setAdapters(['golden'])
  return adapter
}

/** Greedy ids after a prompt, through the KV cache. */
export async function greedy(model: Model, prompt: readonly number[], count: number): Promise<number[]> {
  const cache = new KeyValueCache(model, 1, { exactActivations: true })
  const sampling = resolveSampling({ temperature: 0 }, {})
  const sequence: Sequence = { sampling, stream: [0, 0], promptIds: prompt, drawn: [], cached: 0, counted: -1 }
  await feed(model, cache, 0, sequence, prompt.slice(0, -1))
  while (sequence.drawn.length < count) {
    const [[{ id }]] = await decode(model, cache, [sequence])
    sequence.drawn.push(id)
  }
  cache.free()
  return sequence.drawn
}
