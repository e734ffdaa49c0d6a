import { byteLength, elementCount, type FloatDType, floatDTypes } from './dtype.ts'
import { Graph, type Tensor } from './graph/graph.ts'
import { bindings, toProgram } from './graph/program.ts'
import { type ModelConfig, parseConfig } from './model/config.ts'
import { cachedHidden, type DecoderContext, headWeight, packedHidden } from './model/decoder.ts'
import { layerName, linearModules, weightShapes } from './model/names.ts'
import { askedDType } from './model/weight-dtype.ts'
import { fill, gradient, linear, sample, sum, view, vocabPick } from './ops/index.ts'
import { type Buffer, type Target, type Workload, workloads } from './target.ts'

/** What a target does in a second. */
export interface Speed {
  /** Operations of an f32 matrix product, in 10^9 (a multiplication and its addition are two). */
  readonly gflops: number
  /** Bytes of weights of each dtype that products with one row read, in 10^9: what limits decoding. */
  readonly gigabytes: Readonly<Record<FloatDType, number>>
  /** Tokens of Qwen2.5-0.5B in q4, by `measureWorkload`. */
  readonly tokensOfHalfBillion: Readonly<Record<Workload, number>>
}

/** What is measured: Qwen2.5-0.5B's config.json, as far as its shape goes. */
export const halfBillionConfig = {
  model_type: 'qwen2',
  vocab_size: 151_936,
  hidden_size: 896,
  intermediate_size: 4864,
  num_hidden_layers: 24,
  num_attention_heads: 14,
  num_key_value_heads: 2,
  rms_norm_eps: 1e-6,
  rope_theta: 1e6,
  max_position_embeddings: 32_768,
  tie_word_embeddings: true,
} as const
const qwen = halfBillionConfig

/** A `part`th of its layers and of its vocabulary: what runs takes as small a part of the time. */
function shapeOf(part: number): ModelConfig {
  const [layers, vocabulary] = [qwen.num_hidden_layers / part, Math.ceil(qwen.vocab_size / part)]
  return parseConfig({ ...qwen, num_hidden_layers: layers, vocab_size: vocabulary }, 'config.json')
}
const q4Types = (config: ModelConfig) =>
  new Map([...weightShapes(config)].map(([name, shape]) => [name, { dtype: askedDType(name, shape, 'q4'), shape }]))
const billion = 1e9

/** Qwen2.5-0.5B's shape, and its bytes in q4. */
export const halfBillion = {
  numHiddenLayers: qwen.num_hidden_layers,
  numKeyValueHeads: qwen.num_key_value_heads,
  headDim: qwen.hidden_size / qwen.num_attention_heads,
  weightBytes: [...q4Types(shapeOf(1)).values()].reduce((sum, type) => sum + byteLength(type), 0),
} as const

/** More than caches hold. */
const sampleBytes = 48e6
/** Seconds for one product: a GPU in software takes longer. */
const patience = 0.05

/** Measures for some seconds. */
export async function measureSpeed(target: Target): Promise<Speed> {
  const [rows, o, i] = [128, qwen.intermediate_size, qwen.hidden_size]
  const gemm = new Graph()
  product(gemm, rows, 'w', 'f32', [o, i])
  const gflops = (2 * rows * o * i) / (await bestSeconds(target, gemm)) / billion

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
  const tokensOfHalfBillion = {} as Record<Workload, number>
  // Nobody waits for a device that computes in software.
  const isSlow = gflops < 20
  for (const workload of workloads)
    tokensOfHalfBillion[workload] = isSlow
      ? (gflops * billion) / operationsOf(workload)
      : await measureWorkload(target, workload)
  return { gflops, gigabytes, tokensOfHalfBillion }
}

/** Forward, or forward, forward again and backward without gradients of the weights. */
const operationsOf = (workload: Workload): number =>
  (workload === 'training' ? 6 : 2) *
  [...q4Types(shapeOf(1)).values()].reduce((sum, { shape }) => sum + elementCount(shape), 0)

/** Of the model, what is run of it; and rows. */
const samples = { decoding: [3, 1], prefill: [12, 128], training: [24, 512] } as const

/** Tokens in a second that Qwen2.5-0.5B in q4 writes, reads of a prompt or learns from (LoRA of rank 16, layers recomputed, every token scored), short contexts; a part of it is run. */
export async function measureWorkload(target: Target, workload: Workload): Promise<number> {
  const [part, rows] = samples[workload]
  const config = shapeOf(part)
  const g = new Graph()
  const i32 = (name: string) => g.input(name, { dtype: 'i32', shape: [rows] })
  const [ids, positions] = [i32('ids'), i32('positions')]
  const c: DecoderContext = {
    config,
    weights: q4Types(config),
    trainable: new Set(),
    adapters: [],
    ropeTable: (_, positions) => ({ name: 'rope', type: { dtype: 'f32', shape: [positions, halfBillion.headDim] } }),
    activations: workload === 'training' ? 'f32' : 'int8',
  }
  if (workload === 'training') {
    const modules = new Map(
      config.layers.flatMap((_, layer) =>
        [...linearModules(config).keys()].map(
          (name) => [`${layerName(layer)}.${name}`, { rank: 16, dora: false }] as const,
        ),
      ),
    )
    const adapter = { prefix: 'adapter', count: 1, modules, saved: [], frozen: [], trainable: true }
    const hidden = packedHidden(g, { ...c, adapters: [adapter] }, ids, positions, i32('starts'))
    const picked = vocabPick(g, hidden, headWeight(g, c), view(g, ids, [rows, 1]), fill(g, [1], 1))
    const loss = sum(g, picked[0])
    g.output('loss', loss)
    gradient(g, [[loss, fill(g, [1], 1)]], { recompute: true, keptBytes: 0 })
  } else {
    const cache = { dtype: 'f32', shape: [1, qwen.num_key_value_heads, 256, halfBillion.headDim] } as const
    const slot = workload === 'prefill' ? g.input('slot', { dtype: 'i32', shape: [1] }) : undefined
    const hidden = cachedHidden(g, c, ids, positions, cache, slot)
    if (slot) g.output('y', sum(g, hidden))
    else g.output('y', greedy(g, linear(g, hidden, headWeight(g, c), undefined, 'int8')))
  }
  return rows / (part * (await bestSeconds(target, g)))
}

/** As answers are sampled, at temperature 0. */
function greedy(g: Graph, logits: Tensor): Tensor {
  const i32 = (name: string) => g.input(name, { dtype: 'i32', shape: [1] })
  const [none, topP] = [fill(g, [1], 0), fill(g, [1], 1)]
  const controls = { temperature: none, topK: i32('topK'), topP, minP: none, uniform: none }
  return sample(g, logits, { ...controls, editRow: i32('editRow'), editId: i32('editId'), editBias: none })[0]
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

/** The fastest run of a program, after one that is not timed: floats given are 0.5, all else is 0, positions count up. */
async function bestSeconds(target: Target, g: Graph, milliseconds = 200): Promise<number> {
  const program = toProgram(g, 'speed')
  const bound: Record<string, Buffer> = {}
  try {
    for (const kind of ['weight', 'state'] as const)
      for (const [name, type] of bindings(program, kind)) {
        bound[name] = target.create(type, name)
        // Memory that was never written to may all be one page; of equal weights onnxruntime packs one.
        const bytes = new Uint8Array(byteLength(type))
        bytes[bytes.length - 4] = Object.keys(bound).length
        await target.write(bound[name], bytes)
      }
    const inputs = Object.fromEntries(
      [...bindings(program, 'input')].map(([name, { dtype, shape }]) => {
        const count = elementCount(shape)
        if (dtype === 'f32') return [name, new Float32Array(count).fill(0.5)]
        return [name, Int32Array.from({ length: count }, (_, i) => (name === 'positions' ? i : 0))]
      }),
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
