// What generation and teachers alone use: the cache, attention to it, sampling, the likeliest ids:
// kernels-as/{kv,attention-cached,sample,top}.ts.
import { align, codeOf, columnsOf, direct, type Lowering, perThread, windowOf } from './types.ts'

export const decode = {
  attentionCached(node) {
    const {
      inputs: [q, cache, , , slot],
      attrs: { scale, window },
      threads,
      sizes,
    } = node
    const [[rows, width], [, kvHeads, capacity, d]] = [q.shape, cache.shape]
    const heads = width / d
    const dtype = codeOf(node, cache)
    const own = sizes.attentionCachedScratch(slot ? 1 : 0, heads / kvHeads, d, dtype)
    const seen = windowOf(window)
    const shape = [rows, capacity, heads, kvHeads, d, scale, seen] as const
    const chunk = sizes.CACHED_CHUNK.value
    if (slot)
      return {
        scratchBytes: threads * own,
        calls: ({ inputs: [q, k, v, positions, slot], outputs: [out], scratch }) => [
          ['attentionCached', q, k, v, dtype, positions, slot, out, ...shape, scratch, own],
        ],
      }
    if (capacity <= chunk)
      return {
        scratchBytes: threads * own,
        calls: ({ inputs: [q, k, v, positions], outputs: [out], scratch }) => [
          ['attentionCachedChunks', q, k, v, dtype, positions, out, 0, ...shape, scratch, own],
        ],
      }
    // chunks of all rows: their outputs, then their log-sum-exps
    const pieces = rows * Math.ceil(capacity / chunk)
    const [outputBytes, lseBytes] = [align(4 * pieces * width), align(4 * pieces * heads)]
    return {
      scratchBytes: outputBytes + lseBytes + threads * own,
      calls({ inputs: [q, k, v, positions], outputs: [out], scratch: outputs }) {
        const lses = outputs + outputBytes
        return [
          ['attentionCachedChunks', q, k, v, dtype, positions, outputs, lses, ...shape, lses + lseBytes, own],
          ['attentionCachedMerge', outputs, lses, positions, out, rows, capacity, heads, d, seen],
        ]
      },
    }
  },
  kvWrite: direct(({ inputs: [cache, x, positions, slot = 0] }, node) => {
    const [type, rows] = node.inputs
    return [['kvWrite', cache, codeOf(node, type), x, positions, slot, rows.shape[0], ...type.shape.slice(1)]]
  }),
  kvCopy: direct(({ inputs: [cache, ...copies] }, node) => {
    const [type, from] = node.inputs
    return [['kvCopy', cache, codeOf(node, type), ...copies, from.shape[0], ...type.shape.slice(1)]]
  }),
  sample: perThread(
    ({ inputs: [logits], sizes }) => sizes.sampleScratch(columnsOf(logits)),
    ({ inputs, outputs: [ids, logProb, truncated], scratch }, { inputs: types }, own) => {
      const [penalties = 0, counts = 0] = inputs.slice(9)
      const drawn = [ids, logProb, truncated, ...types[0].shape, scratch, own]
      return [['sample', ...inputs.slice(0, 9), types[6].shape[0], penalties, counts, ...drawn]]
    },
  ),
  topLogProbs: perThread(
    ({ inputs: [logits], sizes }) => sizes.topScratch(columnsOf(logits)),
    ({ inputs, outputs, scratch }, { inputs: [{ shape }], attrs: { k } }, own) => [
      ['topLogProbs', ...inputs, ...outputs, ...shape, k, scratch, own],
    ],
  ),
  drawTokens: direct(({ inputs, outputs }, { inputs: [{ shape }], outputs: [ids] }) => [
    ['drawTokens', ...inputs, ...outputs, ...shape, ids.shape[1]],
  ]),
} satisfies Partial<Lowering>
