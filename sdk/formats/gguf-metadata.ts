import { FormatError } from '../errors.ts'
import type { GgufFile } from './gguf.ts'

// Values of GGUF metadata by key, with the type that is expected. Every function throws FormatError naming file and key.

/** The largest count or size that a model may have anywhere. */
const maxSize = 2 ** 31

export function string(file: GgufFile, key: string): string | undefined {
  const value = file.metadata.get(key)
  if (value !== undefined && typeof value !== 'string') fail(file, key, 'is not a string')
  return value as string | undefined
}

/** An f32 comes as the shortest decimal that is that f32: 1e-6, not 9.999999974752427e-7. */
export function number(file: GgufFile, key: string): number | undefined {
  const value = file.metadata.get(key)
  if (value === undefined) return undefined
  if (typeof value !== 'number' || !Number.isFinite(value)) return fail(file, key, 'is not a finite number')
  if (Math.fround(value) === value)
    for (let digits = 6; digits < 9; digits++) {
      const short = Number(value.toPrecision(digits))
      if (Math.fround(short) === value) return short
    }
  return value
}

/** A size or an id. One value per layer will do where they are all the same. */
export function integer(file: GgufFile, key: string): number | undefined {
  const value = file.metadata.get(key)
  if (value === undefined) return undefined
  let n: unknown = value
  if (value instanceof Int32Array || value instanceof Uint32Array) {
    n = value[0]
    if (value.some((other) => other !== n)) fail(file, key, 'differs between layers, which is not supported')
  }
  if (!Number.isInteger(n) || (n as number) < 0 || (n as number) > maxSize) return fail(file, key, 'is not a size')
  return n as number
}

export function boolean(file: GgufFile, key: string): boolean | undefined {
  const value = file.metadata.get(key)
  if (value !== undefined && typeof value !== 'boolean') fail(file, key, 'is not a boolean')
  return value as boolean | undefined
}

export function strings(file: GgufFile, key: string): readonly string[] | undefined {
  const value = file.metadata.get(key)
  if (value === undefined) return undefined
  if (!Array.isArray(value) || value.some((s) => typeof s !== 'string'))
    return fail(file, key, 'is not a list of strings')
  return value as string[]
}

export function required<T>(file: GgufFile, key: string, value: T | undefined): T {
  return value === undefined ? fail(file, key, 'is missing') : value
}

export function fail(file: GgufFile, key: string, message: string): never {
  throw new FormatError(`${file.name}: ${key}: ${message}`)
}
