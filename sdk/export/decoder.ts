// A decoder as transformers.js and onnxruntime-genai run it: token ids and a mask in, logits out, keys and values in and out by name.
// Rows of all sequences lie one below the other, but for attention (GroupQueryAttention, which rotates and appends).

import { nn } from '../../targets/onnx/lower/nn.ts'
import type { Operand } from '../../targets/onnx/lower/types.ts'
import { gathered, product } from '../../targets/onnx/lower/weights.ts'
import { OnnxGraph } from '../../targets/onnx/model.ts'
import { type FloatDType, isQuantized } from '../dtype.ts'
import type { ModelConfig, Rope } from '../model/config.ts'
import { embeddingName, finalNorm, hasBias, headName, layerName } from '../model/names.ts'
import { ropeTable } from '../model/rope.ts'

/** `weights`: type and shape by name; their data is asked for when the file is written. */
export function decoderGraph(
  config: ModelConfig,
  weights: ReadonlyMap<string, { readonly dtype: FloatDType; readonly shape: readonly number[] }>,
): OnnxGraph {
  const g = new OnnxGraph()
  const weight = (name: string): Operand => {
    const { dtype, shape } = weights.get(name)!
    const source = { bound: name, part: 'values', row: 0 } as const
    const value = isQuantized(dtype) ? '' : g.input(name, { type: 'f32', shape, source })
    return { dtype, shape, bound: name, value }
  }
  const rows = (value: string, width: number): Operand => ({ dtype: 'f32', shape: [many, width], bound: '', value })
  const norm = (x: string, name: string) => {
    const w = weight(name)
    const attrs = { eps: config.rmsNormEps, offset: config.normOffset }
    return nn.rmsnorm(g, { inputs: [rows(x, w.shape[0]), w], attrs })[0]
  }
  const normed = (x: string, layer: number, name: string | undefined) =>
    name === undefined ? x : norm(x, `${layerName(layer)}.${name}.weight`)
  const linear = (x: string, layer: number, module: string) => {
    const path = `${layerName(layer)}.${module}`
    const w = weight(`${path}.weight`)
    const bias = hasBias(config, module) ? weight(`${path}.bias`).value : undefined
    return product(g, rows(x, w.shape[1]), w, { bias })
  }
  const scaled = (x: string, by: number) => (by === 1 ? x : g.node('Mul', [x, g.float(by)]))

  const { numAttentionHeads, numKeyValueHeads, headDim, vocabSize, maxPositionEmbeddings } = config
  const ids = g.openInput('input_ids', 'i64', ['batch_size', 'sequence_length'])
  const mask = g.openInput('attention_mask', 'i64', ['batch_size', 'total_sequence_length'])
  const lead = g.node('Shape', [ids])
  /** [batch, sequence, width] */
  const bySequence = (x: string) => g.node('Reshape', [x, g.node('Concat', [lead, g.ints(-1)], { axis: 0 })])
  const lasts = g.cast(g.node('Sub', [g.sum(mask, 1), g.ints(1)]), 'i32')
  const total = g.cast(g.node('Gather', [g.node('Shape', [mask]), g.int32(1)]), 'i32')
  const tables = (rope: Rope) =>
    g.once(`rope ${config.layers.findIndex((layer) => layer.rope === rope)}`, () => {
      const table = ropeTable(rope, { shape: [maxPositionEmbeddings, headDim] })
      const half = headDim / 2
      return [0, half].map((from) => {
        const own = new Float32Array(maxPositionEmbeddings * half)
        for (let p = 0; p < maxPositionEmbeddings; p++)
          own.set(table.subarray(p * headDim + from, p * headDim + from + half), p * half)
        return g.table('f32', [maxPositionEmbeddings, half], new Uint8Array(own.buffer))
      })
    })

  let x = scaled(gathered(g, g.reshape(ids, [-1]), weight(embeddingName)), config.embeddingScale)
  for (const [index, { norms, rope, window, attentionScale, activation }] of config.layers.entries()) {
    const input = normed(x, index, norms.attentionInput)
    const headed = (module: string, heads: number, name: string | undefined) => {
      const own = linear(input, index, `self_attn.${module}`)
      if (name === undefined) return bySequence(own)
      return bySequence(g.reshape(normed(g.reshape(own, [-1, headDim]), index, name), [-1, heads * headDim]))
    }
    const cache = (length: string) => ['batch_size', numKeyValueHeads, length, headDim]
    const past = ['key', 'value'].map((part) =>
      g.openInput(`past_key_values.${index}.${part}`, 'f32', cache('past_sequence_length')),
    )
    const [attended, ...present] = g.nodeOf(
      3,
      'GroupQueryAttention',
      [
        headed('q_proj', numAttentionHeads, norms.query),
        headed('k_proj', numKeyValueHeads, norms.key),
        headed('v_proj', numKeyValueHeads, undefined),
        ...past,
        lasts,
        total,
        ...(rope ? tables(rope) : []),
      ],
      {
        num_heads: numAttentionHeads,
        kv_num_heads: numKeyValueHeads,
        scale: { float: attentionScale },
        do_rotary: rope ? 1 : 0,
        ...(window > 0 && { local_window_size: window }),
      },
    )
    for (const [i, part] of ['key', 'value'].entries())
      g.openOutput(`present.${index}.${part}`, present[i], 'f32', cache('total_sequence_length'))
    const flat = g.reshape(attended, [-1, numAttentionHeads * headDim])
    const output = normed(linear(flat, index, 'self_attn.o_proj'), index, norms.attentionOutput)
    x = g.node('Add', [x, scaled(output, config.residualScale)])
    const inner = normed(x, index, norms.mlpInput)
    const [gate, up] = ['gate_proj', 'up_proj'].map((name) =>
      rows(linear(inner, index, `mlp.${name}`), config.intermediateSize),
    )
    const [acted] = nn.swiglu(g, { inputs: [gate, up], attrs: { activation } })
    const down = normed(linear(acted, index, 'mlp.down_proj'), index, norms.mlpOutput)
    x = g.node('Add', [x, scaled(down, config.residualScale)])
  }
  const head = weight(headName(config))
  const logits = product(g, rows(scaled(norm(x, finalNorm), config.logitsScale), head.shape[1]), head)
  g.openOutput('logits', bySequence(logits), 'f32', ['batch_size', 'sequence_length', vocabSize])
  return g
}

/** Rows that are not known: more than any rule for few of them. */
const many = 2 ** 20
