// Threads that run a module of ours, x-worker.ts, which is x-worker.js in dist. Pages name it x-worker.js, where bundlers see it:
// new Worker(new URL('./x-worker.js', import.meta.url)). From the sources Vite takes the .ts of that name. Node takes the ending that
// this file has, and where that is .ts (tsx, vitest) the thread needs tsx's loader of its own.

/** A thread that answers messages, one at a time. */
export interface Thread {
  /** The answer. Rejects where none comes within the time, the thread fails, or it needs more memory than it may have. */
  ask<T>(message: unknown, seconds: number): Promise<T>
  end(): Promise<void>
}

/**
 * A thread of Node, which the process does not wait for.
 *
 * @param module './x-worker' beside the module whose import.meta.url is `base`: bundlers for pages do not see it
 * @param megabytes of values that it may hold
 */
export async function nodeThread(module: string, base: string, megabytes: number): Promise<Thread> {
  const { Worker } = await import('node:worker_threads')
  const isSource = import.meta.url.endsWith('.ts')
  const worker = new Worker(new URL(`${module}.${isSource ? 'ts' : 'js'}`, base), {
    execArgv: isSource ? ['--import', typescriptLoader()] : [],
    resourceLimits: { maxOldGenerationSizeMb: megabytes, maxYoungGenerationSizeMb: 32 },
  })
  const { thread, hear, fail } = asking(worker)
  worker.on('message', hear)
  worker.on('error', (error: NodeJS.ErrnoException) =>
    fail(error.code === 'ERR_WORKER_OUT_OF_MEMORY' ? new Error('it took too much memory', { cause: error }) : error),
  )
  worker.on('exit', () => fail(new Error('its thread ended')))
  worker.unref()
  return thread
}

const typescriptLoader = (): string =>
  `data:text/javascript,import { register } from '${import.meta.resolve('tsx/esm/api')}'; register()`

/** A Worker of a page. */
export function pageThread(worker: Worker): Thread {
  const { thread, hear, fail } = asking(worker)
  worker.onmessage = ({ data }) => hear(data)
  worker.onerror = (event) => {
    event.preventDefault()
    fail(new Error(event.message || 'its script cannot be loaded'))
  }
  return thread
}

function asking(worker: { postMessage(message: unknown): void; terminate(): unknown }) {
  let waiting: { hear(message: unknown): void; fail(error: Error): void } | undefined
  let failure: Error | undefined
  const thread: Thread = {
    async ask<T>(message: unknown, seconds: number) {
      if (failure) throw failure
      let timer: ReturnType<typeof setTimeout> | undefined
      try {
        return await new Promise<T>((resolve, reject) => {
          waiting = { hear: resolve as (message: unknown) => void, fail: reject }
          timer = setTimeout(() => reject(new Error(`it took more than ${seconds} s`)), seconds * 1000)
          worker.postMessage(message)
        })
      } finally {
        clearTimeout(timer)
        waiting = undefined
      }
    },
    async end() {
      await worker.terminate()
    },
  }
  const fail = (error: Error) => {
    failure ??= error
    waiting?.fail(failure)
  }
  return { thread, hear: (message: unknown) => waiting?.hear(message), fail }
}
