import type { Graph, Tensor } from '../graph/graph.ts'
import type { OpSpec } from '../graph/spec.ts'
import { array } from './array.ts'
import { f32, parseShape, shapeText, signature } from './signature.ts'

export const fillOp: OpSpec<{ shape: string; value: number }> = {
  name: 'fill',
  infer: (inputs, attrs) => [...signature('fill', '->')(inputs, attrs), f32(...parseShape('fill', attrs.shape))],
  reference(_, { shape, value }) {
    const y = array(...parseShape('fill', shape))
    y.data.fill(value)
    return [y]
  },
  cases: [
    { name: 'matrix', inputs: [], attrs: { shape: '7x5', value: -1.5 } },
    { name: 'zeros', inputs: [], attrs: { shape: '7x5', value: 0 } },
    { name: 'one', inputs: [], attrs: { shape: '1', value: 1e30 } },
  ],
}

export const fill = (g: Graph, shape: readonly number[], value: number): Tensor =>
  g.apply(fillOp, [], { shape: shapeText(shape), value })[0]

export const zeros = (g: Graph, shape: readonly number[]): Tensor => fill(g, shape, 0)
