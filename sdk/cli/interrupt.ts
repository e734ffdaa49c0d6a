import { Interrupted } from './errors.ts'

/** Runs `work` with a signal that the first Ctrl-C aborts; a second one ends the process at once. */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController()
  const abort = () => {
    if (controller.signal.aborted) process.exit(130)
    controller.abort(new Interrupted())
  }
  process.on('SIGINT', abort)
  try {
    return await work(controller.signal)
  } finally {
    process.off('SIGINT', abort)
  }
}
