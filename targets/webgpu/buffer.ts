import { byteLength, type TensorType } from '../../sdk/dtype.ts'
import { MemoryError } from '../../sdk/errors.ts'
import type { Buffer } from '../../sdk/target.ts'

/** Rows of a tensor that lie in one GPU buffer. */
export interface Rows {
  readonly first: number
  readonly rows: number
}

export interface Part extends Rows {
  readonly gpu: GPUBuffer
}

/** Memory of the webgpu target: one GPU buffer, or several where a table is too large for one binding. */
export class WebGpuBuffer implements Buffer {
  readonly name: string
  readonly type: TensorType
  readonly bytes: number
  readonly parts: readonly Part[]
  freed = false

  constructor(name: string, type: TensorType, parts: readonly Part[]) {
    this.name = name
    this.type = { dtype: type.dtype, shape: [...type.shape] }
    this.bytes = byteLength(type)
    this.parts = parts
  }

  /** Bytes of one row. */
  get rowBytes(): number {
    return this.bytes / (this.type.shape[0] ?? 1)
  }
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
