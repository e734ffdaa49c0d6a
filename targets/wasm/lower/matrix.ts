// Matrix products, low-rank adapters, and the vocabulary in slices: kernels-as/{linear,lora,dora,vocab}.ts.
import { byteLength, type TensorType } from '../../../sdk/dtype.ts'
import {
  align,
  type Call,
  codeOf,
  columnsOf,
  direct,
  type Lowered,
  type Lowering,
  type LowerNode,
  perThread,
  rowsOf,
} from './types.ts'

type Node = LowerNode<unknown>

/** A matrix at an address, [rows, columns]. */
interface Weight {
  readonly ptr: number
  readonly code: number
  readonly rows: number
  readonly columns: number
}

const weight = (node: Node, ptr: number, type: TensorType): Weight => ({
  ptr,
  code: codeOf(node, type),
  rows: rowsOf(type),
  columns: columnsOf(type),
})

interface LinearOptions {
  readonly bias?: { readonly ptr: number; readonly code: number }
  /** Address of [N, O] that the product is added to. */
  readonly start?: number
  /** Address of an f32 factor. */
  readonly scale?: number
}

/** y[n, o] = (start or bias) + scale·x[n, i]·wᵀ */
function linear(
  { sizes }: Node,
  x: number,
  { ptr, code, rows, columns }: Weight,
  y: number,
  n: number,
  scratch: number,
  { bias, start = 0, scale = 0 }: LinearOptions = {},
): Call {
  const biased = [bias?.ptr ?? 0, bias?.code ?? 0]
  const own = sizes.linearScratch(n)
  return ['linear', x, ptr, code, ...biased, start, scale, y, n, columns, rows, scratch, own]
}

/** dx[n, i] = start + scale·dy[n, o]·w */
function backInput(
  { sizes }: Node,
  dy: number,
  w: Weight,
  dx: number,
  n: number,
  scratch: number,
  start = 0,
  scale = 0,
): Call {
  const own = sizes.linearBackInputScratch()
  return ['linearBackInput', dy, w.ptr, w.code, start, scale, dx, n, w.columns, w.rows, scratch, own]
}

const isRounded = ({ attrs: { activations = 'f32' } }: LowerNode<{ activations?: string | number }>): boolean =>
  activations !== 'f32'

/** y[n, o] = bias + x[n, i]·wᵀ with x rounded to int8 (beside q8 to int16); w of q8, q4 or q4a. */
function linearInt8(
  { sizes, ...node }: Node,
  x: number,
  { ptr, code, rows, columns }: Weight,
  y: number,
  n: number,
  scratch: number,
  bias?: LinearOptions['bias'],
): Call {
  const quads = Number(node.quads && code !== node.code('q8'))
  const own = sizes.linearInt8Scratch(n, columns)
  return ['linearInt8', x, ptr, code, bias?.ptr ?? 0, bias?.code ?? 0, y, n, columns, rows, quads, scratch, own]
}

const biasOf = (node: Node, ptr: number | undefined, type: TensorType): LinearOptions['bias'] =>
  ptr === undefined ? undefined : { ptr, code: codeOf(node, type) }

/**
 * Ids of the vocabulary taken at once: 4 MiB of logits, but whole blocks of the product's depth, so that sums over the vocabulary run
 * in the same order for any number of rows.
 */
const sliceWidth = ({ sizes }: Node, rows: number): number =>
  Math.max(1, Math.floor(2 ** 20 / rows / sizes.DEPTH.value)) * sizes.DEPTH.value

interface Slice {
  readonly first: number
  readonly table: Weight
}

function slices(node: Node, ptr: number, table: TensorType, rows: number): Slice[] {
  const [all, width] = [weight(node, ptr, table), sliceWidth(node, rows)]
  const rowBytes = byteLength(table) / all.rows
  return Array.from({ length: Math.ceil(all.rows / width) }, (_, s) => {
    const first = s * width
    return { first, table: { ...all, ptr: ptr + first * rowBytes, rows: Math.min(width, all.rows - first) } }
  })
}

/** Bytes of one slice's logits. */
const logitsBytes = (node: Node, rows: number, table: TensorType): number =>
  align(4 * rows * Math.min(sliceWidth(node, rows), rowsOf(table)))

/** What both gradients share: each slice's logits, then their gradient in place, then what `use` makes of it. */
function vocabBack(
  node: Node,
  ownBytes: number,
  use: (slice: Slice, addresses: { z: number; scratch: number; inputs: readonly number[]; output: number }) => Call,
): Lowered {
  const [table, ids] = node.inputs.slice(5)
  const [rows, k] = ids.shape
  const [logits, kept] = [logitsBytes(node, rows, table), align(4 * k * node.threads)]
  const own = Math.max(node.sizes.linearScratch(rows), ownBytes)
  return {
    scratchBytes: logits + kept + node.threads * own,
    calls({ inputs, outputs: [output], scratch: z }) {
      const [dLogProbs, dLse, dEntropy, dTail, h, table_, ids, temperature, lse, entropy, tail] = inputs
      const gradients = [dLogProbs, dLse, dEntropy, dTail, lse, entropy, tail, temperature]
      const scratch = z + logits + kept
      return slices(node, table_, table, rows).flatMap((slice) => [
        linear(node, h, slice.table, z, rows, scratch),
        ['vocabGradient', z, ids, ...gradients, rows, k, slice.table.rows, slice.first, z + logits],
        use(slice, { z, scratch, inputs, output }),
      ])
    },
  }
}

/** Bytes that one thread needs for a product of x with base weights. */
const productScratch = (node: LowerNode<{ activations?: string | number }>, x: TensorType): number =>
  isRounded(node) ? node.sizes.linearInt8Scratch(rowsOf(x), columnsOf(x)) : node.sizes.linearScratch(rowsOf(x))

export const matrix = {
  linear: perThread(
    (node) => productScratch(node, node.inputs[0]),
    ({ inputs: [x, w, b], outputs: [y], scratch }, node) => {
      const [type, table, biasType] = node.inputs
      const [n, own, bias] = [rowsOf(type), weight(node, w, table), biasOf(node, b, biasType)]
      return [
        isRounded(node) ? linearInt8(node, x, own, y, n, scratch, bias) : linear(node, x, own, y, n, scratch, { bias }),
      ]
    },
  ),
  linearBackInput: perThread(
    ({ sizes }) => sizes.linearBackInputScratch(),
    ({ inputs: [dy, w], outputs: [dx], scratch }, node) => [
      backInput(node, dy, weight(node, w, node.inputs[1]), dx, rowsOf(node.inputs[0]), scratch),
    ],
  ),
  linearBackWeight: perThread(
    ({ sizes }) => sizes.linearBackWeightScratch(),
    (
      { inputs: [dy, x], outputs: [grad], scratch },
      {
        inputs: [
          {
            shape: [rows, outputs],
          },
          type,
        ],
      },
      own,
    ) => [['linearBackWeight', dy, x, grad, rows, columnsOf(type), outputs, scratch, own]],
  ),
  linearBackBias: direct(({ inputs: [dy], outputs: [grad] }, { inputs: [{ shape }] }) => [
    ['columnSums', dy, 0, grad, 1, shape[0], shape[1]],
  ]),
  lora(node) {
    const [, x, a, b, , of] = node.inputs
    const [[n, inputs], rank] = [x.shape, columnsOf(b)]
    if (of)
      return {
        scratchBytes: 0,
        calls: ({ inputs: [y, x, a, b, scale, of], outputs: [out, h] }) => [
          ['loraDown', x, a, scale, of, h, n, inputs, rank],
          ['loraUp', h, b, of, y, out, n, columnsOf(node.outputs[0]), rank],
        ],
      }
    return {
      scratchBytes: node.threads * node.sizes.linearScratch(n),
      calls: ({ inputs: [y, x, a_, b_, scale], outputs: [out, h], scratch }) => [
        linear(node, x, weight(node, a_, a), h, n, scratch, { scale }),
        linear(node, h, weight(node, b_, b), out, n, scratch, { start: y }),
      ],
    }
  },
  loraBack: perThread(
    ({ sizes }) => sizes.linearBackInputScratch(),
    ({ inputs: [dy, a, b, scale], outputs: [dx, t], scratch }, node) => {
      const [{ shape }, down, up] = node.inputs
      return [
        backInput(node, dy, weight(node, b, up), t, shape[0], scratch, 0, scale),
        backInput(node, t, weight(node, a, down), dx, shape[0], scratch),
      ]
    },
  ),
  doraNorm: perThread(
    ({ inputs: [w], sizes }) => sizes.doraScratch(columnsOf(w)),
    ({ inputs: [w, a, b, scale], outputs: [norm], scratch }, node, own) => {
      const [table, low] = node.inputs
      return [['doraNorm', w, codeOf(node, table), a, b, scale, norm, ...table.shape, rowsOf(low), scratch, own]]
    },
  ),
  scaleColumns: direct(({ inputs: [y, gain, b], outputs: [out] }, node) => {
    const [{ shape }, , bias] = node.inputs
    const { ptr = 0, code = 0 } = biasOf(node, b, bias) ?? {}
    return [['scaleColumns', y, gain, ptr, code, out, shape[0], shape[1]]]
  }),
  scaleColumnsBack: direct(({ inputs: [dy, y], outputs: [dGain] }, { inputs: [{ shape }] }) => [
    ['columnSums', dy, y, dGain, 0, shape[0], shape[1]],
  ]),
  vocabPick(node) {
    const [x, table, ids] = node.inputs
    const [rows, k] = ids.shape
    const [logits, stats] = [logitsBytes(node, rows, table), align(node.sizes.STATS.value * rows)]
    const product = isRounded(node) ? linearInt8 : linear
    return {
      scratchBytes: logits + stats + node.threads * productScratch(node, x),
      calls({ inputs: [h, table_, ids, temperature], outputs: [logProbs, lse, entropy, tail], scratch: z }) {
        const sums = slices(node, table_, table, rows).flatMap(({ first, table }): Call[] => [
          product(node, h, table, z, rows, z + logits + stats),
          ['vocabStats', z, ids, temperature, logProbs, z + logits, rows, k, table.rows, first],
        ])
        return [...sums, ['vocabCombine', ids, logProbs, z + logits, lse, entropy, tail, rows, k]]
      },
    }
  },
  vocabPickBack: (node) =>
    vocabBack(node, node.sizes.linearBackInputScratch(), ({ first, table }, { z, scratch, output: dh }) =>
      backInput(node, z, table, dh, node.inputs[6].shape[0], scratch, first > 0 ? dh : 0),
    ),
  vocabPickBackTable(node) {
    const own = node.sizes.linearBackWeightScratch()
    const [rows, columns] = node.inputs[4].shape
    return vocabBack(node, own, ({ first, table }, { z, scratch, inputs, output: grad }) => {
      const part = grad + 4 * first * columns
      return ['linearBackWeight', z, inputs[4], part, rows, columns, table.rows, scratch, own]
    })
  },
} satisfies Partial<Lowering>

const [input, dtype, rows, columns, quads, scratch, own] = [0, 2, 6, 7, 9, 10, 11]

/**
 * Products with the same x, one after the other (q, k and v; gate and up), round it once: what is in each thread's scratch needs no barrier
 * either.
 */
export function roundOnce(calls: readonly Call[]): Call[] {
  return calls.map((call, i): Call => {
    const [[kernel, ...args], [before, ...others]] = [call, calls[i - 1] ?? ['']]
    const isSame = (at: number): boolean => args[at] === others[at]
    if (kernel !== 'linearInt8' || before !== kernel) return call
    return [input, dtype, rows, columns, quads, scratch, own].every(isSame) ? ['linearInt8Again', ...args] : call
  })
}
