import type { TensorType } from './dtype.ts'
import type { MemoryPlan, Program } from './graph/program.ts'

export interface DeviceInfo {
  /** What a person would call it: CPU model, adapter name. */
  readonly description: string
  readonly threads: number
  /** Bytes that weights, state and scratch may take together. */
  readonly memoryLimit: number
  readonly features: readonly string[]
}

/** A handle to memory of one target. */
export interface Buffer {
  readonly name: string
  readonly type: TensorType
  readonly bytes: number
}

export interface RunOptions {
  /** Outputs that stay on the target as Buffers; the caller frees them. */
  readonly keep?: readonly string[]
  /** Looked at between nodes: an aborted run rejects with the signal's reason. */
  readonly signal?: AbortSignal
}

export type RunInputs = Readonly<Record<string, ArrayBufferView | Buffer>>
export type RunOutputs = Record<string, ArrayBufferView | Buffer>

export interface Executable {
  /** Exact scratch bytes. */
  readonly memory: MemoryPlan
  /**
   * Runs are carried out in the order of the calls. f32 outputs come as Float32Array, i32 as Int32Array, copied.
   * Throws ShapeError for a missing, unknown or wrongly sized input.
   */
  run(inputs: RunInputs, options?: RunOptions): Promise<RunOutputs>
  free(): void
}

/** All that a target implements. */
export interface Target {
  readonly name: 'cuda' | 'cpu' | 'webgpu' | 'wasm' | 'reference'
  readonly info: DeviceInfo
  /** true, or the reason why not. */
  supports(op: string, inputs: readonly TensorType[], attrs: unknown): true | string
  /** Zero-filled memory. Failure surfaces here or at the next await as a MemoryError that names it. */
  create(type: TensorType, name: string): Buffer
  /** Bytes in the canonical layout of the buffer's dtype (sdk/dtype.ts). */
  write(buffer: Buffer, data: ArrayBufferView, byteOffset?: number): void | Promise<void>
  read(buffer: Buffer, byteOffset?: number, bytes?: number): Promise<ArrayBuffer>
  free(buffer: Buffer): void
  /** `bound`: a Buffer for every weight and state by name. Names ALL unsupported ops at once. */
  compile(program: Program, bound: Readonly<Record<string, Buffer>>): Promise<Executable>
  close(): Promise<void>
}
