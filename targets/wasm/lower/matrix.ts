// Matrix products, low-rank adapters, and the vocabulary in slices: kernels-as/linear.ts, dora.ts and vocab.ts.
import { elementCount, type TensorType } from '../../../sdk/dtype.ts'
import { type Argument, type Call, dtypeCode, type Lowering, type Scratch } from './types.ts'

const align = (bytes: number): number => Math.ceil(bytes / 64) * 64

// One thread's scratch in kernels-as/gemm.ts: base row, tile, unpacked rows, packed panels; then the transposed block.
const gemmScratch = 512 + 4 * 8 * 512 + 4 * 64 * 512
const transposingScratch = gemmScratch + 4 * 128 * 512
/** kernels-as/linear.ts takes gemv up to this many rows. */
const fewRows = 2

const rowsOf = ({ shape }: TensorType): number => elementCount(shape) / shape[shape.length - 1]
const columnsOf = ({ shape }: TensorType): number => shape[shape.length - 1]

/** Bytes for one thread of x[rows, inputs]·wᵀ. */
const linearScratch = (rows: number, inputs: number): number => (rows <= fewRows ? align(4 * inputs) : gemmScratch)

interface LinearOptions {
  bias?: Argument
  /** Address of [N, O] that the product is added to. */
  start?: number
  /** Address of an f32 factor. */
  scale?: number
}

/** y[n, o] = (start or bias) + scale·x[n, i]·wᵀ */
function linear(x: number, w: Weight, y: number, n: number, scratch: number, options: LinearOptions = {}): Call {
  const { bias, start = 0, scale = 0 } = options
  const biased = [bias?.ptr ?? 0, bias ? dtypeCode[bias.dtype] : 0]
  const { ptr, dtype, rows, columns } = w
  return ['linear', x, ptr, dtype, ...biased, start, scale, y, n, columns, rows, scratch, linearScratch(n, columns)]
}

/** dx[n, i] = start + scale·dy[n, o]·w */
function backInput(dy: number, w: Weight, dx: number, n: number, scratch: number, start = 0, scale = 0): Call {
  const { ptr, dtype, rows, columns } = w
  return ['linearBackInput', dy, ptr, dtype, start, scale, dx, n, columns, rows, scratch, gemmScratch]
}

interface Weight {
  ptr: number
  dtype: number
  rows: number
  columns: number
}

const weight = (w: Argument): Weight => ({
  ptr: w.ptr,
  dtype: dtypeCode[w.dtype],
  rows: rowsOf(w),
  columns: columnsOf(w),
})

/** Bytes of one row of `columns` elements; kernels-as/pack.ts has the same. */
function rowBytes(dtype: number, columns: number): number {
  const block = [128, 64, 64, 34, 18][dtype]
  return (columns / 32) * block
}

/**
 * Ids of the vocabulary taken at once: 4 MiB of logits, but whole blocks of the GEMM's depth, so that sums over the
 * vocabulary run in the same order for any number of rows.
 */
const sliceWidth = (rows: number): number => Math.max(1, Math.floor(2 ** 20 / rows / 512)) * 512

interface Slice {
  first: number
  table: Weight
}

function slices(table: Weight, rows: number): Slice[] {
  const width = sliceWidth(rows)
  return Array.from({ length: Math.ceil(table.rows / width) }, (_, s) => {
    const first = s * width
    const ptr = table.ptr + first * rowBytes(table.dtype, table.columns)
    return { first, table: { ...table, ptr, rows: Math.min(width, table.rows - first) } }
  })
}

/** Bytes of one slice's logits. */
const logitsBytes = (rows: number, vocabulary: number): number =>
  align(4 * rows * Math.min(sliceWidth(rows), vocabulary))

/** The calls that both gradients share: each slice's logits, then their gradient in place, then what `use` makes of it. */
function vocabBack(inputs: readonly Argument[], scratch: number, threads: number, use: Use): Call[] {
  const [dLogProbs, dLse, dEntropy, dTail, h, table, ids, temperature, lse, entropy, tail] = inputs
  const [rows, k] = ids.shape
  const kept = scratch + logitsBytes(rows, rowsOf(table))
  const own = kept + align(4 * k * threads)
  const gradients = [dLogProbs, dLse, dEntropy, dTail, lse, entropy, tail, temperature].map(({ ptr }) => ptr)
  return slices(weight(table), rows).flatMap((slice) => [
    linear(h.ptr, slice.table, scratch, rows, own),
    ['vocabGradient', scratch, ids.ptr, ...gradients, rows, k, slice.table.rows, slice.first, kept],
    use(slice, rows, own),
  ])
}

type Use = (slice: Slice, rows: number, scratch: number) => Call

function vocabBackScratch(inputs: readonly TensorType[], threads: number, product: number): number {
  const [rows, k] = inputs[6].shape
  const own = Math.max(linearScratch(rows, columnsOf(inputs[5])), product)
  return logitsBytes(rows, rowsOf(inputs[5])) + align(4 * k * threads) + threads * own
}

export const lowering: Lowering = {
  linear: ({ inputs: [x, w, bias], outputs: [y], scratch }) => [
    linear(x.ptr, weight(w), y.ptr, rowsOf(x), scratch, { bias }),
  ],

  linearBackInput: ({ inputs: [dy, w], outputs: [dx], scratch }) => [
    backInput(dy.ptr, weight(w), dx.ptr, rowsOf(dy), scratch),
  ],

  linearBackWeight: ({ inputs: [dy, x], outputs: [grad], scratch }) => [
    ['linearBackWeight', dy.ptr, x.ptr, grad.ptr, rowsOf(x), columnsOf(x), columnsOf(dy), scratch, transposingScratch],
  ],

  linearBackBias: ({ inputs: [dy], outputs: [grad] }) => [
    ['columnSums', dy.ptr, 0, grad.ptr, 1, rowsOf(dy), columnsOf(dy)],
  ],

  lora: ({ inputs: [y, x, a, b, scale], outputs: [out, h], scratch }) => [
    linear(x.ptr, weight(a), h.ptr, rowsOf(x), scratch, { scale: scale.ptr }),
    linear(h.ptr, weight(b), out.ptr, rowsOf(x), scratch, { start: y.ptr }),
  ],

  loraBack: ({ inputs: [dy, a, b, scale], outputs: [dx, t], scratch }) => [
    backInput(dy.ptr, weight(b), t.ptr, rowsOf(dy), scratch, 0, scale.ptr),
    backInput(t.ptr, weight(a), dx.ptr, rowsOf(dy), scratch),
  ],

  doraNorm: ({ inputs: [w, a, b, scale], outputs: [norm], scratch }) => {
    const { ptr, dtype, rows, columns } = weight(w)
    const sizes = [rows, columns, rowsOf(a), scratch, align(4 * columns)]
    return [['doraNorm', ptr, dtype, a.ptr, b.ptr, scale.ptr, norm.ptr, ...sizes]]
  },

  scaleColumns: ({ inputs: [y, gain, bias], outputs: [out] }) => {
    const biased = [bias?.ptr ?? 0, bias ? dtypeCode[bias.dtype] : 0]
    return [['scaleColumns', y.ptr, gain.ptr, ...biased, out.ptr, rowsOf(y), columnsOf(y)]]
  },

  scaleColumnsBack: ({ inputs: [dy, y], outputs: [dGain] }) => [
    ['columnSums', dy.ptr, y.ptr, dGain.ptr, 0, rowsOf(y), columnsOf(y)],
  ],

  vocabPick: ({ inputs: [h, table, ids, temperature], outputs: [logProbs, lse, entropy, tail], scratch }) => {
    const [rows, k] = ids.shape
    const stats = scratch + logitsBytes(rows, rowsOf(table))
    const own = stats + align(24 * rows)
    const sums = slices(weight(table), rows).flatMap(({ first, table }): Call[] => [
      linear(h.ptr, table, scratch, rows, own),
      ['vocabStats', scratch, ids.ptr, temperature.ptr, logProbs.ptr, stats, rows, k, table.rows, first],
    ])
    return [...sums, ['vocabCombine', ids.ptr, logProbs.ptr, stats, lse.ptr, entropy.ptr, tail.ptr, rows, k]]
  },

  vocabPickBack: ({ inputs, outputs: [dh], scratch, threads }) =>
    vocabBack(inputs, scratch, threads, ({ first, table }, rows, own) =>
      backInput(scratch, table, dh.ptr, rows, own, first > 0 ? dh.ptr : 0),
    ),

  vocabPickBackTable: ({ inputs, outputs: [grad], scratch, threads }) => {
    const h = inputs[4]
    const columns = columnsOf(h)
    return vocabBack(inputs, scratch, threads, ({ first, table }, rows, own) => {
      const part = grad.ptr + 4 * first * columns
      return ['linearBackWeight', scratch, h.ptr, part, rows, columns, table.rows, own, transposingScratch]
    })
  },
}

export const scratch: Scratch = {
  linear: ({ inputs: [x, w] }, threads) => threads * linearScratch(rowsOf(x), columnsOf(w)),
  linearBackInput: (_, threads) => threads * gemmScratch,
  linearBackWeight: (_, threads) => threads * transposingScratch,
  lora: ({ inputs: [, x, a] }, threads) =>
    threads * Math.max(linearScratch(rowsOf(x), columnsOf(a)), linearScratch(rowsOf(x), rowsOf(a))),
  loraBack: (_, threads) => threads * gemmScratch,
  doraNorm: ({ inputs: [w] }, threads) => threads * align(4 * columnsOf(w)),
  vocabPick: ({ inputs: [h, table, ids] }, threads) => {
    const rows = ids.shape[0]
    return logitsBytes(rows, rowsOf(table)) + align(24 * rows) + threads * linearScratch(rows, columnsOf(h))
  },
  vocabPickBack: ({ inputs }, threads) => vocabBackScratch(inputs, threads, gemmScratch),
  vocabPickBackTable: ({ inputs }, threads) => vocabBackScratch(inputs, threads, transposingScratch),
}
