import { elementCount } from '../dtype.ts'
import type { NdArray } from '../graph/spec.ts'

/** A zero-filled tensor of the reference executor. */
export const array = (...shape: number[]): NdArray => ({ shape, data: new Float64Array(elementCount(shape)) })

export const copyOf = (a: NdArray): NdArray => ({ shape: a.shape, data: a.data.slice() })
