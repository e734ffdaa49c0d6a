// Embedding, norms, rotary embedding, attention, gated activation, dropout:
// kernels-as/{embed,norm,rope,attention,swiglu,dropout}.ts.
import type { TensorType } from '../../../sdk/dtype.ts'
import { dropoutThreshold } from '../../../sdk/ops/dropout.ts'
import type { AttentionAttrs } from '../../../sdk/ops/index.ts'
import { activations } from '../../../sdk/ops/swiglu.ts'
import { align, codeOf, columnsOf, count, direct, type Lowering, type LowerNode, perThread, windowOf } from './types.ts'

/** Of q [N, heads*D]: a kernel's arguments, and what its scratch goes by. */
function headsOf({ heads, kvHeads, scale, window }: AttentionAttrs, { shape: [n, width] }: TensorType) {
  const d = width / heads
  return { sizes: [n, heads, kvHeads, d, scale, windowOf(window)], n, group: heads / kvHeads, d }
}

/** Of a weight w beside x [M, C]. */
const normBytes = ({ sizes, code, attrs }: LowerNode<{ offset: number }>, x: TensorType, w: TensorType): number =>
  sizes.normScratch(codeOf({ code }, w), attrs.offset, columnsOf(x))

export const nn = {
  embed: direct(({ inputs: [ids, table], outputs: [y] }, node) => {
    const [rows, columns] = node.outputs[0].shape
    return [['embed', ids, table, codeOf(node, node.inputs[1]), y, rows, columns]]
  }),
  embedBack: direct(({ inputs: [dy, ids, grad] }, { inputs: [{ shape }] }) => [
    ['embedBack', dy, ids, grad, shape[0], shape[1]],
  ]),
  rmsnorm: perThread(
    (node) => normBytes(node, node.inputs[0], node.inputs[1]),
    ({ inputs: [x, w], outputs: [y, rstd], scratch }, node) => {
      const [[rows, columns], { eps, offset }] = [node.inputs[0].shape, node.attrs]
      return [['rmsnorm', x, w, codeOf(node, node.inputs[1]), offset, y, rstd, rows, columns, eps, scratch]]
    },
  ),
  rmsnormBack: perThread(
    (node) => normBytes(node, node.inputs[1], node.inputs[2]),
    ({ inputs: [dy, x, w, rstd], outputs: [dx], scratch }, node) => {
      const [rows, columns] = node.inputs[1].shape
      const code = codeOf(node, node.inputs[2])
      return [['rmsnormBack', dy, x, w, code, node.attrs.offset, rstd, dx, rows, columns, scratch]]
    },
  ),
  rmsnormBackWeight: direct(({ inputs: [dy, x, rstd, grad] }, { inputs: [, { shape }] }) => [
    ['rmsnormBackWeight', dy, x, rstd, grad, shape[0], shape[1]],
  ]),
  rope: direct(({ inputs: [x, positions, table], outputs: [y] }, { inputs, attrs: { heads, inverse } }) => [
    ['rope', x, positions, table, y, inputs[0].shape[0], heads, columnsOf(inputs[2]), inverse ? -1 : 1],
  ]),
  attention({ inputs: [q], attrs, threads, sizes }) {
    const heads = headsOf(attrs, q)
    const own = sizes.attentionScratch(heads.group, heads.d)
    return {
      scratchBytes: threads * own,
      calls: ({ inputs, outputs, scratch }) => [['attention', ...inputs, ...outputs, ...heads.sizes, scratch, own]],
    }
  },
  attentionBack({ inputs: [dout], attrs, threads, sizes }) {
    const heads = headsOf(attrs, dout)
    const own = sizes.attentionBackScratch(heads.group, heads.d)
    const deltas = align(4 * heads.n * attrs.heads)
    return {
      scratchBytes: deltas + threads * own,
      calls({ inputs: [dout, q, k, v, out, lse, starts], outputs: [dq, dk, dv], scratch: delta }) {
        const read = [dout, q, k, v, starts, lse, delta] as const
        const rest = [...heads.sizes, delta + deltas, own] as const
        return [
          ['attentionDelta', dout, out, delta, heads.n, attrs.heads, heads.d],
          ['attentionBackQuery', ...read, dq, ...rest],
          ['attentionBackKeys', ...read, dk, dv, ...rest],
        ]
      },
    }
  },
  swiglu: direct(({ inputs, outputs }, { outputs: [y], attrs: { activation } }) => [
    ['swiglu', ...inputs, ...outputs, count(y), activations.indexOf(activation)],
  ]),
  swigluBack: direct(({ inputs, outputs }, { outputs: [dgate], attrs: { activation } }) => [
    ['swigluBack', ...inputs, ...outputs, count(dgate), activations.indexOf(activation)],
  ]),
  dropout: direct(({ inputs: [x, seed], outputs: [y] }, { outputs, attrs: { p, stream } }) => [
    // stream and the threshold are u32: the call takes them modulo 2^32
    ['dropout', x, seed, y, count(outputs[0]), stream | 0, dropoutThreshold(p) | 0, 1 / (1 - p)],
  ]),
} satisfies Partial<Lowering>
