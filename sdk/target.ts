import type { TensorType } from './dtype.ts'
import type { MemoryPlan, Program } from './graph/program.ts'

/** Kernels of wasm: with relaxed SIMD, or without. */
export const wasmBuilds = ['plain', 'relaxed'] as const
export type WasmBuild = (typeof wasmBuilds)[number]

/** What a model is for: devices that are good at one are not always good at the others. */
export const workloads = ['decoding', 'prefill', 'training'] as const
export type Workload = (typeof workloads)[number]

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

/** A type of blocks in files (sdk/formats), which is no dtype: so many elements in so many bytes. */
export interface FileBlocks {
  readonly type: string
  readonly elements: number
  readonly bytes: number
}

export interface RunOptions {
  /** The program is run so many times, without the host in between; default 1. */
  readonly steps?: number
  /** Input -> output: from the second step on the input is what the output was a step before. */
  readonly carry?: Readonly<Record<string, string>>
  /** The outputs that come back; default all. */
  readonly collect?: readonly string[]
  /** Looked at between nodes and steps: an aborted run rejects with the signal's reason. */
  readonly signal?: AbortSignal
}

/** Of one step; with several steps also of all of them, one after the other: [steps, ...shape]. */
export type RunInputs = Readonly<Record<string, ArrayBufferView>>
/** f32 and i32 outputs, copied: [...shape] of one step, [steps, ...shape] of several. */
export type RunOutputs = Record<string, Float32Array | Int32Array>

export interface Executable {
  /** Exact scratch bytes. */
  readonly memory: MemoryPlan
  /**
   * Runs are carried out in the order of the calls. Throws ShapeError for a missing, unknown or wrongly sized input, and for
   * outputs that do not exist.
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

/** All that a target implements. Whatever it does rejects with DeviceLostError once its device is gone. */
export interface Target {
  readonly name: 'cuda' | 'cpu' | 'webgpu' | 'wasm' | 'reference'
  readonly info: DeviceInfo
  /** true, or the reason why not. */
  supports(op: string, inputs: readonly TensorType[], attrs: unknown): true | string
  /** Zero-filled memory. Failure surfaces here or at the next await as a MemoryError that names it. */
  create(type: TensorType, name: string): Buffer
  /** Blocks that `write` takes for buffers of a dtype, by the names of both: Q6_K_q8. Absent where it takes none. */
  readonly conversions?: readonly string[]
  /**
   * Bytes in the canonical layout of the buffer's dtype (sdk/dtype.ts), or whole blocks that become it, to the bit as sdk/formats
   * does it; they are there for the runs asked for afterwards.
   */
  write(buffer: Buffer, data: ArrayBufferView, byteOffset?: number, blocks?: FileBlocks): void | Promise<void>
  read(buffer: Buffer, byteOffset?: number, bytes?: number): Promise<ArrayBuffer>
  /** Given back once the runs asked for before are done. Freeing twice does nothing. */
  free(buffer: Buffer): void
  /** `bound`: a Buffer for every weight and state by name. Names ALL unsupported ops at once. */
  compile(program: Program, bound: Readonly<Record<string, Buffer>>): Promise<Executable>
  /** Bytes that these programs take together once compiled, beside weights and state: exact, and nothing is allocated for it. */
  scratchBytes(programs: readonly Program[]): Promise<number>
  /** Times each kernel of what `work` runs, the slowest first. Throws DeviceError where that cannot be; absent where it never can. */
  profile?(work: () => Promise<unknown>): Promise<KernelProfile[]>
  close(): Promise<void>
}
