// Products with weights of any type. f32, f16 and bf16 are held as f32 values; q8, q4a and q4 as codes and scales, as MatMulNBits takes
// them: byte j of a block of 4 bits has elements 2j and 2j + 1. q4a is scale·(code - 8) + offset with offset = minimum + 8·scale: one more
// product of the sums of x's blocks with the offsets.
import { BLOCK } from '../../../sdk/blocks.ts'
import { isQuantized } from '../../../sdk/dtype.ts'
import type { ElementType, OnnxGraph, Part } from '../model.ts'
import type { Operand } from './types.ts'

/** Rows of a weight [O, I]: all of them, or a part of a vocabulary's. */
export interface Rows {
  readonly from: number
  readonly to: number
}
const all = ({ shape }: Operand): Rows => ({ from: 0, to: shape[0] })

/** A weight's part as the graph takes it; `packed`: onnxruntime may pack it for itself. */
function part(
  g: OnnxGraph,
  { bound }: Operand,
  kind: Part,
  type: ElementType,
  { from, to }: Rows,
  columns: readonly number[],
  packed = false,
): string {
  const name = `${bound}/${kind}/${type}/${columns}/${from}-${to}`
  const value = { type, shape: [to - from, ...columns], source: { bound, part: kind, row: from } }
  return packed ? g.initializer(`${name}/packed`, value) : g.input(name, value)
}

const bitsOf = ({ dtype }: Operand): 8 | 4 => (dtype === 'q8' ? 8 : 4)

/** Rows up to which a q8 weight is multiplied as two of 4 bits: MatMulNBits unpacks the whole matrix of 8 bits where x is f32. */
const fewRows = 32

/** x [N, I] · wᵀ (+ bias) -> [N, O]. `rounded`: x in int8. */
export function product(
  g: OnnxGraph,
  x: Pick<Operand, 'value' | 'shape'>,
  w: Operand,
  { rows = all(w), bias, rounded = false }: { rows?: Rows; bias?: string; rounded?: boolean } = {},
): string {
  if (!isQuantized(w.dtype)) {
    const values = rowsOf(g, w, rows)
    return g.node('Gemm', [x.value, values, ...(bias ? [bias] : [])], { transB: 1 })
  }
  const [columns, blocks] = [w.shape[1], w.shape[1] / BLOCK]
  const scales = part(g, w, 'scales', 'f32', rows, [blocks], true)
  const byCodes = (kind: Part, bits: number): string => {
    const codes = part(g, w, kind, 'u8', rows, [blocks, (BLOCK * bits) / 8], true)
    const attributes = { K: columns, N: rows.to - rows.from, bits, block_size: BLOCK, accuracy_level: rounded ? 4 : 0 }
    return g.node('MatMulNBits', [x.value, codes, scales], attributes)
  }
  const withBias = (y: string) => (bias ? g.node('Add', [y, bias]) : y)
  /** y + alpha times the sums of x's blocks by one number a block of w. */
  const plus = (y: string, numbers: string, alpha: number): string => {
    const sums = g.once(`sums of ${x.value}`, () => g.sum(g.reshape(x.value, [-1, blocks, BLOCK]), 2))
    return g.node('Gemm', [sums, numbers, y], { transB: 1, alpha: { float: alpha } })
  }
  if (w.dtype === 'q8' && !rounded && x.shape[0] <= fewRows) {
    // code - 128 = 16·(high - 8) + (low - 8) + 8
    const high = g.node('Mul', [byCodes('high', 4), g.float(16)])
    return plus(withBias(g.node('Add', [high, byCodes('low', 4)])), scales, 8)
  }
  const y = withBias(byCodes('codes', bitsOf(w)))
  return w.dtype === 'q4a' ? plus(y, offsets(g, w, rows), 1) : y
}

const offsets = (g: OnnxGraph, w: Operand, rows: Rows): string =>
  part(g, w, 'offsets', 'f32', rows, [w.shape[1] / BLOCK])

/** dy [N, O] · w -> [N, I]. */
export function productBack(g: OnnxGraph, dy: string, w: Operand, rows: Rows = all(w)): string {
  const dx = g.node('MatMul', [dy, withoutOffsets(g, w, rows)])
  if (w.dtype !== 'q4a') return dx
  const columns = w.shape[1]
  const own = g.reshape(g.node('MatMul', [dy, offsets(g, w, rows)]), [-1, columns / BLOCK, 1])
  return g.reshape(g.node('Add', [g.reshape(dx, [-1, columns / BLOCK, BLOCK]), own]), [-1, columns])
}

/** A weight's rows [O, I] in f32. */
export function dequantized(g: OnnxGraph, w: Operand, rows: Rows = all(w)): string {
  const values = withoutOffsets(g, w, rows)
  if (w.dtype !== 'q4a') return values
  const blocks = w.shape[1] / BLOCK
  const own = g.reshape(offsets(g, w, rows), [-1, blocks, 1])
  return g.reshape(g.node('Add', [g.reshape(values, [-1, blocks, BLOCK]), own]), [-1, w.shape[1]])
}

function withoutOffsets(g: OnnxGraph, w: Operand, rows: Rows): string {
  if (!isQuantized(w.dtype)) return rowsOf(g, w, rows)
  const columns = w.shape[1]
  const type: ElementType = bitsOf(w) === 8 ? 'u8' : 'u4'
  return g.node(
    'DequantizeLinear',
    [
      part(g, w, 'codes', type, rows, [columns]),
      part(g, w, 'scales', 'f32', rows, [columns / BLOCK]),
      part(g, w, 'halves', type, { from: 0, to: rows.to - rows.from }, [columns / BLOCK]),
    ],
    { axis: 1, block_size: BLOCK },
  )
}

function rowsOf(g: OnnxGraph, w: Operand, rows: Rows): string {
  if (rows.to - rows.from === w.shape[0]) return w.value
  return w.bound === '' ? g.slice(w.value, 0, rows.from, rows.to) : part(g, w, 'values', 'f32', rows, [w.shape[1]])
}

/** Rows of a table [V, C] by ids -> [N, C] in f32. */
export function gathered(g: OnnxGraph, ids: string, w: Operand): string {
  if (!isQuantized(w.dtype)) return g.node('Gather', [w.value, ids])
  const [columns, bits] = [w.shape[1], bitsOf(w)]
  const blocks = columns / BLOCK
  const rowsBy = (kind: Part, type: ElementType, widths: number[]) =>
    g.node('Gather', [part(g, w, kind, type, all(w), widths), ids])
  // [N, blocks, bytes], as products take them
  const bytes = rowsBy('codes', 'u8', [blocks, (BLOCK * bits) / 8])
  const codes =
    bits === 8
      ? bytes
      : g.node(
          'Concat',
          [
            g.node('BitwiseAnd', [g.reshape(bytes, [-1, columns / 2, 1]), g.byte(15)]),
            g.node('BitShift', [g.reshape(bytes, [-1, columns / 2, 1]), g.byte(4)], { direction: 'RIGHT' }),
          ],
          { axis: 2 },
        )
  const centred = g.node('Sub', [g.cast(codes, 'f32'), g.float(bits === 8 ? 128 : 8)])
  const scaled = g.node('Mul', [
    g.reshape(centred, [-1, blocks, BLOCK]),
    g.reshape(rowsBy('scales', 'f32', [blocks]), [-1, blocks, 1]),
  ])
  const values =
    w.dtype === 'q4a' ? g.node('Add', [scaled, g.reshape(rowsBy('offsets', 'f32', [blocks]), [-1, blocks, 1])]) : scaled
  return g.reshape(values, [-1, columns])
}
