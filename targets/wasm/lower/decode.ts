// What generation alone uses: the cache, attention to it, sampling: kernels-as/{kv,attention-cached,sample}.ts.
import { attendBytes, blockTokens } from './nn.ts'
import type { Lowering, NodeTypes, Scratch } from './types.ts'

const number = (node: NodeTypes, name: string): number => node.attrs[name] as number

/** Rows of one task of attentionCached: few rows are decode steps of different slots, many are prefill chunks or a large batch. */
const blockRows = (rows: number, group: number): number => (rows <= 16 ? 1 : blockTokens(group))

function cached(node: NodeTypes): { block: number; own: number; sizes: [number, number, number, number, number] } {
  const [q, cacheK] = node.inputs
  const [rows, width] = q.shape
  const [heads, kvHeads] = [number(node, 'heads'), number(node, 'kvHeads')]
  const [group, d] = [heads / kvHeads, width / heads]
  const block = blockRows(rows, group)
  return { block, own: attendBytes(block, group, d), sizes: [rows, cacheK.shape[1], heads, kvHeads, d] }
}

/** One thread's scratch of `sample`: edited logits, their weights, bins of the selection. */
const sampleBytes = (vocabulary: number): number => Math.ceil((8 * vocabulary) / 64) * 64 + 18432

export const lowering: Lowering = {
  attentionCached(node) {
    const { block, own, sizes } = cached(node)
    const pointers = [...node.inputs, node.outputs[0]].map(({ ptr }) => ptr)
    return [['attentionCached', ...pointers, ...sizes, number(node, 'scale'), block, node.scratch, own]]
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
}

export const scratch: Scratch = {
  attentionCached: (node, threads) => threads * cached(node).own,
  sample: ({ inputs: [logits] }, threads) => threads * sampleBytes(logits.shape[1]),
}
