import { ShapeError } from './errors.ts'

/**
 * Element types of tensors. f16 and bf16 are storage types. q8 and q4 are blocks of 32 elements along the last axis,
 * byte for byte GGUF's Q8_0 (f16 scale, 32 int8: 34 bytes) and Q4_0 (f16 scale, 16 bytes, low nibbles first: 18 bytes).
 */
export type DType = 'f32' | 'f16' | 'bf16' | 'q8' | 'q4' | 'i32'

export const blockSize = 32
const blockBytes: Record<DType, number> = { f32: 128, i32: 128, f16: 64, bf16: 64, q8: 34, q4: 18 }

export interface TensorType {
  readonly dtype: DType
  readonly shape: readonly number[]
}

export const elementCount = (shape: readonly number[]): number => shape.reduce((n, d) => n * d, 1)

/** Bytes of a contiguous tensor. Throws ShapeError when a block type's last axis is not a multiple of 32. */
export function byteLength({ dtype, shape }: TensorType): number {
  if (dtype === 'q8' || dtype === 'q4') {
    const last = shape.at(-1) ?? 1
    if (last % blockSize !== 0)
      throw new ShapeError(`${dtype} needs a last axis that is a multiple of ${blockSize}, got [${shape.join(', ')}]`)
  }
  return (elementCount(shape) * blockBytes[dtype]) / blockSize
}

export const isFloat = (dtype: DType): boolean => dtype !== 'i32'

export const describe = ({ dtype, shape }: TensorType): string => `${dtype}[${shape.join(', ')}]`

export const sameShape = (a: readonly number[], b: readonly number[]): boolean =>
  a.length === b.length && a.every((d, i) => d === b[i])
