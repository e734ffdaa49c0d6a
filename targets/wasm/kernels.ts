import type { FloatDType } from '../../sdk/dtype.ts'
import { DeviceError } from '../../sdk/errors.ts'

/** What the kernels say of their own sizes: functions and constants that the module exports (kernels-as). Bytes, of one thread. */
export interface Sizes {
  linearScratch(rows: number): number
  linearInt8Scratch(rows: number, inputs: number): number
  linearBackInputScratch(): number
  linearBackWeightScratch(): number
  doraScratch(inputs: number): number
  normScratch(dtype: number, offset: number, columns: number): number
  attentionScratch(group: number, headDim: number): number
  attentionBackScratch(group: number, headDim: number): number
  attentionCachedScratch(isChunk: number, group: number, headDim: number, dtype: number): number
  sampleScratch(vocabulary: number): number
  topScratch(vocabulary: number): number
  /** Elements of the inner dimension that a product adds up at a time. */
  readonly DEPTH: WebAssembly.Global<'i32'>
  /** Elements of a block of a sum. */
  readonly SUM_BLOCK: WebAssembly.Global<'i32'>
  /** Positions of a cache that one task reads, where rows are of several slots. */
  readonly CACHED_CHUNK: WebAssembly.Global<'i32'>
  /** Bytes of a row's sums over the vocabulary. */
  readonly STATS: WebAssembly.Global<'i32'>
}

/** The code by which kernels are told the type of a weight. */
export type DTypeCode = (dtype: FloatDType) => number

export interface Kernels {
  readonly sizes: Sizes
  readonly code: DTypeCode
  /** Every export that is a function: kernels take a thread and the number of threads as their last arguments. */
  readonly call: Readonly<Record<string, (...args: number[]) => number>>
}

/** An instance of the kernels on the caller's thread: for their sizes, and to compute where there are no workers. */
export function instantiate(module: WebAssembly.Module, memory: WebAssembly.Memory): Kernels {
  const abort = () => {
    throw new Error('kernel assertion')
  }
  const { exports } = new WebAssembly.Instance(module, { env: { memory, abort } })
  const code: DTypeCode = (dtype) => {
    const global = exports[dtype.toUpperCase()] as WebAssembly.Global | undefined
    if (!global) throw new DeviceError(`wasm: the kernels do not know ${dtype}; build them anew with \`npm run build\``)
    return global.value
  }
  return { sizes: exports as unknown as Sizes, code, call: exports as Kernels['call'] }
}
