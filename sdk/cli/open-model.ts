import type { LanguageModel } from '../generate/language-model.ts'
import { loadModel } from '../load.ts'
import type { ModelFlags } from './options.ts'
import { formatNumber, log } from './output.ts'
import { Progress } from './progress.ts'

/** Loads the model that the flags name, with progress. */
export async function openModel(
  { model, adapter, device, workload, threads, build, dtype, cacheDtype, exactActivations }: ModelFlags,
  signal: AbortSignal,
): Promise<{ lm: LanguageModel; loadSeconds: number }> {
  const start = performance.now()
  const [pulling, loading] = [new Progress('pulling'), new Progress('loading')]
  let compiling = new Progress('compiling')
  const lm = await loadModel(model, {
    adapter,
    device,
    workload,
    threads,
    build,
    dtype,
    cacheDType: cacheDtype,
    exactActivations,
    signal,
    onWarning: (message) => log(`warning: ${message}`),
    onCompile: ({ program, pipelines, totalPipelines }) => {
      if (pipelines === 0) compiling = new Progress('compiling')
      compiling.update(pipelines, totalPipelines, `${pipelines} of ${totalPipelines} kernels of ${program}`)
      if (pipelines === totalPipelines) compiling.end()
    },
    onProgress: (progress) => {
      const { loadedBytes, totalBytes } = progress
      const details = `${formatNumber(loadedBytes / 1e6)} of ${formatNumber(totalBytes / 1e6)} MB`
      const isDownload = 'file' in progress
      ;(isDownload ? pulling : loading).update(loadedBytes, totalBytes, details)
    },
  }).finally(() => loading.end())
  return { lm, loadSeconds: (performance.now() - start) / 1000 }
}

/** The same, runs `work` with it, and frees it whatever happens. */
export async function withModel<T>(
  flags: ModelFlags,
  signal: AbortSignal,
  work: (lm: LanguageModel, loadSeconds: number) => Promise<T>,
): Promise<T> {
  const { lm, loadSeconds } = await openModel(flags, signal)
  try {
    return await work(lm, loadSeconds)
  } finally {
    await lm.close()
  }
}
