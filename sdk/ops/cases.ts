import { type DType, elementCount } from '../dtype.ts'
import type { CaseInput } from '../graph/spec.ts'

/** Arguments of op cases. Lengths are odd on purpose: they cross SIMD widths and tile borders. */
export const normal = (shape: readonly number[], scale = 1, offset = 0): CaseInput => ({
  type: { dtype: 'f32', shape },
  fill: { kind: 'normal', scale, offset },
})

export const floats = (values: readonly number[], shape: readonly number[] = [values.length]): CaseInput => ({
  type: { dtype: 'f32', shape },
  fill: { kind: 'values', values },
})

export const ints = (values: readonly number[], shape: readonly number[] = [values.length]): CaseInput => ({
  type: { dtype: 'i32', shape },
  fill: { kind: 'values', values },
})

export const frozen = (dtype: DType, shape: readonly number[], scale = 1, offset = 0): CaseInput => ({
  type: { dtype, shape },
  fill: { kind: 'normal', scale, offset },
  weight: 'frozen',
})

export const trained = (shape: readonly number[], scale = 1, offset = 0): CaseInput => ({
  ...frozen('f32', shape, scale, offset),
  weight: 'trainable',
})

export const vectorDTypes = ['f32', 'f16', 'bf16'] as const

/** `count` integers below `limit`, well spread and with repeats. */
export const spread = (count: number, limit: number, step = 7): number[] =>
  Array.from({ length: count }, (_, i) => (i * step + (i >> 2)) % limit)

/** Row at which each token's segment begins, for packed segments of these lengths. */
export const startsOf = (lengths: readonly number[]): number[] => {
  const starts: number[] = []
  for (const length of lengths) starts.push(...new Array<number>(length).fill(starts.length))
  return starts
}

/** Distinct values in (-2, 2), far from each other and from 0: away from every kink. */
export const distinct = (shape: readonly number[], step = 11): CaseInput => {
  const n = elementCount(shape)
  return floats(
    Array.from({ length: n }, (_, i) => (((i * step) % n) / n) * 4 - 2 + 0.013),
    shape,
  )
}
