import { byteLength, type TensorType } from './dtype.ts'
import { Graph } from './graph/graph.ts'
import { bindings, toProgram } from './graph/program.ts'
import { linear } from './ops/index.ts'
import type { Buffer, Target } from './target.ts'

/** What a target does in a second. */
export interface Speed {
  /** Operations of an f32 matrix product, in 10^9 (a multiplication and its addition are two). */
  readonly gflops: number
  /** Bytes of weights (q4, and a q8 table) that products with one row read, in 10^9: what limits decoding. */
  readonly gigabytes: number
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

/** Measures for about a second. */
export async function measureSpeed(target: Target): Promise<Speed> {
  const product = (
    g: Graph,
    rows: number,
    name: string,
    dtype: TensorType['dtype'],
    [o, i]: readonly [number, number],
  ) =>
    g.output(
      `y/${name}`,
      linear(g, g.input(`x/${name}`, { dtype: 'f32', shape: [rows, i] }), g.weight(name, { dtype, shape: [o, i] })),
    )

  const gemm = new Graph()
  const [rows, o, i] = [128, 4864, hidden]
  product(gemm, rows, 'w', 'f32', [o, i])
  const gflops = (2 * rows * o * i) / (await bestSeconds(target, gemm)) / billion

  // A sixth of the layers and of the table: more than caches hold.
  const share = 6
  const gemv = new Graph()
  for (let layer = 0; layer < layers / share; layer++)
    for (const [m, shape] of matrices.entries()) product(gemv, 1, `${layer}.${m}`, 'q4', shape)
  product(gemv, 1, 'table', 'q8', [Math.ceil(vocabulary / share), hidden])
  const read = [...bindings(toProgram(gemv, 'read'), 'weight').values()].reduce(
    (sum, type) => sum + byteLength(type),
    0,
  )
  const seconds = await bestSeconds(target, gemv)

  return {
    gflops,
    gigabytes: read / seconds / billion,
    tokensOfHalfBillion: {
      decode: 1 / (seconds * share),
      // Of a prompt only the last token goes through the table.
      prefill: (gflops * billion) / (2 * layers * layerWeights),
      // Forward, forward again and backward; no gradients of the weights.
      training: (gflops * billion) / (2 * 3 * (layers * layerWeights + vocabulary * hidden)),
    },
  }
}

/** The fastest run of a program on zeros, after one that is not timed. */
async function bestSeconds(target: Target, g: Graph): Promise<number> {
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
    const until = performance.now() + 300
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
