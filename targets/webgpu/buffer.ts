import { byteLength, type TensorType } from '../../sdk/dtype.ts'
import { MemoryError } from '../../sdk/errors.ts'

/** Rows of a tensor that lie in one GPU buffer. */
export interface Rows {
  readonly first: number
  readonly rows: number
}

export interface Part extends Rows {
  readonly gpu: GPUBuffer
}

/** A weight's or state's memory: one GPU buffer, or several where a table is too large for one binding. */
export interface TensorMemory {
  readonly name: string
  readonly type: TensorType
  readonly parts: readonly Part[]
}

/** Bytes `from` to `to` of a range of a tensor, which begin at byte `at` of a part. */
export interface Span {
  readonly part: Part
  readonly at: number
  readonly from: number
  readonly to: number
}

/** The parts that a range of a tensor's bytes touches. */
export function spansOf({ type, parts }: TensorMemory, offset: number, bytes: number): Span[] {
  if (parts.length === 1) return [{ part: parts[0], at: offset, from: 0, to: bytes }]
  const rowBytes = byteLength(type) / type.shape[0]
  return parts.flatMap((part): Span[] => {
    const start = part.first * rowBytes
    const from = Math.max(offset, start)
    const to = Math.min(offset + bytes, start + part.rows * rowBytes)
    return from < to ? [{ part, at: from - start, from: from - offset, to: to - offset }] : []
  })
}

/** How a tensor is cut where a GPU buffer holds `limit` bytes. Throws MemoryError where not even a few rows fit. */
export function cut(type: TensorType, name: string, limit: number): Rows[] {
  const bytes = byteLength(type)
  const all = type.shape[0] ?? 1
  if (bytes <= limit) return [{ first: 0, rows: all }]
  // A multiple of 64 rows is a multiple of 4 bytes in every type.
  const most = Math.floor(limit / (bytes / all) / 64) * 64
  if (most === 0)
    throw new MemoryError(
      `${name}: a row of ${bytes / all} bytes, a buffer of this adapter has ${limit} at most, and takes 64 rows at a time`,
    )
  return Array.from({ length: Math.ceil(all / most) }, (_, i) => ({
    first: i * most,
    rows: Math.min(most, all - i * most),
  }))
}
