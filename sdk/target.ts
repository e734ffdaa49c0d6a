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

/** Told while a target compiles kernels for a program; what it has compiled before is not compiled again. */
export interface CompileProgress {
  readonly program: string
  /** Compiled so far, of `totalPipelines`. */
  readonly pipelines: number
  readonly totalPipelines: number
}

/** What one kernel did while a target was profiled. */
export interface KernelProfile {
  /** The kernel's name, with the stored types that it reads. */
  readonly kernel: string
  readonly calls: number
  /** Of all calls, on the device. */
  readonly milliseconds: number
  /** Bytes of all arguments, each counted once a call. */
  readonly bytes: number
  /** Operations of products (a multiplication and its addition are two); null for other kernels. */
  readonly operations: number | null
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
  /** Bytes that these programs take together once compiled, beside weights and state: exact, and nothing is allocated for it. */
  scratchBytes(programs: readonly Program[]): number
  /** Times each kernel of what `work` runs, the slowest first. Throws DeviceError where that cannot be; absent where it never can. */
  profile?(work: () => Promise<unknown>): Promise<KernelProfile[]>
  close(): Promise<void>
}
