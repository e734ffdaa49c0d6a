import type { TensorType } from '../dtype.ts'
import type { Graph, Tensor } from '../graph/graph.ts'
import {
  type Activations,
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
  scale,
  scaleColumns,
  sub,
  swiglu,
  view,
} from '../ops/index.ts'
import { nameCounter } from '../random.ts'
import type { Layer, ModelConfig, Rope } from './config.ts'
import { embeddingName, finalNorm, hasBias, headName, layerName, outputName } from './names.ts'

/** What a graph needs to know of an adapter: names, padded ranks, flags. The numbers are in buffers under `prefix`. */
export interface AdapterStructure {
  /** Buffers are `${prefix}/${module}.lora_A` and so on. */
  readonly prefix: string
  /** Adapters that lie in these buffers one below the other; with several, rows choose from them. */
  readonly count: number
  /** By module path, `model.layers.0.self_attn.q_proj`. The rank is padded to a bucket. */
  readonly modules: ReadonlyMap<string, { readonly rank: number; readonly dora: boolean }>
  /** Weights that the adapter replaces as a whole (PEFT's modules_to_save), f32 under `${prefix}/${name}`. */
  readonly saved: readonly string[]
  /** Tables of the vocabulary that it replaces and does not train, in the same place. */
  readonly frozen: readonly string[]
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
  /** The rotary table [P, D] of at least so many positions: a constant by name. */
  readonly ropeTable: (rope: Rope, positions: number) => { readonly name: string; readonly type: TensorType }
  /** i32[N]: which of the adapters that rows choose from is a row's, -1 none; left out, no row has one of them. */
  readonly adapterOf?: Tensor
  /** Of the products with base weights; default f32. */
  readonly activations?: Activations
  /** lora_dropout while training; `seed` is an i32[2] input. */
  readonly dropout?: { readonly p: number; readonly seed: Tensor }
  /** Told what [N, I] comes into each linear module, by the name of its weight. */
  readonly onInput?: (x: Tensor, weight: string) => void
}

/** A base weight, or the copy of it that an adapter brought along. */
export function weight(g: Graph, c: DecoderContext, name: string): Tensor {
  const owner = ownerOf(c, name)
  return owner ? savedWeight(g, c, owner, name) : baseWeight(g, c, name)
}

/** The table that scores the vocabulary, [V, C]. An adapter's own copy of one of two tied tables unties them, as in PEFT. */
export function headWeight(g: Graph, c: DecoderContext): Tensor {
  const owner = ownerOf(c, outputName)
  if (owner) return savedWeight(g, c, owner, outputName)
  return baseWeight(g, c, headName(c.config))
}

const ownerOf = (c: DecoderContext, name: string): AdapterStructure | undefined =>
  c.adapters.findLast((a) => a.saved.includes(name) || a.frozen.includes(name))

const baseWeight = (g: Graph, c: DecoderContext, name: string): Tensor =>
  g.weight(name, c.weights.get(name)!, c.trainable.has(name))

function savedWeight(g: Graph, c: DecoderContext, owner: AdapterStructure, name: string): Tensor {
  const { shape } = c.weights.get(name) ?? c.weights.get(embeddingName)!
  return g.weight(`${owner.prefix}/${name}`, { dtype: 'f32', shape }, owner.trainable && owner.saved.includes(name))
}

/** Packed rows for training and scoring: token i attends to starts[i]..i. All i32[N]. Returns [N, C] after the last norm. */
export function packedHidden(g: Graph, c: DecoderContext, ids: Tensor, positions: Tensor, starts: Tensor): Tensor {
  const { numAttentionHeads: heads, numKeyValueHeads: kvHeads } = c.config
  return decoder(g, c, ids, positions, ids.shape[0], (_, { attentionScale, window }, q, k, v) => {
    return attention(g, q, k, v, starts, { heads, kvHeads, scale: attentionScale, window })[0]
  })
}

/**
 * Rows that read and extend the KV cache: row r is at positions[r] of slot r (-1: padding), or with `slot` i32[1] all of them are of
 * that slot. ids and positions i32[R]. Returns [R, C] after the last norm.
 */
export function cachedHidden(
  g: Graph,
  c: DecoderContext,
  ids: Tensor,
  positions: Tensor,
  cache: TensorType,
  slot?: Tensor,
): Tensor {
  const [, , capacity] = cache.shape
  return decoder(g, c, ids, positions, capacity, (index, { attentionScale, window }, q, k, v) => {
    const cacheK = kvWrite(g, g.state(cacheName('k', index), cache), k, positions, slot)
    const cacheV = kvWrite(g, g.state(cacheName('v', index), cache), v, positions, slot)
    return attentionCached(g, q, cacheK, cacheV, positions, slot, { scale: attentionScale, window })
  })
}

export const cacheName = (part: 'k' | 'v', layer: number): string => `cache/${part}/${layer}`

/** `longest`: positions are below it. */
function decoder(
  g: Graph,
  c: DecoderContext,
  ids: Tensor,
  positions: Tensor,
  longest: number,
  attend: (index: number, layer: Layer, q: Tensor, k: Tensor, v: Tensor) => Tensor,
): Tensor {
  const { headDim, numAttentionHeads, numKeyValueHeads, rmsNormEps, normOffset, layers } = c.config
  const { embeddingScale, residualScale, logitsScale } = c.config
  const norm = (x: Tensor, name: string) => rmsnorm(g, x, weight(g, c, name), rmsNormEps, normOffset)[0]
  const scaled = (x: Tensor, by: number) => (by === 1 ? x : scale(g, x, by))
  let x = scaled(embed(g, ids, weight(g, c, embeddingName)), embeddingScale) // [N, C]
  for (const [index, layer] of layers.entries())
    x = g.region(`layer${index}`, () => {
      const { norms } = layer
      const linear = (x: Tensor, module: string) => project(g, c, x, index, module)
      const normed = (x: Tensor, name: string | undefined) =>
        name === undefined ? x : norm(x, `${layerName(index)}.${name}.weight`)
      const table = layer.rope && c.ropeTable(layer.rope, longest)
      // [N, heads*D], normed head by head where the family does that, then rotated
      const headed = (x: Tensor, heads: number, normName: string | undefined) => {
        const [n, width] = x.shape
        const own = normName === undefined ? x : view(g, normed(view(g, x, [n * heads, headDim]), normName), [n, width])
        return table ? rope(g, own, positions, g.weight(table.name, table.type), { heads }) : own
      }
      const input = normed(x, norms.attentionInput)
      // One after the other: targets may share what they make of the input.
      const [ownQ, ownK, ownV] = ['q_proj', 'k_proj', 'v_proj'].map((name) => linear(input, `self_attn.${name}`))
      const q = g.keep(headed(ownQ, numAttentionHeads, norms.query))
      const k = g.keep(headed(ownK, numKeyValueHeads, norms.key))
      const v = g.keep(ownV)
      const output = linear(g.keep(attend(index, layer, q, k, v)), 'self_attn.o_proj')
      const attended = g.keep(add(g, x, scaled(normed(output, norms.attentionOutput), residualScale)))
      const inner = normed(attended, norms.mlpInput)
      const [gate, up] = ['mlp.gate_proj', 'mlp.up_proj'].map((module) => g.keep(linear(inner, module)))
      const hidden = swiglu(g, gate, up, layer.activation)
      return add(g, attended, scaled(normed(linear(hidden, 'mlp.down_proj'), norms.mlpOutput), residualScale)) // [N, C]
    })
  // The head has no bias: what multiplies the logits may multiply its input.
  return scaled(norm(x, finalNorm), logitsScale)
}

/** x [N, I] through one linear module and its adapters -> [N, O]. */
function project(g: Graph, c: DecoderContext, x: Tensor, layer: number, module: string): Tensor {
  const path = `${layerName(layer)}.${module}`
  return g.scope(module, () => {
    const w = weight(g, c, `${path}.weight`)
    c.onInput?.(x, `${path}.weight`)
    const bias = hasBias(c.config, module) ? weight(g, c, `${path}.bias`) : undefined
    const active = c.adapters.filter((a) => a.modules.has(path) && (a.count === 1 || c.adapterOf))
    const only = active.length === 1 ? active[0] : undefined
    // DoRA alone and without dropout shares the base product: (m / norm)·(Wx + s·BAx) + bias
    if (only?.modules.get(path)?.dora && !(only.trainable && c.dropout)) {
      const low = adapterWeights(g, only, path, x.shape[1], w.shape[0])
      return scaleColumns(
        g,
        lora(g, linear(g, x, w, undefined, c.activations), x, low.a, low.b, low.scale)[0],
        low.gain(w),
        bias,
      )
    }
    let y = linear(g, x, w, bias, c.activations)
    for (const adapter of active) {
      const low = adapterWeights(g, adapter, path, x.shape[1], w.shape[0])
      const seen =
        adapter.trainable && c.dropout
          ? dropout(g, x, c.dropout.seed, { p: c.dropout.p, stream: nameCounter(path) >>> 8 })
          : x
      if (!adapter.modules.get(path)!.dora) {
        y = lora(g, y, seen, low.a, low.b, low.scale, adapter.count > 1 ? c.adapterOf : undefined)[0]
        continue
      }
      // PEFT: y + (m / norm)·(Wx' + s·BAx') - Wx', with x' after dropout
      const base = linear(g, seen, w, undefined, c.activations)
      y = add(g, y, sub(g, scaleColumns(g, lora(g, base, seen, low.a, low.b, low.scale)[0], low.gain(w)), base))
    }
    return y
  })
}

function adapterWeights(g: Graph, adapter: AdapterStructure, path: string, input: number, output: number) {
  const { rank } = adapter.modules.get(path)!
  const { count } = adapter
  const at = `${adapter.prefix}/${path}`
  const f32 = (...shape: number[]) => ({ dtype: 'f32', shape }) as const
  const a = g.weight(`${at}.lora_A`, f32(count * rank, input), adapter.trainable)
  const b = g.weight(`${at}.lora_B`, f32(count * output, rank), adapter.trainable)
  const scale = g.weight(`${at}.scale`, f32(count))
  /** DoRA's m / ||W + s·BA||, the norm detached. [O] */
  const gain = (w: Tensor) => {
    const magnitude = g.weight(`${at}.lora_magnitude_vector`, f32(output), adapter.trainable)
    return div(g, magnitude, doraNorm(g, w, a, b, scale))
  }
  return { a, b, scale, gain }
}
