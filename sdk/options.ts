import { OptionError } from './errors.ts'
import { nearest } from './nearest.ts'

// What people give who have no types: an option of an unknown name is never passed over in silence.

/** Throws OptionError for what is no object, and for a key that is not among the known, naming the nearest. */
export function checkKeys(given: unknown, known: readonly string[], what: string): void {
  if (!isObject(given)) throw new OptionError(`${what}: wanted an object, got ${shown(given)}`)
  for (const key of Object.keys(given)) {
    if (known.includes(key)) continue
    const near = nearest(
      key.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase()),
      known,
    )
    throw new OptionError(`${what}: there is no ${key}${near ? `; did you mean ${near}?` : ''}`)
  }
}

/** Throws OptionError unless the value is left out or one of the words. */
export function checkWord(value: unknown, words: readonly string[], what: string): void {
  if (value !== undefined && !words.includes(value as string))
    throw new OptionError(`${what}: ${shown(value)} is not one of ${words.join(', ')}`)
}

/** A value in a message. */
export const shown = (value: unknown): string =>
  typeof value === 'string' ? `"${value}"` : value !== null && typeof value === 'object' ? 'an object' : String(value)

/** Is it an object of keys and values, as in JSON? */
export const isObject = (x: unknown): x is Record<string, unknown> =>
  typeof x === 'object' && x !== null && !Array.isArray(x)
