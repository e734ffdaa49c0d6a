import { describe } from '../dtype.ts'
import { ShapeError } from '../errors.ts'
import type { Graph, Tensor } from '../graph/graph.ts'
import type { OpSpec } from '../graph/spec.ts'
import { copyOf } from './array.ts'
import { frozen, ints, normal, spread } from './cases.ts'
import { signature } from './signature.ts'

type RopeAttrs = { heads: number; inverse: number }

/**
 * Half-split rotation as in transformers: dimension i pairs with i + D/2. A row of the table holds D/2 cosines, then D/2 sines.
 * Rows at position -1 (padding) are passed through. `inverse` negates the sine.
 */
export const ropeOp: OpSpec<RopeAttrs> = {
  name: 'rope',
  inplace: [[0, 0]],
  infer: signature(
    'rope',
    'x[N,HD], positions[N]:i32, table[P,D] -> [N,HD]',
    ({ HD, D }, [x, , table], { heads }: RopeAttrs) => {
      if (HD !== heads * D || D % 2 !== 0)
        throw new ShapeError(
          `rope: x is ${describe(x)}, expected [N, heads*D] with heads=${heads} and an even D as in table ${describe(table)}`,
        )
    },
  ),
  vjp(g, { inputs: [, positions, table], attrs }, [dy]) {
    return [g.apply(ropeOp, [dy!, positions, table], { ...attrs, inverse: 1 - attrs.inverse })[0], null, null]
  },
  reference([x, positions, table], { heads, inverse }) {
    const d = table.shape[1]
    const half = d / 2
    const y = copyOf(x)
    positions.data.forEach((position, n) => {
      if (position < 0) return
      for (let h = 0; h < heads; h++)
        for (let i = 0; i < half; i++) {
          const cos = table.data[position * d + i]
          const sin = table.data[position * d + half + i] * (inverse ? -1 : 1)
          const at = (n * heads + h) * d + i
          y.data[at] = x.data[at] * cos - x.data[at + half] * sin
          y.data[at + half] = x.data[at + half] * cos + x.data[at] * sin
        }
    })
    return [y]
  },
  cases: [
    ...[0, 1].map((inverse) => ({
      name: `inverse ${inverse}`,
      inputs: [normal([7, 48]), ints(spread(7, 11)), frozen('f32', [11, 16])],
      attrs: { heads: 3, inverse },
    })),
    {
      name: 'one row, small head',
      inputs: [normal([1, 6]), ints([2]), frozen('f32', [3, 6])],
      attrs: { heads: 1, inverse: 0 },
    },
    {
      name: 'padding rows',
      inputs: [normal([5, 20]), ints([3, -1, 0, -1, 1]), frozen('f32', [4, 10])],
      attrs: { heads: 2, inverse: 0 },
    },
  ],
}

/** Rotary embedding: x [N, heads*D], positions i32[N], table [P, D] (D/2 cosines, D/2 sines) -> [N, heads*D]. */
export const rope = (g: Graph, x: Tensor, positions: Tensor, table: Tensor, attrs: { heads: number }): Tensor =>
  g.apply(ropeOp, [x, positions, table], { heads: attrs.heads, inverse: 0 })[0]
