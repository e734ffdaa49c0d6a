import { HubError } from '../errors.ts'
import { modelFiles } from '../store/sources.ts'
import type { ModelName } from './names.ts'

/** The files beside the weights that we read. */
const small = modelFiles.filter((file) => !file.includes('.safetensors'))

const gguf = /\.gguf$/i

/** Weights and what belongs to them; one set of weights where a repository has several. */
export function chooseModelFiles({ id, file }: Pick<ModelName, 'id' | 'file'>, paths: readonly string[]): string[] {
  const has = (path: string) => paths.includes(path)
  const ggufs = paths.filter((path) => gguf.test(path))
  const some = (list: readonly string[]) => list.slice(0, 20).join(', ') + (list.length > 20 ? ', ...' : '')
  if (file) {
    if (has(file)) return [file]
    throw new HubError(`${id}: has no ${file}; its .gguf files: ${some(ggufs) || 'none'}`)
  }
  const model = 'model.safetensors'
  const shards = paths.filter((path) => /^model-\d+-of-\d+\.safetensors$/.test(path))
  const weights = has(model) ? [model] : has(`${model}.index.json`) ? [`${model}.index.json`, ...shards] : []
  const adapter = has('adapter_config.json') ? ['adapter_model.safetensors'].filter(has) : []
  if (weights.length + adapter.length === 0) {
    if (ggufs.length > 0)
      throw new HubError(`${id}: choose one of its .gguf files, as in ${id}/${ggufs[0]}: ${some(ggufs)}`)
    throw new HubError(`${id}: has neither model.safetensors nor .gguf files; it has ${some(paths) || 'no files'}`)
  }
  if (weights.length > 0)
    for (const needed of ['config.json', 'tokenizer.json'])
      if (!has(needed)) throw new HubError(`${id}: has no ${needed}, which is needed to run it`)
  return [...small.filter(has), ...weights, ...adapter]
}
