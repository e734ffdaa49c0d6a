// What targets in Node ask of the machine.
import { availableParallelism, cpus } from 'node:os'
import { checkThreads } from './threads.ts'

/** HALFLING_THREADS, else the cores, 8 at most. Throws OptionError. */
export function defaultThreads(): number {
  const given = process.env.HALFLING_THREADS
  return given ? checkThreads(Number(given), 'HALFLING_THREADS') : Math.min(8, availableParallelism())
}

export const processorName = (): string => cpus()[0]?.model.trim() ?? 'unknown processor'
