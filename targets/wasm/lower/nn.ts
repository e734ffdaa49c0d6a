// Embedding, norms, rotary embedding, attention, gated activation, dropout:
// kernels-as/{embed,norm,rope,attention,swiglu,dropout}.ts.
import { elementCount } from '../../../sdk/dtype.ts'
import { type Argument, dtypeCode, type Lowering, type LowerNode, type NodeTypes, type Scratch } from './types.ts'

const count = (a: Argument): number => elementCount(a.shape)
const number = (node: NodeTypes, name: string): number => node.attrs[name] as number
const align = (bytes: number): number => Math.ceil(bytes / 64) * 64
const up = (n: number, unit: number): number => Math.ceil(n / unit) * unit

/** Keys of one tile: TILE of kernels-as/tile.ts. */
const tile = 64

/** Tokens of one task: `blockTokens` of kernels-as/attention.ts. */
export const blockTokens = (group: number): number => Math.max(4, Math.floor(64 / group) & -4)

/**
 * Bytes that one thread needs for `block` tokens of `group` heads: ranges, then the pieces of `attend` in their order.
 */
export function attendBytes(block: number, group: number, d: number): number {
  const rows = up(block * group, 4)
  const dim = up(d, 8)
  return align(8 * block + 4 * (2 * rows + rows * d + tile * d + tile * dim + rows * tile + rows * dim))
}

function heads(node: NodeTypes, width: number): { heads: number; kvHeads: number; group: number; d: number } {
  const [h, g] = [number(node, 'heads'), number(node, 'kvHeads')]
  return { heads: h, kvHeads: g, group: h / g, d: width / h }
}

/** Bytes of one thread in attentionBackQuery and attentionBackKeys. */
function backBytes(group: number, d: number): number {
  const block = blockTokens(group)
  const most = block * group
  const dim = up(d, 8)
  const query = 8 * block + 4 * (2 * most * d + 2 * tile * d + tile * dim + 2 * most * tile + most * dim)
  const keys = 4 * (4 * tile * d + 4 * tile * dim + 2 * tile * tile + 2 * tile)
  return align(Math.max(query, keys))
}

function rmsnormScratch({ inputs }: NodeTypes, w: number, threads: number): number {
  const { dtype, shape } = inputs[w]
  return dtype === 'f32' ? 0 : threads * 4 * shape[0]
}

export const lowering: Lowering = {
  embed({ inputs: [ids, table], outputs: [y] }) {
    return [['embed', ids.ptr, table.ptr, dtypeCode[table.dtype], y.ptr, y.shape[0], y.shape[1]]]
  },
  embedBack({ inputs: [dy, ids, grad] }) {
    return [['embedBack', dy.ptr, ids.ptr, grad.ptr, dy.shape[0], dy.shape[1]]]
  },
  rmsnorm(node) {
    const { inputs, outputs, scratch } = node
    const [x, w] = inputs
    const [y, rstd] = outputs
    const eps = number(node, 'eps')
    return [['rmsnorm', x.ptr, w.ptr, dtypeCode[w.dtype], y.ptr, rstd.ptr, x.shape[0], x.shape[1], eps, scratch]]
  },
  rmsnormBack({ inputs: [dy, x, w, rstd], outputs: [dx], scratch }) {
    return [
      ['rmsnormBack', dy.ptr, x.ptr, w.ptr, dtypeCode[w.dtype], rstd.ptr, dx.ptr, x.shape[0], x.shape[1], scratch],
    ]
  },
  rmsnormBackWeight({ inputs: [dy, x, rstd, grad] }) {
    return [['rmsnormBackWeight', dy.ptr, x.ptr, rstd.ptr, grad.ptr, x.shape[0], x.shape[1]]]
  },
  rope(node) {
    const [x, positions, table] = node.inputs
    const sign = number(node, 'inverse') ? -1 : 1
    const shape = [x.shape[0], number(node, 'heads'), table.shape[1]] as const
    return [['rope', x.ptr, positions.ptr, table.ptr, node.outputs[0].ptr, ...shape, sign]]
  },
  attention(node) {
    const [q, k, v, starts] = node.inputs
    const [out, lse] = node.outputs
    const size = heads(node, q.shape[1])
    const { heads: h, kvHeads, group, d } = size
    const own = attendBytes(blockTokens(group), group, d)
    const shape = [q.shape[0], h, kvHeads, d, number(node, 'scale')] as const
    return [['attention', q.ptr, k.ptr, v.ptr, starts.ptr, out.ptr, lse.ptr, ...shape, node.scratch, own]]
  },
  attentionBack(node: LowerNode) {
    const [dout, q, k, v, out, lse, starts] = node.inputs
    const [dq, dk, dv] = node.outputs
    const { heads: h, kvHeads, group, d } = heads(node, q.shape[1])
    const n = q.shape[0]
    const delta = node.scratch
    const rest = [n, h, kvHeads, d, number(node, 'scale'), delta + align(4 * n * h), backBytes(group, d)] as const
    const read = [dout.ptr, q.ptr, k.ptr, v.ptr, starts.ptr, lse.ptr, delta] as const
    return [
      ['attentionDelta', dout.ptr, out.ptr, delta, n, h, d],
      ['attentionBackQuery', ...read, dq.ptr, ...rest],
      ['attentionBackKeys', ...read, dk.ptr, dv.ptr, ...rest],
    ]
  },
  swiglu({ inputs: [gate, up], outputs: [y] }) {
    return [['swiglu', gate.ptr, up.ptr, y.ptr, count(y)]]
  },
  swigluBack({ inputs: [dy, gate, up], outputs: [dgate, dup] }) {
    return [['swigluBack', dy.ptr, gate.ptr, up.ptr, dgate.ptr, dup.ptr, count(dy)]]
  },
  dropout(node) {
    const [x, seed] = node.inputs
    const [p, stream] = [number(node, 'p'), number(node, 'stream')]
    // stream and the threshold are u32: the call takes them modulo 2^32
    return [
      ['dropout', x.ptr, seed.ptr, node.outputs[0].ptr, count(x), stream | 0, Math.floor(p * 2 ** 32) | 0, 1 / (1 - p)],
    ]
  },
}

export const scratch: Scratch = {
  rmsnorm: (node, threads) => rmsnormScratch(node, 1, threads),
  rmsnormBack: (node, threads) => rmsnormScratch(node, 2, threads),
  attention(node, threads) {
    const { group, d } = heads(node, node.inputs[0].shape[1])
    return threads * attendBytes(blockTokens(group), group, d)
  },
  attentionBack(node, threads) {
    const [n, width] = node.inputs[0].shape
    const { heads: h, group, d } = heads(node, width)
    return align(4 * n * h) + threads * backBytes(group, d)
  },
}
