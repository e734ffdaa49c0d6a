// What the target needs of a browser, in a page or in a worker of it.
import { DeviceError } from '../../sdk/errors.ts'
import type { Host } from './host.ts'

export const defaultThreads = (): number => Math.min(8, navigator.hardwareConcurrency ?? 1)

export const processorName = (): string => {
  const { platform } = (navigator as { userAgentData?: { platform?: string } }).userAgentData ?? {}
  return `${navigator.hardwareConcurrency ?? 1} cores${platform ? ` on ${platform}` : ''}`
}

export const whySingle = (): string | null =>
  globalThis.crossOriginIsolated
    ? null
    : 'single-threaded: the page is not cross-origin isolated (serve it with Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp)'

/** Written out: bundlers copy what they see in `new URL`. */
const urls = {
  kernels: () => new URL('../../kernels-as/dist/kernels.wasm', import.meta.url),
  'kernels-relaxed': () => new URL('../../kernels-as/dist/kernels-relaxed.wasm', import.meta.url),
  'kernels-single': () => new URL('../../kernels-as/dist/kernels-single.wasm', import.meta.url),
  'kernels-single-relaxed': () => new URL('../../kernels-as/dist/kernels-single-relaxed.wasm', import.meta.url),
}

export const compileKernels: Host['compileKernels'] = async (name) => {
  const url = urls[name]()
  try {
    const answer = await fetch(url)
    if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`)
    return await WebAssembly.compile(await answer.arrayBuffer())
  } catch (cause) {
    throw new DeviceError(`wasm: cannot load ${url.href}: ${(cause as Error).message}`, { cause })
  }
}

/** Milliseconds that a thread takes to end; nothing tells. Chromium 147 keeps both for good where the Worker that started it ends meanwhile. */
const ending = 100

export const startThread: Host['startThread'] = (onReply, onEnd) => {
  const worker = new Worker(new URL('./worker.mjs', import.meta.url), { type: 'module' })
  worker.onmessage = ({ data }) => onReply(data)
  worker.onerror = ({ message }) => onEnd(`a worker died: ${message || 'its script could not be loaded'}`)
  return {
    post: (message) => worker.postMessage(message),
    hold() {},
    end: async () => {
      worker.terminate()
      await new Promise((resolve) => setTimeout(resolve, ending))
    },
  }
}
