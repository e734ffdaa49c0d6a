import { OptionError } from '../sdk/errors.ts'

/** Throws OptionError naming where the number stands. */
export function checkThreads(threads: number, name: string): number {
  if (Number.isInteger(threads) && threads >= 1 && threads <= 64) return threads
  throw new OptionError(`${name}: ${threads}; give a whole number from 1 to 64`)
}
