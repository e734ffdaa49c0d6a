import { openModel, type StoredModel } from '../formats/stored-model.ts'
import type { Source } from '../store/store.ts'

/** What `loadModel` takes, or a model that is open, as it lies in files. */
export async function storedModel(model: string | Source | StoredModel, signal?: AbortSignal): Promise<StoredModel> {
  if (typeof model !== 'string' && 'tensors' in model) return model
  return openModel(
    typeof model === 'string' ? await (await import('./models.ts')).resolveModel(model, { signal }) : model,
  )
}
