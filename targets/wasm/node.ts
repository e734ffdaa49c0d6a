// What the target needs of Node: files, workers, the processor.
import { readFile } from 'node:fs/promises'
import { availableParallelism, cpus } from 'node:os'
import { Worker } from 'node:worker_threads'
import { DeviceError } from '../../sdk/errors.ts'

/** As many compute threads as cores, 8 at most: beyond that memory is the limit. */
export const defaultThreads = (): number => Math.min(8, availableParallelism())

export const processorName = (): string => cpus()[0]?.model.trim() ?? 'unknown processor'

export async function compileKernels(shared: boolean): Promise<WebAssembly.Module> {
  const file = new URL(`../../kernels-as/dist/${shared ? 'kernels' : 'kernels-single'}.wasm`, import.meta.url)
  try {
    return await WebAssembly.compile(await readFile(file))
  } catch (cause) {
    throw new DeviceError(`wasm: cannot load ${file.pathname}; build the kernels with \`npm run build\``, { cause })
  }
}

/** execArgv is emptied: a TypeScript loader of the parent is of no use to the plain worker. */
export const startWorker = (): Worker => new Worker(new URL('./worker.mjs', import.meta.url), { execArgv: [] })
