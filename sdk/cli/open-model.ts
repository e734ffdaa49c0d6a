import type { LanguageModel } from '../generate/language-model.ts'
import { loadModel } from '../load.ts'
import type { ModelFlags } from './options.ts'
import { formatNumber } from './output.ts'
import { Progress } from './progress.ts'

/** Loads the model that the flags name, runs `work` with it, and frees it whatever happens. */
export async function withModel<T>(
  { model, adapter, device, threads, dtype }: ModelFlags,
  signal: AbortSignal,
  work: (lm: LanguageModel, loadSeconds: number) => Promise<T>,
): Promise<T> {
  const start = performance.now()
  const progress = new Progress('loading')
  const lm = await loadModel(model, {
    adapter,
    device,
    threads,
    dtype,
    signal,
    onProgress: ({ loadedBytes, totalBytes }) =>
      progress.update(
        loadedBytes,
        totalBytes,
        `${formatNumber(loadedBytes / 1e6)} of ${formatNumber(totalBytes / 1e6)} MB`,
      ),
  }).finally(() => progress.end())
  try {
    return await work(lm, (performance.now() - start) / 1000)
  } finally {
    await lm.close()
  }
}
