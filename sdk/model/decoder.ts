import type { TensorType } from '../dtype.ts'
import type { Graph, Tensor } from '../graph/graph.ts'
import {
  add,
  attention,
  attentionCached,
  div,
  doraNorm,
  dropout,
  embed,
  kvWrite,
  linear,
  lora,
  rmsnorm,
  rope,
  scaleColumns,
  sub,
  swiglu,
  view,
} from '../ops/index.ts'
import type { ModelConfig } from './config.ts'
import { hasBias, headName, layerName } from './names.ts'

/** What a graph needs to know of an adapter: names, padded ranks, flags. The numbers are in buffers under `prefix`. */
export interface AdapterStructure {
  /** Buffers are `${prefix}/${module}.lora_A` and so on. */
  readonly prefix: string
  /** By module path, `model.layers.0.self_attn.q_proj`. The rank is padded to a bucket. */
  readonly modules: ReadonlyMap<string, { readonly rank: number; readonly dora: boolean }>
  /** Weights that the adapter replaces as a whole (PEFT's modules_to_save), f32 under `${prefix}/${name}`. */
  readonly saved: readonly string[]
  readonly trainable: boolean
}

export interface DecoderContext {
  readonly config: ModelConfig
  /** Types of the base weights by checkpoint name. */
  readonly weights: ReadonlyMap<string, TensorType>
  /** Base weights that train (full fine-tuning). */
  readonly trainable: ReadonlySet<string>
  /** Frozen ones first, then at most one trainable. */
  readonly adapters: readonly AdapterStructure[]
  /** lora_dropout while training; `seed` is an i32[2] input. */
  readonly dropout?: { readonly p: number; readonly seed: Tensor }
}

/** A base weight, or the copy of it that an adapter brought along. */
export function weight(g: Graph, c: DecoderContext, name: string): Tensor {
  const owner = c.adapters.findLast((a) => a.saved.includes(name))
  return owner ? savedWeight(g, c, owner, name) : baseWeight(g, c, name)
}

const embedding = 'model.embed_tokens.weight'
const outputLayer = 'lm_head.weight'

/** The table that scores the vocabulary, [V, C]. An adapter's own copy of one of two tied tables unties them, as in PEFT. */
export function headWeight(g: Graph, c: DecoderContext): Tensor {
  const owner = c.adapters.findLast((a) => a.saved.includes(outputLayer))
  if (owner) return savedWeight(g, c, owner, outputLayer)
  return baseWeight(g, c, headName(c.config))
}

const baseWeight = (g: Graph, c: DecoderContext, name: string): Tensor =>
  g.weight(name, c.weights.get(name)!, c.trainable.has(name))

function savedWeight(g: Graph, c: DecoderContext, owner: AdapterStructure, name: string): Tensor {
  const { shape } = c.weights.get(name) ?? c.weights.get(embedding)!
  return g.weight(`${owner.prefix}/${name}`, { dtype: 'f32', shape }, owner.trainable)
}

export const ropeName = 'rope/table'

/** Packed rows for training and scoring: token i attends to starts[i]..i. All i32[N]. Returns [N, C] after the last norm. */
export function packedHidden(g: Graph, c: DecoderContext, ids: Tensor, positions: Tensor, starts: Tensor): Tensor {
  const shape = attentionShape(c.config)
  return decoder(g, c, ids, positions, (_, q, k, v) => attention(g, q, k, v, starts, shape)[0])
}

/** Rows that read and extend the KV cache: row r is at positions[r] of slot slots[r] (-1: padding). All i32[R]. */
export function cachedHidden(
  g: Graph,
  c: DecoderContext,
  ids: Tensor,
  positions: Tensor,
  slots: Tensor,
  cache: TensorType,
): Tensor {
  const shape = attentionShape(c.config)
  return decoder(g, c, ids, positions, (layer, q, k, v) => {
    const cacheK = kvWrite(g, g.state(cacheName('k', layer), cache), k, slots, positions)
    const cacheV = kvWrite(g, g.state(cacheName('v', layer), cache), v, slots, positions)
    return attentionCached(g, q, cacheK, cacheV, slots, positions, shape)
  })
}

export const cacheName = (part: 'k' | 'v', layer: number): string => `cache/${part}/${layer}`

const attentionShape = (c: ModelConfig) => ({
  heads: c.numAttentionHeads,
  kvHeads: c.numKeyValueHeads,
  scale: 1 / Math.sqrt(c.headDim),
})

function decoder(
  g: Graph,
  c: DecoderContext,
  ids: Tensor,
  positions: Tensor,
  attend: (layer: number, q: Tensor, k: Tensor, v: Tensor) => Tensor,
): Tensor {
  const { config } = c
  const table = g.weight(ropeName, c.weights.get(ropeName)!)
  const norm = (x: Tensor, name: string) => rmsnorm(g, x, weight(g, c, name), config.rmsNormEps)[0]
  // [N, heads*D], normed head by head where the family does that (Qwen3), then rotated
  const headed = (x: Tensor, heads: number, name: string) => {
    const [n, width] = x.shape
    const normed = config.qkNorm ? view(g, norm(view(g, x, [n * heads, config.headDim]), name), [n, width]) : x
    return rope(g, normed, positions, table, { heads })
  }
  let x = embed(g, ids, weight(g, c, embedding)) // [N, C]
  for (let layer = 0; layer < config.numHiddenLayers; layer++)
    x = g.region(`layer${layer}`, () => {
      const at = layerName(layer)
      const normed = norm(x, `${at}.input_layernorm.weight`)
      const q = headed(
        project(g, c, normed, layer, 'self_attn.q_proj'),
        config.numAttentionHeads,
        `${at}.self_attn.q_norm.weight`,
      )
      const k = headed(
        project(g, c, normed, layer, 'self_attn.k_proj'),
        config.numKeyValueHeads,
        `${at}.self_attn.k_norm.weight`,
      )
      const v = project(g, c, normed, layer, 'self_attn.v_proj')
      const attended = add(g, x, project(g, c, attend(layer, q, k, v), layer, 'self_attn.o_proj'))
      const inner = norm(attended, `${at}.post_attention_layernorm.weight`)
      const hidden = swiglu(g, project(g, c, inner, layer, 'mlp.gate_proj'), project(g, c, inner, layer, 'mlp.up_proj'))
      return add(g, attended, project(g, c, hidden, layer, 'mlp.down_proj')) // [N, C]
    })
  return norm(x, 'model.norm.weight')
}

/** x [N, I] through one linear module and its adapters -> [N, O]. */
function project(g: Graph, c: DecoderContext, x: Tensor, layer: number, module: string): Tensor {
  const path = `${layerName(layer)}.${module}`
  return g.scope(module, () => {
    const w = weight(g, c, `${path}.weight`)
    const bias = hasBias(c.config, module) ? weight(g, c, `${path}.bias`) : undefined
    const active = c.adapters.filter((a) => a.modules.has(path))
    const only = active.length === 1 ? active[0] : undefined
    // DoRA alone and without dropout shares the base product: (m / norm)·(Wx + s·BAx) + bias
    if (only?.modules.get(path)?.dora && !(only.trainable && c.dropout)) {
      const low = adapterWeights(g, only, path, x.shape[1], w.shape[0])
      return scaleColumns(g, lora(g, linear(g, x, w), x, low.a, low.b, low.scale)[0], low.gain(w), bias)
    }
    let y = linear(g, x, w, bias)
    for (const adapter of active) {
      const low = adapterWeights(g, adapter, path, x.shape[1], w.shape[0])
      const seen =
        adapter.trainable && c.dropout ? dropout(g, x, c.dropout.seed, { p: c.dropout.p, stream: streamOf(path) }) : x
      if (!adapter.modules.get(path)!.dora) {
        y = lora(g, y, seen, low.a, low.b, low.scale)[0]
        continue
      }
      // PEFT: y + (m / norm)·(Wx' + s·BAx') - Wx', with x' after dropout
      const base = linear(g, seen, w)
      y = add(g, y, sub(g, scaleColumns(g, lora(g, base, seen, low.a, low.b, low.scale)[0], low.gain(w)), base))
    }
    return y
  })
}

function adapterWeights(g: Graph, adapter: AdapterStructure, path: string, input: number, output: number) {
  const { rank } = adapter.modules.get(path)!
  const at = `${adapter.prefix}/${path}`
  const f32 = (...shape: number[]) => ({ dtype: 'f32', shape }) as const
  const a = g.weight(`${at}.lora_A`, f32(rank, input), adapter.trainable)
  const b = g.weight(`${at}.lora_B`, f32(output, rank), adapter.trainable)
  const scale = g.weight(`${at}.scale`, f32(1))
  /** DoRA's m / ||W + s·BA||, the norm detached. [O] */
  const gain = (w: Tensor) => {
    const magnitude = g.weight(`${at}.lora_magnitude_vector`, f32(output), adapter.trainable)
    return div(g, magnitude, doraNorm(g, w, a, b, scale))
  }
  return { a, b, scale, gain }
}

/** Each module draws its own dropout mask: FNV-1a of its path, 24 bits. */
function streamOf(path: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < path.length; i++) hash = Math.imul(hash ^ path.charCodeAt(i), 0x01000193)
  return hash >>> 8
}
