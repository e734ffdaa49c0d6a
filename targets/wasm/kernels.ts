import type { FloatDType } from '../../sdk/dtype.ts'
import { DeviceError } from '../../sdk/errors.ts'
import type { WasmBuild } from '../../sdk/target.ts'
import type { Host, KernelsName } from './host.ts'
import type { Heap } from './memory.ts'

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

/** The build asked for, else the relaxed one where its instructions compute rightly. Throws DeviceError. */
export async function openKernels(host: Host, heap: Heap, shared: boolean, asked?: WasmBuild) {
  const open = async (name: KernelsName) => {
    const module = await host.compileKernels(name)
    return { module, kernels: instantiate(module, heap.memory) }
  }
  const name = shared ? 'kernels' : 'kernels-single'
  if (asked === 'plain') return { ...(await open(name)), build: asked }
  let why = 'does not know relaxed SIMD'
  try {
    const relaxed = await open(`${name}-relaxed`)
    const at = heap.allocate(48, 'self-test')
    const works = relaxed.kernels.call.relaxedWorks(at)
    heap.free(at)
    if (works) return { ...relaxed, build: 'relaxed' as const }
    why = 'computes relaxed SIMD wrongly'
  } catch (error) {
    if (!((error as Error).cause instanceof WebAssembly.CompileError)) throw error
  }
  if (asked) throw new DeviceError(`wasm: this engine ${why}; leave the build out, or ask for the plain one`)
  return { ...(await open(name)), build: 'plain' as const }
}

/**
 * Whether the relaxed product of four bytes is an instruction here rather than several: it halves what products with q4 and q4a cost, or
 * makes them dearer (V8 of Node 22). The first call makes the engine compile the loops well, which takes it some milliseconds.
 */
export function timeQuads({ call }: Kernels, at: number): () => boolean {
  const milliseconds = (isQuads: 0 | 1, rounds: number): number => {
    const start = performance.now()
    call.integerProducts(isQuads, at, rounds)
    return performance.now() - start
  }
  const best = (isQuads: 0 | 1): number => Math.min(...Array.from({ length: 5 }, () => milliseconds(isQuads, 20_000)))
  for (const isQuads of [0, 1] as const) milliseconds(isQuads, 100_000)
  return () => best(1) < 1.5 * best(0)
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
