import * as attention from '../../kernels-wgsl/attention.ts'
import * as elementwise from '../../kernels-wgsl/elementwise.ts'
import type { Kernel } from '../../kernels-wgsl/kernel.ts'
import * as products from '../../kernels-wgsl/matmul.ts'
import * as reduce from '../../kernels-wgsl/reduce.ts'
import * as rows from '../../kernels-wgsl/rows.ts'
import * as sampling from '../../kernels-wgsl/sample.ts'
import * as vocab from '../../kernels-wgsl/vocab.ts'
import { byteLength, elementCount, type TensorType } from '../../sdk/dtype.ts'
import type { Attrs } from '../../sdk/graph/spec.ts'
import { dropoutThreshold } from '../../sdk/ops/dropout.ts'
import type { WebGpuBuffer } from './buffer.ts'

/** An argument with its memory. */
export interface Place extends TensorType {
  /** null: the arena. */
  readonly buffer: WebGpuBuffer | null
  /** Which of the buffer's parts, where a large table has several; which of the arena's buffers. */
  readonly part: number
  /** Elements from the start of the part (4 bytes each in the arena). */
  readonly offset: number
}

/** One kernel over its arguments. */
export interface Dispatch {
  readonly kernel: Kernel
  readonly args: readonly Place[]
  readonly params: readonly number[]
  readonly groups: number
}

export interface LowerNode {
  readonly inputs: readonly Place[]
  readonly outputs: readonly Place[]
  readonly attrs: Attrs
  /** Bytes of the arena that the op's `scratch` asked for. */
  readonly scratch: Place
}

type Types = Pick<LowerNode, 'attrs'> & {
  readonly inputs: readonly TensorType[]
  readonly outputs: readonly TensorType[]
}

const count = ({ shape }: TensorType): number => elementCount(shape)
const columnsOf = ({ shape }: TensorType): number => shape[shape.length - 1]
const rowsOf = (t: TensorType): number => count(t) / columnsOf(t)
const number = (node: Types, name: string): number => node.attrs[name] as number
const moved = (place: Place, elements: number): Place => ({ ...place, offset: place.offset + elements })

/** A thread for each of n. */
const threads = (kernel: Kernel, n: number, args: readonly Place[], params: readonly number[]): Dispatch => ({
  kernel,
  args,
  params,
  groups: Math.ceil(n / kernel.workgroup),
})
const step = (t: TensorType): number => (count(t) === 1 ? 0 : 1)

const binary =
  (kernel: Kernel) =>
  ({ inputs: [a, b], outputs: [y] }: LowerNode) => [threads(kernel, count(y), [a, b, y], [count(y), step(a), step(b)])]

const unary =
  (kernel: Kernel, ...attrs: readonly string[]) =>
  (node: LowerNode) => {
    const [n, y] = [count(node.outputs[0]), node.outputs[0]]
    return [threads(kernel, n, [node.inputs[0], y], [n, ...attrs.map((name) => number(node, name))])]
  }

/** Elements of one block of a sum: kernels-wgsl/reduce.ts. */
const block = 4096
const blocksOf = (t: TensorType): number => Math.ceil(count(t) / block)

function sumAll(x: Place, y: Place, scratch: Place, squares: 0 | 1): Dispatch[] {
  const [n, blocks] = [count(x), blocksOf(x)]
  if (blocks === 1) return [{ kernel: reduce.sumBlocks, args: [x, y], params: [n, squares], groups: 1 }]
  return [
    { kernel: reduce.sumBlocks, args: [x, scratch], params: [n, squares], groups: blocks },
    { kernel: reduce.sumRows, args: [scratch, y], params: [blocks], groups: 1 },
  ]
}

interface Factor {
  readonly place: Place
  readonly row: number
  readonly inner: number
}

/** y[r, c] = Σ_k a[r, k]·b[c, k], by strides. */
function product(
  a: Factor,
  b: Factor,
  y: Place,
  [n, columns, inner]: readonly [number, number, number],
  options: { start?: Place; bias?: Place; factor?: Place; adds?: boolean; yRow?: number } = {},
): Dispatch {
  const { start, bias, factor, adds = false, yRow = columns } = options
  const shape = { start: start !== undefined, bias: bias !== undefined, factor: factor !== undefined, adds }
  const args = [a.place, b.place, ...[bias, factor, start].filter((x) => x !== undefined), y]
  const params = [n, columns, inner, a.row, a.inner, b.row, b.inner, yRow]
  const [alongA, alongB] = [along(a, inner), along(b, inner)]
  if (n <= 4 && alongA === 'inner' && alongB === 'inner' && inner % 32 === 0)
    return { kernel: products.matvec(shape, n), args, params, groups: Math.ceil(columns / 4) }
  const kernel = products.matmul(
    shape,
    ...(inner % 4 === 0 ? ([alongA, alongB] as const) : (['none', 'none'] as const)),
  )
  return threads(kernel, Math.ceil(n / 4) * Math.ceil(columns / 4), args, params)
}

/** Where whole words can be read: strides and the operand's place are multiples of four, or of a block. */
function along({ place, row, inner }: Factor, steps: number): products.Along {
  const isQuantized = place.dtype === 'q8' || place.dtype === 'q4'
  if (place.offset % (isQuantized ? 32 : 4) !== 0) return 'none'
  if (inner === 1 && row % 4 === 0 && steps % 4 === 0) return 'inner'
  return row === 1 && inner % 4 === 0 ? 'outer' : 'none'
}

const straight = (place: Place): Factor => ({ place, row: columnsOf(place), inner: 1 })
const transposed = (place: Place): Factor => ({ place, row: 1, inner: columnsOf(place) })

/** Parts of a table that is too large for one binding: each with its first row. */
function parts(table: Place): { place: Place; first: number }[] {
  if (!table.buffer) return [{ place: table, first: 0 }]
  return table.buffer.parts.map(({ first, rows: own }, part) => ({
    place: { ...table, part, shape: [own, ...table.shape.slice(1)] },
    first,
  }))
}

/** Ids of the vocabulary taken at once: 4 MiB of logits. */
const sliceWidth = (n: number): number => Math.max(64, Math.floor(2 ** 20 / n / 64) * 64)

function slices(table: Place, n: number): { place: Place; first: number; width: number }[] {
  const most = sliceWidth(n)
  return parts(table).flatMap(({ place, first }) => {
    const own = rowsOf(place)
    return Array.from({ length: Math.ceil(own / most) }, (_, s) => {
      const width = Math.min(most, own - s * most)
      return { place: moved(place, s * most * columnsOf(place)), first: first + s * most, width }
    })
  })
}

const logitsBytes = (n: number, vocabulary: number): number => 4 * n * Math.min(sliceWidth(n), vocabulary)

/** Each slice's logits, then their gradient in place, then what `use` makes of it. */
function vocabBack(
  { inputs, scratch }: LowerNode,
  use: (slice: { place: Place; first: number; width: number }, n: number, z: Place, at: number) => Dispatch,
): Dispatch[] {
  const [dLogProbs, dLse, dEntropy, dTail, h, table, ids, temperature, lse, entropy, tail] = inputs
  const [n, k] = ids.shape
  return slices(table, n).flatMap((slice, at) => {
    const z = { ...scratch, shape: [n, slice.width] }
    return [
      product(straight(h), straight(slice.place), z, [n, slice.width, columnsOf(h)]),
      threads(
        vocab.vocabGradient,
        n * slice.width,
        [z, ids, dLogProbs, dLse, dEntropy, dTail, lse, entropy, tail, temperature],
        [n * slice.width, k, slice.width, slice.first],
      ),
      use(slice, n, z, at),
    ]
  })
}

function heads(node: Types): { h: number; g: number; d: number; scale: number } {
  const [h, g] = [number(node, 'heads'), number(node, 'kvHeads')]
  return { h, g, d: 0, scale: number(node, 'scale') }
}

/** Op name -> its kernels. */
export const lowering: Readonly<Record<string, (node: LowerNode) => Dispatch[]>> = {
  view: () => [],
  stopGradient: () => [],
  add: binary(elementwise.add),
  sub: binary(elementwise.sub),
  mul: binary(elementwise.mul),
  div: binary(elementwise.div),
  min: binary(elementwise.min),
  max: binary(elementwise.max),
  logAddExp: binary(elementwise.logAddExp),
  scale: unary(elementwise.scale, 'factor'),
  exp: unary(elementwise.exp),
  log: unary(elementwise.log),
  log1p: unary(elementwise.log1pKernel),
  clamp: unary(elementwise.clamp, 'lo', 'hi'),
  where: ({ inputs, outputs: [y] }) => [threads(elementwise.where, count(y), [...inputs, y], [count(y)])],
  expand: ({ inputs: [a], outputs: [y] }) => [
    threads(elementwise.expand, count(y), [a, y], [count(y), count(y) / count(a)]),
  ],
  zeros: ({ outputs: [y] }) => [threads(elementwise.fill, count(y), [y], [count(y), 0])],
  fill: (node) => [
    threads(
      elementwise.fill,
      count(node.outputs[0]),
      [node.outputs[0]],
      [count(node.outputs[0]), number(node, 'value')],
    ),
  ],
  accumulate: ({ inputs: [state, x] }) => [threads(elementwise.accumulate, count(x), [state, x], [count(x)])],
  swiglu: ({ inputs, outputs: [y] }) => [threads(elementwise.swiglu, count(y), [...inputs, y], [count(y)])],
  swigluBack: ({ inputs, outputs }) => [
    threads(elementwise.swigluBack, count(inputs[0]), [...inputs, ...outputs], [count(inputs[0])]),
  ],
  dropout(node) {
    const [n, p] = [count(node.outputs[0]), number(node, 'p')]
    const params = [n, number(node, 'stream') >>> 0, dropoutThreshold(p), 1 / (1 - p)]
    return [threads(elementwise.dropout, n, [...node.inputs, node.outputs[0]], params)]
  },
  adamw: (node) => [
    threads(elementwise.adamw, count(node.inputs[0]), node.inputs, [count(node.inputs[0]), number(node, 'decay')]),
  ],

  sum: ({ inputs: [x], outputs: [y], attrs, scratch }) =>
    attrs.axis === 'all'
      ? sumAll(x, y, scratch, 0)
      : [{ kernel: reduce.sumRows, args: [x, y], params: [columnsOf(x)], groups: count(y) }],
  sumSquares: ({ inputs: [x], outputs: [y], scratch }) => sumAll(x, y, scratch, 1),
  segmentSum: ({ inputs: [x, segments], outputs: [y] }) => [
    threads(reduce.segmentSum, count(y), [x, segments, y], [count(x), count(y)]),
  ],
  linearBackBias: ({ inputs: [dy, grad] }) => [
    threads(reduce.columnSums(false), columnsOf(dy), [dy, grad], [rowsOf(dy), columnsOf(dy), 1]),
  ],
  scaleColumnsBack: ({ inputs: [dy, y], outputs: [dGain] }) => [
    threads(reduce.columnSums(true), columnsOf(y), [dy, y, dGain], [rowsOf(y), columnsOf(y), 0]),
  ],

  gatherRows: ({ inputs: [x, own], outputs: [y] }) => [
    threads(rows.gatherRows, count(y), [x, own, y], [count(y), columnsOf(y)]),
  ],
  scatterRows: ({ inputs: [dy, own], outputs: [y] }) => [
    threads(rows.scatterRows, count(y), [dy, own, y], [count(y), columnsOf(y), count(own)]),
  ],
  embed: ({ inputs: [ids, table], outputs: [y] }) =>
    parts(table).map(({ place, first }) =>
      threads(rows.embed, count(y), [ids, place, y], [count(y), columnsOf(y), first, rowsOf(place)]),
    ),
  embedBack: ({ inputs: [dy, ids, grad] }) => [
    threads(rows.embedBack, count(dy), [dy, ids, grad], [count(ids), columnsOf(dy)]),
  ],
  rmsnorm: (node) => {
    const [x] = node.inputs
    const params = [columnsOf(x), number(node, 'eps')]
    return [{ kernel: rows.rmsnorm, args: [...node.inputs, ...node.outputs], params, groups: rowsOf(x) }]
  },
  rmsnormBack: ({ inputs, outputs }) => [
    {
      kernel: rows.rmsnormBack,
      args: [...inputs, ...outputs],
      params: [columnsOf(inputs[1])],
      groups: rowsOf(inputs[1]),
    },
  ],
  rmsnormBackWeight: ({ inputs }) => [
    threads(rows.rmsnormBackWeight, columnsOf(inputs[1]), inputs, [rowsOf(inputs[1]), columnsOf(inputs[1])]),
  ],
  rope(node) {
    const [x, positions, table] = node.inputs
    const [h, d] = [number(node, 'heads'), columnsOf(table)]
    const pairs = count(x) / 2
    const params = [pairs, h, d, number(node, 'inverse') ? -1 : 1]
    return [threads(rows.rope, pairs, [x, positions, table, node.outputs[0]], params)]
  },
  kvWrite: ({ inputs: [cache, x, slots, positions] }) => [
    threads(rows.kvWrite, count(x), [cache, x, slots, positions], [count(x), columnsOf(x), cache.shape[1]]),
  ],
  kvCopy: ({ inputs }) => {
    const [cache, from] = inputs
    const params = [count(from), columnsOf(cache), cache.shape[1]]
    return [threads(rows.kvCopy, cache.shape[1] * columnsOf(cache), inputs, params)]
  },

  linear: ({ inputs: [x, w, bias], outputs: [y] }) =>
    parts(w).map(({ place, first }) => {
      const sizes = [rowsOf(x), rowsOf(place), columnsOf(x)] as const
      return product(straight(x), straight(place), moved(y, first), sizes, {
        bias: bias && moved(bias, first),
        yRow: columnsOf(y),
      })
    }),
  linearBackInput: ({ inputs: [dy, w], outputs: [dx] }) => [
    product(straight(dy), transposed(w), dx, [rowsOf(dy), columnsOf(w), rowsOf(w)]),
  ],
  linearBackWeight: ({ inputs: [dy, x, grad] }) => [
    product(transposed(dy), transposed(x), grad, [columnsOf(dy), columnsOf(x), rowsOf(x)], { adds: true }),
  ],
  lora: ({ inputs: [y, x, a, b, scale], outputs: [out, h] }) => [
    product(straight(x), straight(a), h, [rowsOf(x), rowsOf(a), columnsOf(x)], { factor: scale }),
    product(straight(h), straight(b), out, [rowsOf(x), rowsOf(b), columnsOf(b)], { start: y }),
  ],
  loraBack: ({ inputs: [dy, a, b, scale], outputs: [dx, t] }) => [
    product(straight(dy), transposed(b), t, [rowsOf(dy), columnsOf(b), rowsOf(b)], { factor: scale }),
    product(straight(t), transposed(a), dx, [rowsOf(dy), columnsOf(a), rowsOf(a)]),
  ],
  doraNorm: ({ inputs: [w, a, b, scale], outputs: [y] }) => [
    { kernel: products.doraNorm, args: [w, a, b, scale, y], params: [columnsOf(w), rowsOf(a)], groups: rowsOf(w) },
  ],
  scaleColumns: ({ inputs: [y, gain, bias], outputs: [out] }) => [
    threads(
      products.scaleColumns(bias !== undefined),
      count(y),
      [y, gain, ...(bias ? [bias] : []), out],
      [count(y), columnsOf(y)],
    ),
  ],

  attention(node) {
    const { h, g, scale } = heads(node)
    const [q] = node.inputs
    const n = rowsOf(q)
    const kernel = attention.attention(columnsOf(q) / h)
    return [threads(kernel, n * h, [...node.inputs, ...node.outputs], [n, h, g, scale])]
  },
  attentionCached(node) {
    const { h, g, scale } = heads(node)
    const [q, cache] = node.inputs
    const n = rowsOf(q)
    const kernel = attention.attentionCached(columnsOf(q) / h)
    const args = [...node.inputs, ...node.outputs]
    return [{ kernel, args, params: [n, cache.shape[1], h, g, scale], groups: n * h }]
  },
  attentionBack(node) {
    const { h, g, scale } = heads(node)
    const [dout, q, k, v, out, lse, starts] = node.inputs
    const [dq, dk, dv] = node.outputs
    const n = rowsOf(q)
    const d = columnsOf(q) / h
    const read = [dout, q, k, v, lse, node.scratch, starts]
    return [
      threads(attention.attentionDelta(d), n * h, [dout, out, node.scratch], [n * h]),
      threads(attention.attentionBackQuery(d), n * h, [...read, dq], [n, h, g, scale]),
      threads(attention.attentionBackKeys(d), n * g, [...read, dk, dv], [n, h, g, scale]),
    ]
  },

  vocabPick({ inputs: [h, table, ids, temperature], outputs: [logProbs, lse, entropy, tail], scratch }) {
    const [n, k] = ids.shape
    const stats = moved(scratch, logitsBytes(n, rowsOf(table)) / 4)
    return [
      ...slices(table, n).flatMap(({ place, first, width }): Dispatch[] => {
        const z = { ...scratch, shape: [n, width] }
        return [
          product(straight(h), straight(place), z, [n, width, columnsOf(h)]),
          {
            kernel: vocab.vocabStats,
            args: [z, ids, temperature, logProbs, stats],
            params: [k, width, first],
            groups: n,
          },
        ]
      }),
      threads(vocab.vocabCombine, n, [stats, ids, logProbs, lse, entropy, tail], [n, k]),
    ]
  },
  vocabPickBack: (node) => {
    const [dh] = node.outputs
    return vocabBack(node, ({ place, width }, n, z, at) =>
      product(straight(z), transposed(place), dh, [n, columnsOf(dh), width], { adds: at > 0 }),
    )
  },
  vocabPickBackTable: (node) => {
    const [h, grad] = [node.inputs[4], node.inputs[11]]
    const c = columnsOf(h)
    return vocabBack(node, ({ first, width }, n, z) =>
      product(transposed(z), transposed(h), moved(grad, first * c), [width, c, n], { adds: true }),
    )
  },

  sample({ inputs, outputs, scratch }) {
    const [logits, temperature, topK, topP, minP, uniforms, editRow, editId, editScale, editBias] = inputs
    const [n, vocabulary] = logits.shape
    const z = { ...scratch, shape: logits.shape }
    const controls = [temperature, topK, topP, minP, uniforms]
    return [
      threads(elementwise.copy, count(logits), [logits, z], [count(logits)]),
      threads(sampling.editLogits, n, [z, editRow, editId, editScale, editBias], [n, vocabulary, count(editRow)]),
      { kernel: sampling.sample, args: [z, ...controls, ...outputs], params: [vocabulary], groups: n },
    ]
  },
  topLogProbs: ({ inputs, outputs }) => {
    const [n, vocabulary] = inputs[0].shape
    const params = [vocabulary, outputs[0].shape[1]]
    return [{ kernel: sampling.topLogProbs, args: [...inputs, ...outputs], params, groups: n }]
  },
  drawTokens: ({ inputs, outputs }) => {
    const [n, vocabulary] = inputs[0].shape
    return [threads(sampling.drawTokens, n, [...inputs, ...outputs], [n, vocabulary, outputs[0].shape[1]])]
  },
}

/** Op name -> bytes of scratch. */
export const scratch: Readonly<Record<string, (node: Types) => number>> = {
  sum: ({ inputs: [x], attrs }) => (attrs.axis === 'all' ? 4 * blocksOf(x) : 0),
  sumSquares: ({ inputs: [x] }) => 4 * blocksOf(x),
  attentionBack: ({ inputs }) => byteLength(inputs[5]),
  vocabPick: ({ inputs: [, table, ids] }) => logitsBytes(ids.shape[0], rowsOf(table)) + 20 * ids.shape[0],
  vocabPickBack: ({ inputs }) => logitsBytes(inputs[6].shape[0], rowsOf(inputs[5])),
  vocabPickBackTable: ({ inputs }) => logitsBytes(inputs[6].shape[0], rowsOf(inputs[5])),
  sample: ({ inputs: [logits] }) => byteLength(logits),
}
