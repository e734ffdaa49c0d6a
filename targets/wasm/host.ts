import { isNode } from '../../sdk/runtime.ts'
import type { WorkerReply } from './pool.ts'

/** A thread that runs worker.mjs: a Worker of the page, or one of Node. */
export interface Thread {
  post(message: unknown): void
  /** While a run is on, it keeps the process alive. */
  hold(running: boolean): void
  end(): unknown
}

/** Kernels in kernels-as/dist. */
export type KernelsName = `kernels${'' | '-single'}${'' | '-relaxed'}`

/** What the target needs of the place that it runs in. */
export interface Host {
  /** As many compute threads as cores, 8 at most: beyond that memory is the limit. */
  readonly defaultThreads: () => number
  readonly processorName: () => string
  /** null, or why threads cannot share memory here, and the remedy. */
  readonly whySingle: () => string | null
  /** Throws DeviceError; its cause is a CompileError where this engine lacks their instructions. */
  readonly compileKernels: (name: KernelsName) => Promise<WebAssembly.Module>
  readonly startThread: (onReply: (reply: WorkerReply) => void, onEnd: (reason: string) => void) => Thread
}

export const findHost = (): Promise<Host> => (isNode ? import('./node.ts') : import('./browser.ts'))
