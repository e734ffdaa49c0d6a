import type { Graph, Tensor } from '../graph/graph.ts'
import type { OpSpec } from '../graph/spec.ts'
import { array } from './array.ts'
import { ints, normal } from './cases.ts'
import { signature } from './signature.ts'
import { view } from './view.ts'

/** y[r] = x[rows[r]]; row -1 gives zeros. */
export const gatherRowsOp: OpSpec = {
  name: 'gatherRows',
  infer: signature('gatherRows', 'x[N,C], rows[R]:i32 -> [R,C]'),
  vjp(g, { inputs: [x, rows] }, [dy]) {
    return [scatterRows(g, dy!, rows, x.shape[0]), null]
  },
  reference([x, rows]) {
    const c = x.shape[1]
    const y = array(rows.shape[0], c)
    rows.data.forEach((row, r) => {
      if (row >= 0) y.data.set(x.data.subarray(row * c, (row + 1) * c), r * c)
    })
    return [y]
  },
  cases: [
    { name: 'padding and repeats', inputs: [normal([5, 33]), ints([4, -1, 0, 4, 2, -1, 4])], attrs: {} },
    { name: 'one column', inputs: [normal([3, 1]), ints([2, 2, -1])], attrs: {} },
  ],
}

/** x [N, C], rows i32[R] (-1: zeros) -> [R, C]. */
export const gatherRows = (g: Graph, x: Tensor, rows: Tensor): Tensor => g.apply(gatherRowsOp, [x, rows], {})[0]

/** y[rows[r]] += dy[r], zeros elsewhere; row -1 is left out. */
export const scatterRowsOp: OpSpec<{ count: number }> = {
  name: 'scatterRows',
  infer: signature('scatterRows', 'dy[R,C], rows[R]:i32 -> [count,C]'),
  vjp(g, { inputs: [, rows] }, [dy]) {
    return [gatherRows(g, dy!, rows), null]
  },
  reference([dy, rows], { count }) {
    const c = dy.shape[1]
    const y = array(count, c)
    rows.data.forEach((row, r) => {
      if (row < 0) return
      for (let k = 0; k < c; k++) y.data[row * c + k] += dy.data[r * c + k]
    })
    return [y]
  },
  cases: [
    { name: 'padding and repeats', inputs: [normal([7, 33]), ints([4, -1, 0, 4, 2, -1, 4])], attrs: { count: 6 } },
    { name: 'one row', inputs: [normal([1, 5]), ints([0])], attrs: { count: 1 } },
  ],
}

/** dy [R, C], rows i32[R] (-1: left out, repeats add) -> [count, C]. */
export const scatterRows = (g: Graph, dy: Tensor, rows: Tensor, count: number): Tensor =>
  g.apply(scatterRowsOp, [dy, rows], { count })[0]

/** y[s] = sum of x[r] where segments[r] = s; segment -1 is left out. */
export const segmentSumOp: OpSpec<{ count: number }> = {
  name: 'segmentSum',
  infer: signature('segmentSum', 'x[R], segments[R]:i32 -> [count]'),
  vjp(g, { inputs: [x, segments] }, [dy]) {
    return [view(g, gatherRows(g, view(g, dy!, [dy!.shape[0], 1]), segments), x.shape), null]
  },
  reference([x, segments], { count }) {
    const y = array(count)
    segments.data.forEach((s, r) => {
      if (s >= 0) y.data[s] += x.data[r]
    })
    return [y]
  },
  cases: [
    { name: 'padding, an empty segment', inputs: [normal([7]), ints([0, 0, 2, -1, 2, 2, -1])], attrs: { count: 4 } },
    { name: 'one', inputs: [normal([1]), ints([0])], attrs: { count: 1 } },
  ],
}

/** x [R], segments i32[R] (-1: left out) -> sums [count]. */
export const segmentSum = (g: Graph, x: Tensor, segments: Tensor, count: number): Tensor =>
  g.apply(segmentSumOp, [x, segments], { count })[0]
