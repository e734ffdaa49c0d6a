import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'

// Where the golden numbers and the models of ../shared are, and a seeded generator for tests.

const golden = process.env.HALFLING_GOLDEN ?? '../shared/golden'
export const table = (name: string): string => join(golden, 'tables', name)
export const goldenFile = (...path: string[]): string => join(golden, ...path)
export const model = (...path: string[]): string => join(dirname(golden), 'models', ...path)

/** For `it.skipIf`: true when a file is absent, after saying so. */
export function missing(path: string): boolean {
  if (existsSync(path)) return false
  console.warn(`skipped: ${path} is not here`)
  return true
}

/** Integers below n, the same for the same seed. */
export function integers(seed: number): (n: number) => number {
  let state = seed | 0
  return (n) => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * n)
  }
}
