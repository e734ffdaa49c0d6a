import * as kernels from '../../../kernels-wgsl/reduce.ts'
import type { TensorType } from '../../../sdk/dtype.ts'
import { columnsOf, count, direct, each, type Lowered, type Lowering, rowsOf } from './types.ts'

/** Sums of blocks, then their sum. */
function sumAll(x: TensorType, squares: 0 | 1): Lowered {
  const [n, blocks] = [count(x), Math.ceil(count(x) / kernels.sumBlock)]
  return {
    scratchBytes: blocks === 1 ? 0 : 4 * blocks,
    calls({ inputs: [from], outputs: [y], scratch }) {
      if (blocks === 1) return [{ kernel: kernels.sumBlocks, args: [from, y], params: [n, squares], groups: 1 }]
      return [
        { kernel: kernels.sumBlocks, args: [from, scratch], params: [n, squares], groups: blocks },
        { kernel: kernels.sumRows, args: [scratch, y], params: [blocks], groups: 1 },
      ]
    },
  }
}

const sumRows = direct<unknown>(({ inputs: [x], outputs: [y] }) => [
  { kernel: kernels.sumRows, args: [x, y], params: [columnsOf(x)], groups: count(y) },
])

export const sums = {
  sum: (node) => (node.attrs.axis === 'all' ? sumAll(node.inputs[0], 0) : sumRows(node)),
  sumSquares: ({ inputs: [x] }) => sumAll(x, 1),
  segmentSum: direct(({ inputs: [x, segments], outputs: [y] }) => [
    each(kernels.segmentSum, count(y), [x, segments, y], [count(x)]),
  ]),
  linearBackBias: direct(({ inputs: [dy, grad] }) => [
    each(kernels.columnSums(false), columnsOf(dy), [dy, grad], [rowsOf(dy), 1]),
  ]),
  scaleColumnsBack: direct(({ inputs: [dy, y], outputs: [dGain] }) => [
    each(kernels.columnSums(true), columnsOf(y), [dy, y, dGain], [rowsOf(y), 0]),
  ]),
} satisfies Partial<Lowering>
