import { openModel, type StoredModel } from './formats/stored-model.ts'
import { type WriteOptions, type WriteReport, writeModel } from './model/write.ts'
import { type Source, type Store, storeAt } from './store/store.ts'

/** What came of it, and where. */
export interface QuantizeReport extends WriteReport {
  readonly output: string
}

/**
 * Writes a model anew with its weights in another type: as a GGUF file where `output` ends in .gguf, else as an HF folder (q8 as
 * compressed-tensors: int8 in groups of 32; token tables as f16, vectors as f32). Holds a piece of a tensor at a time, and needs no
 * device. What the source holds in the wanted type already stays as it is, bit for bit.
 *
 * @param model what `loadModel` takes, or a model that is open
 * @throws FormatError for broken or unsupported files and for weights that the type cannot hold, OptionError for a place that is taken
 *   and for q4a and q4 in a folder, HalflingError of code 'io' when it cannot be written
 */
export async function quantizeModel(
  model: string | Source | StoredModel,
  output: string | Store,
  options: WriteOptions,
): Promise<QuantizeReport> {
  const store = await storeAt(output)
  if (typeof model !== 'string' && 'tensors' in model)
    return { output: store.name, ...(await writeModel(model, store, options)) }
  const { signal } = options
  const source =
    typeof model === 'string' ? await (await import('./hub/models.ts')).resolveModel(model, { signal }) : model
  return { output: store.name, ...(await writeModel(await openModel(source), store, options)) }
}
