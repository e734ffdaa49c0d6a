// What the target needs of Node: files, workers, the processor.
import { readFile } from 'node:fs/promises'
import { Worker } from 'node:worker_threads'
import { DeviceError } from '../../sdk/errors.ts'
import type { Host } from './host.ts'

export { defaultThreads, processorName } from '../machine.ts'

export const whySingle = (): null => null

export const compileKernels: Host['compileKernels'] = async (name) => {
  const file = new URL(`../../kernels-as/dist/${name}.wasm`, import.meta.url)
  try {
    return await WebAssembly.compile(await readFile(file))
  } catch (cause) {
    throw new DeviceError(`wasm: cannot load ${file.pathname}; build the kernels with \`npm run build\``, { cause })
  }
}

/** execArgv is emptied: a TypeScript loader of the parent is of no use to the plain worker. */
export const startThread: Host['startThread'] = (onReply, onEnd) => {
  const worker = new Worker(new URL('./worker.mjs', import.meta.url), { execArgv: [] })
  worker.on('message', onReply)
  worker.on('error', (error) => onEnd(`a worker died: ${error}`))
  worker.on('exit', (code) => onEnd(`a worker exited with code ${code}`))
  return {
    post: (message) => worker.postMessage(message),
    hold: (running) => (running ? worker.ref() : worker.unref()),
    end: () => worker.terminate(),
  }
}
