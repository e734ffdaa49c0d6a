import { describe, elementCount } from '../dtype.ts'
import { ShapeError } from '../errors.ts'
import type { Graph, Tensor } from '../graph/graph.ts'
import type { OpSpec } from '../graph/spec.ts'
import { ints, normal } from './cases.ts'
import { parseShape, shapeText, signature } from './signature.ts'

/** The same bytes under another shape. */
export const viewOp: OpSpec<{ shape: string }> = {
  name: 'view',
  view: [[0, 0]],
  infer(inputs, attrs) {
    signature('view', 'x[*]:any ->')(inputs, attrs)
    const shape = parseShape('view', attrs.shape)
    if (elementCount(shape) !== elementCount(inputs[0].shape))
      throw new ShapeError(`view: x is ${describe(inputs[0])}, expected as many elements as [${shape.join(', ')}]`)
    return [{ dtype: inputs[0].dtype, shape }]
  },
  vjp(g, { inputs: [x] }, [dy]) {
    return [view(g, dy!, x.shape)]
  },
  reference([x], attrs) {
    return [{ shape: parseShape('view', attrs.shape), data: x.data.slice() }]
  },
  cases: [
    { name: 'split', inputs: [normal([3, 10])], attrs: { shape: '3x2x5' } },
    { name: 'integers', inputs: [ints([3, -1, 4])], attrs: { shape: '3x1' } },
  ],
}

/** x, f32 or i32, under another shape of as many elements. */
export const view = (g: Graph, x: Tensor, shape: readonly number[]): Tensor =>
  g.apply(viewOp, [x], { shape: shapeText(shape) })[0]

export const stopGradientOp: OpSpec = {
  name: 'stopGradient',
  view: [[0, 0]],
  infer: signature('stopGradient', 'x[...] -> [...]'),
  reference([x]) {
    return [{ shape: x.shape, data: x.data.slice() }]
  },
  cases: [{ name: 'vector', inputs: [normal([5])], attrs: {} }],
}

/** x, through which no gradient flows. */
export const stopGradient = (g: Graph, x: Tensor): Tensor => g.apply(stopGradientOp, [x], {})[0]
