import * as kernels from '../../../kernels-wgsl/matmul.ts'
import { storedTypes } from '../../../sdk/dtype.ts'
import {
  type Call,
  columnsOf,
  count,
  direct,
  each,
  type Lowering,
  moved,
  type Place,
  partsOf,
  rowsOf,
  threads,
} from './types.ts'

/** An operand of a product: elements from one row to the next, and from one step of the inner axis to the next. */
interface Factor {
  readonly place: Place
  readonly row: number
  readonly inner: number
}

export const straight = (place: Place): Factor => ({ place, row: columnsOf(place), inner: 1 })
export const transposed = (place: Place): Factor => ({ place, row: 1, inner: columnsOf(place) })

/** y[r, c] = Σ_k a[r, k]·b[c, k], by strides. */
export function product(
  a: Factor,
  b: Factor,
  y: Place,
  [n, columns, inner]: readonly [number, number, number],
  options: { start?: Place; bias?: Place; factor?: Place; adds?: boolean; yRow?: number } = {},
): Call {
  const { start, bias, factor, adds = false, yRow = columns } = options
  const shape = { start: start !== undefined, bias: bias !== undefined, factor: factor !== undefined, adds }
  const args = [a.place, b.place, ...[bias, factor, start].filter((x) => x !== undefined), y]
  const params = [n, columns, inner, a.row, a.inner, b.row, b.inner, yRow]
  if (kernels.fitsMatvec(n, inner) && [a, b].every((x) => along(x, inner, 8) === 'inner'))
    return { kernel: kernels.matvec(shape, n), args, params, groups: kernels.matvecGroups(columns) }
  const fours = n > 8 ? 2 : 1
  const [ofA, ofB] = inner % 4 === 0 ? [along(a, inner, 4), along(b, inner, 4)] : (['none', 'none'] as const)
  const kernel = kernels.matmul(shape, ofA, ofB, fours)
  return threads(kernel, kernels.matmulThreads(n, columns, fours), args, params)
}

/** Where `width` elements can be read at a time: strides and the operand's place are multiples of it, its place also of a block. */
function along({ place, row, inner }: Factor, steps: number, width: 4 | 8): kernels.Along {
  if (place.offset % Math.max(width, storedTypes[place.dtype].elements) !== 0) return 'none'
  if (inner === 1 && row % width === 0 && steps % width === 0) return 'inner'
  return row === 1 && inner % width === 0 ? 'outer' : 'none'
}

export const products = {
  linear: direct(({ inputs: [x, w, bias], outputs: [y] }) =>
    partsOf(w).map(({ place, first }) =>
      product(straight(x), straight(place), moved(y, first), [rowsOf(x), rowsOf(place), columnsOf(x)], {
        bias: bias && moved(bias, first),
        yRow: columnsOf(y),
      }),
    ),
  ),
  linearBackInput: direct(({ inputs: [dy, w], outputs: [dx] }) => [
    product(straight(dy), transposed(w), dx, [rowsOf(dy), columnsOf(w), rowsOf(w)]),
  ]),
  linearBackWeight: direct(({ inputs: [dy, x, grad] }) => [
    product(transposed(dy), transposed(x), grad, [columnsOf(dy), columnsOf(x), rowsOf(x)], { adds: true }),
  ]),
  lora: direct(({ inputs: [y, x, a, b, scale, of], outputs: [out, h] }) => {
    const rank = columnsOf(b)
    if (of) {
      const down = {
        kernel: kernels.loraDown,
        args: [x, a, scale, of, h],
        params: [columnsOf(x), rank],
        groups: count(h),
      }
      return [down, each(kernels.loraUp, count(out), [y, h, b, of, out], [columnsOf(out), rank])]
    }
    return [
      product(straight(x), straight(a), h, [rowsOf(x), rank, columnsOf(x)], { factor: scale }),
      product(straight(h), straight(b), out, [rowsOf(x), rowsOf(b), rank], { start: y }),
    ]
  }),
  loraBack: direct(({ inputs: [dy, a, b, scale], outputs: [dx, t] }) => [
    product(straight(dy), transposed(b), t, [rowsOf(dy), columnsOf(b), rowsOf(b)], { factor: scale }),
    product(straight(t), transposed(a), dx, [rowsOf(dy), columnsOf(a), rowsOf(a)]),
  ]),
  doraNorm: direct(({ inputs: [w, a, b, scale], outputs: [y] }) => [
    { kernel: kernels.doraNorm, args: [w, a, b, scale, y], params: [columnsOf(w), rowsOf(a)], groups: rowsOf(w) },
  ]),
  scaleColumns: direct(({ inputs, outputs: [out] }) => [
    each(kernels.scaleColumns(inputs.length > 2), count(out), [...inputs, out], [columnsOf(out)]),
  ]),
} satisfies Partial<Lowering>
