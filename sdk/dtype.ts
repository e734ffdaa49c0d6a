import { BLOCK, Q4_BYTES, Q4A_BYTES, Q8_BYTES } from './blocks.ts'
import { ShapeError } from './errors.ts'

/**
 * Element types of tensors, and how they are stored: so many elements along the last axis together, in so many bytes. f16 and bf16 are
 * storage types; q8, q4a and q4 are quantized in blocks, byte for byte GGUF's Q8_0, Q4_1 and Q4_0. How a block is read and written
 * stands in sdk/quant.
 */
export const storedTypes = {
  f32: { elements: 1, bytes: 4 },
  i32: { elements: 1, bytes: 4 },
  f16: { elements: 1, bytes: 2 },
  bf16: { elements: 1, bytes: 2 },
  q8: { elements: BLOCK, bytes: Q8_BYTES },
  q4a: { elements: BLOCK, bytes: Q4A_BYTES },
  q4: { elements: BLOCK, bytes: Q4_BYTES },
} as const

export type DType = keyof typeof storedTypes
export type FloatDType = Exclude<DType, 'i32'>
/** What weights may be. */
export const floatDTypes = ['f32', 'f16', 'bf16', 'q8', 'q4a', 'q4'] as const satisfies readonly FloatDType[]
/**
 * What weights may be asked for as. `auto` keeps what the file has; q8, q4a and q4 apply to the matrices (q4a and q4 keep the vocabulary
 * table at q8, as llama.cpp does).
 */
export const weightDTypes = ['auto', ...floatDTypes] as const

/** Is it stored in blocks of several elements? */
export const isQuantized = (dtype: DType): boolean => storedTypes[dtype].elements > 1

/** Whether rows of this length can be stored so: they are whole blocks. */
export const fitsBlocks = (dtype: DType, columns: number): boolean => columns % storedTypes[dtype].elements === 0

export interface TensorType {
  readonly dtype: DType
  readonly shape: readonly number[]
}

export const elementCount = (shape: readonly number[]): number => shape.reduce((n, d) => n * d, 1)

/** Bytes of a contiguous tensor. Throws ShapeError when a block type's last axis is no multiple of a block. */
export function byteLength({ dtype, shape }: TensorType): number {
  const { elements, bytes } = storedTypes[dtype]
  if (!fitsBlocks(dtype, shape.at(-1) ?? 1))
    throw new ShapeError(`${dtype} needs a last axis that is a multiple of ${elements}, got [${shape.join(', ')}]`)
  return (elementCount(shape) * bytes) / elements
}

export const describe = ({ dtype, shape }: TensorType): string => `${dtype}[${shape.join(', ')}]`

export const sameShape = (a: readonly number[], b: readonly number[]): boolean =>
  a.length === b.length && a.every((d, i) => d === b[i])
