// What generation and teachers alone use: the cache, attention to it, sampling, the likeliest ids:
// kernels-as/{kv,attention-cached,sample,top}.ts.
import { attendBytes, blockTokens } from './nn.ts'
import type { Lowering, NodeTypes, Scratch } from './types.ts'

const number = (node: NodeTypes, name: string): number => node.attrs[name] as number

/** Up to this many rows are taken for decode steps of different slots. */
const fewRows = 16
/** Positions of one task where few rows read a long cache. */
const chunk = 512
const align = (bytes: number): number => Math.ceil(bytes / 64) * 64

function cached(node: NodeTypes) {
  const [q, cacheK] = node.inputs
  const [rows, width] = q.shape
  const capacity = cacheK.shape[1]
  const [heads, kvHeads] = [number(node, 'heads'), number(node, 'kvHeads')]
  const [group, d] = [heads / kvHeads, width / heads]
  const block = rows <= fewRows ? 1 : blockTokens(group)
  const own = attendBytes(block, group, d)
  // chunks of all rows: their outputs, then their log-sum-exps
  const pieces = rows <= fewRows && capacity > chunk ? rows * Math.ceil(capacity / chunk) : 0
  const partial = { outputs: align(4 * pieces * width), lses: align(4 * pieces * heads) }
  return { rows, capacity, heads, kvHeads, d, block, own, pieces, partial }
}

/** One thread's scratch of `sample`: edited logits, their weights, bins of the selection. */
const sampleBytes = (vocabulary: number): number => align(8 * vocabulary) + 18432

export const lowering: Lowering = {
  attentionCached(node) {
    const { rows, capacity, heads, kvHeads, d, block, own, pieces, partial } = cached(node)
    const pointers = node.inputs.map(({ ptr }) => ptr)
    const [positions, out, factor] = [pointers[4], node.outputs[0].ptr, number(node, 'scale')]
    const sizes = [rows, capacity, heads, kvHeads, d, factor] as const
    if (pieces === 0) return [['attentionCached', ...pointers, out, ...sizes, block, node.scratch, own]]
    const outputs = node.scratch
    const lses = outputs + partial.outputs
    const free = lses + partial.lses
    return [
      ['attentionCachedChunks', ...pointers, outputs, lses, ...sizes, chunk, free, own],
      ['attentionCachedMerge', outputs, lses, positions, out, rows, capacity, heads, d, chunk],
    ]
  },
  kvWrite({ inputs: [cache, x, slots, positions] }) {
    const [, capacity, e] = cache.shape
    return [['kvWrite', cache.ptr, x.ptr, slots.ptr, positions.ptr, x.shape[0], capacity, e]]
  },
  kvCopy({ inputs: [cache, from, to, length] }) {
    const [, capacity, e] = cache.shape
    return [['kvCopy', cache.ptr, from.ptr, to.ptr, length.ptr, from.shape[0], capacity, e]]
  },
  sample({ inputs, outputs, scratch }) {
    const [rows, vocabulary] = inputs[0].shape
    const edits = inputs[6].shape[0]
    return [
      [
        'sample',
        ...inputs.map(({ ptr }) => ptr),
        edits,
        ...outputs.map(({ ptr }) => ptr),
        rows,
        vocabulary,
        scratch,
        sampleBytes(vocabulary),
      ],
    ]
  },
  topLogProbs({ inputs: [logits, temperature], outputs: [ids, logProbs, tail], scratch }) {
    const [rows, vocabulary] = logits.shape
    const pointers = [logits, temperature, ids, logProbs, tail].map(({ ptr }) => ptr)
    return [['topLogProbs', ...pointers, rows, vocabulary, ids.shape[1], scratch, align(4 * vocabulary)]]
  },
  drawTokens({ inputs: [logits, temperature, uniforms], outputs: [ids] }) {
    const pointers = [logits, temperature, uniforms, ids].map(({ ptr }) => ptr)
    return [['drawTokens', ...pointers, ...logits.shape, ids.shape[1]]]
  },
}

export const scratch: Scratch = {
  attentionCached(node, threads) {
    const { own, partial } = cached(node)
    return partial.outputs + partial.lses + threads * own
  },
  sample: ({ inputs: [logits] }, threads) => threads * sampleBytes(logits.shape[1]),
  topLogProbs: ({ inputs: [logits] }, threads) => threads * align(4 * logits.shape[1]),
}
