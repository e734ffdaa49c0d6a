import type { Graph, Tensor } from '../graph/graph.ts'
import type { OpSpec } from '../graph/spec.ts'
import { array } from './array.ts'
import { f32, parseShape, shapeText, signature } from './signature.ts'

const none = signature('fill')

export const fillOp: OpSpec<{ shape: string; value: number }> = {
  name: 'fill',
  infer(inputs, { shape }) {
    none(inputs)
    return [f32(...parseShape('fill', shape))]
  },
  reference(_, { shape, value }) {
    const y = array(...parseShape('fill', shape))
    y.data.fill(value)
    return [y]
  },
  cases: [
    { name: 'matrix', inputs: [], attrs: { shape: '7x5', value: -1.5 } },
    { name: 'one', inputs: [], attrs: { shape: '1', value: 1e30 } },
  ],
}

export const fill = (g: Graph, shape: readonly number[], value: number): Tensor =>
  g.apply(fillOp, [], { shape: shapeText(shape), value })[0]

export const zerosOp: OpSpec<{ shape: string }> = {
  name: 'zeros',
  infer(inputs, { shape }) {
    none(inputs)
    return [f32(...parseShape('zeros', shape))]
  },
  reference(_, { shape }) {
    return [array(...parseShape('zeros', shape))]
  },
  cases: [{ name: 'matrix', inputs: [], attrs: { shape: '7x5' } }],
}

export const zeros = (g: Graph, shape: readonly number[]): Tensor =>
  g.apply(zerosOp, [], { shape: shapeText(shape) })[0]
