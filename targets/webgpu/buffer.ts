import { byteLength, type TensorType } from '../../sdk/dtype.ts'
import type { Buffer } from '../../sdk/target.ts'

/** Rows of a tensor in one GPU buffer. */
export interface Part {
  readonly gpu: GPUBuffer
  readonly first: number
  readonly rows: number
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
