import { byteLength, type FloatDType, floatDTypes } from './dtype.ts'
import { Graph } from './graph/graph.ts'
import { bindings, toProgram } from './graph/program.ts'
import { linear } from './ops/index.ts'
import type { Buffer, Target } from './target.ts'

/** What a target does in a second. */
export interface Speed {
  /** Operations of an f32 matrix product, in 10^9 (a multiplication and its addition are two). */
  readonly gflops: number
  /** The same of a prompt by q4 weights: with activations in int8 where the target has such products. */
  readonly promptGflops: number
  /** Bytes of weights of each dtype that products with one row read, in 10^9: what limits decoding. */
  readonly gigabytes: Readonly<Record<FloatDType, number>>
  /** Reckoned from these for Qwen2.5-0.5B in q4, short contexts; no model is run. */
  readonly tokensOfHalfBillion: {
    readonly decode: number
    readonly prefill: number
    /** LoRA, layers recomputed, every token scored. */
    readonly training: number
  }
}

// Qwen2.5-0.5B: [out, in] of a layer's matrices, layers, vocabulary.
const hidden = 896
const matrices = [
  [896, hidden],
  [128, hidden],
  [128, hidden],
  [hidden, 896],
  [4864, hidden],
  [4864, hidden],
  [hidden, 4864],
] as const
const [layers, vocabulary] = [24, 151_936]
const layerWeights = matrices.reduce((sum, [o, i]) => sum + o * i, 0)
const billion = 1e9

/** Its shape, and its bytes in q4. */
export const halfBillion = {
  numHiddenLayers: layers,
  numKeyValueHeads: 2,
  headDim: 64,
  weightBytes:
    layers * matrices.reduce((sum, shape) => sum + byteLength({ dtype: 'q4', shape }), 0) +
    byteLength({ dtype: 'q8', shape: [vocabulary, hidden] }),
} as const

/** More than caches hold. */
const sampleBytes = 48e6
/** Seconds for one product: a GPU in software takes longer. */
const patience = 0.05

/** Measures for about two seconds. */
export async function measureSpeed(target: Target): Promise<Speed> {
  const [rows, o, i] = [128, 4864, hidden]
  const rateOf = async (dtype: FloatDType) => {
    const gemm = new Graph()
    product(gemm, rows, 'w', dtype, [o, i])
    return (2 * rows * o * i) / (await bestSeconds(target, gemm)) / billion
  }
  const [gflops, promptGflops] = [await rateOf('f32'), await rateOf('q4')]

  const gigabytes = {} as Record<FloatDType, number>
  for (const dtype of floatDTypes) {
    const bytes = byteLength({ dtype, shape: [o, i] })
    const secondsOf = (count: number, milliseconds?: number) => {
      const gemv = new Graph()
      for (let n = 0; n < count; n++) product(gemv, 1, `${n}`, dtype, [o, i])
      return bestSeconds(target, gemv, milliseconds)
    }
    const [count, alone] = [Math.ceil(sampleBytes / bytes), await secondsOf(1, 0)]
    // One matrix shows how fast a slow device is.
    gigabytes[dtype] = (alone > patience ? bytes / alone : (count * bytes) / (await secondsOf(count))) / billion
  }

  const table = vocabulary * hidden
  const reads = {
    q4: byteLength({ dtype: 'q4', shape: [layers, layerWeights] }),
    q8: byteLength({ dtype: 'q8', shape: [vocabulary, hidden] }),
  }
  return {
    gflops,
    promptGflops,
    gigabytes,
    tokensOfHalfBillion: {
      decode: predictDecode({ gigabytes }, { reads }),
      // Of a prompt only the last token goes through the table.
      prefill: (promptGflops * billion) / (2 * layers * layerWeights),
      // Forward, forward again and backward; no gradients of the weights.
      training: (gflops * billion) / (2 * 3 * (layers * layerWeights + table)),
    },
  }
}

/** Tokens in a second that a model writes where its weights are read so fast; attention and a context are not counted. */
export function predictDecode(
  { gigabytes }: Pick<Speed, 'gigabytes'>,
  { reads }: { readonly reads: Partial<Readonly<Record<FloatDType, number>>> },
): number {
  const seconds = Object.entries(reads).map(([dtype, bytes]) => bytes / gigabytes[dtype as FloatDType] / billion)
  return 1 / seconds.reduce((sum, s) => sum + s, 0)
}

function product(g: Graph, rows: number, name: string, dtype: FloatDType, [o, i]: readonly [number, number]): void {
  const x = g.input(`x/${name}`, { dtype: 'f32', shape: [rows, i] })
  // As answers are computed.
  g.output(`y/${name}`, linear(g, x, g.weight(name, { dtype, shape: [o, i] }), undefined, 'int8'))
}

/** The fastest run of a program on zeros, after one that is not timed. */
async function bestSeconds(target: Target, g: Graph, milliseconds = 200): Promise<number> {
  const program = toProgram(g, 'speed')
  const bound: Record<string, Buffer> = {}
  try {
    for (const [name, type] of bindings(program, 'weight')) bound[name] = target.create(type, name)
    const inputs = Object.fromEntries(
      [...bindings(program, 'input')].map(([name, { shape }]) => [
        name,
        new Float32Array(shape[0] * shape[1]).fill(0.5),
      ]),
    )
    const executable = await target.compile(program, bound)
    await executable.run(inputs)
    let best = Number.POSITIVE_INFINITY
    const until = performance.now() + milliseconds
    do {
      const start = performance.now()
      await executable.run(inputs)
      best = Math.min(best, (performance.now() - start) / 1000)
    } while (performance.now() < until)
    executable.free()
    return best
  } finally {
    for (const buffer of Object.values(bound)) target.free(buffer)
  }
}
