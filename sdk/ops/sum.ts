import { describe, sameShape } from '../dtype.ts'
import { ShapeError } from '../errors.ts'
import type { Graph, Tensor } from '../graph/graph.ts'
import type { OpSpec } from '../graph/spec.ts'
import { array } from './array.ts'
import { normal } from './cases.ts'
import { f32, parseShape, shapeText, signature } from './signature.ts'

const sumArguments = signature('sum', 'a[*] ->')

/** Axis `all` -> [1]; axis `last` -> the shape without its last axis. */
export const sumOp: OpSpec<{ axis: string }> = {
  name: 'sum',
  infer(inputs, { axis }) {
    sumArguments(inputs, {})
    const { shape } = inputs[0]
    if (axis === 'all') return [f32(1)]
    if (axis !== 'last' || shape.length < 2)
      throw new ShapeError(`sum: a is ${describe(inputs[0])}, axis "${axis}": expected "all", or "last" and two axes`)
    return [f32(...shape.slice(0, -1))]
  },
  vjp(g, { inputs: [a] }, [dy]) {
    return [expand(g, dy!, a.shape)]
  },
  reference([a], { axis }) {
    const width = axis === 'all' ? a.data.length : a.shape.at(-1)!
    const y = axis === 'all' ? array(1) : array(...a.shape.slice(0, -1))
    a.data.forEach((v, i) => {
      y.data[Math.floor(i / width)] += v
    })
    return [y]
  },
  cases: [
    { name: 'all', inputs: [normal([7, 65])], attrs: { axis: 'all' } },
    { name: 'all, one', inputs: [normal([1])], attrs: { axis: 'all' } },
    { name: 'all, many', inputs: [normal([5003], 1, 3)], attrs: { axis: 'all' } },
    { name: 'last', inputs: [normal([33, 7])], attrs: { axis: 'last' } },
    { name: 'last of three', inputs: [normal([3, 2, 5])], attrs: { axis: 'last' } },
  ],
}

/** Sum of all elements [1], or over the last axis. */
export const sum = (g: Graph, a: Tensor, axis: 'all' | 'last' = 'all'): Tensor => g.apply(sumOp, [a], { axis })[0]

const expandArguments = signature('expand', 'a[*] ->')

/** The reverse of `sum`: a [1] to any shape, or a [R] to [R, n]. */
export const expandOp: OpSpec<{ shape: string }> = {
  name: 'expand',
  infer(inputs, attrs) {
    expandArguments(inputs, {})
    const shape = parseShape('expand', attrs.shape)
    const from = inputs[0].shape
    if (!sameShape(from, [1]) && !sameShape(from, shape.slice(0, -1)))
      throw new ShapeError(
        `expand: a is ${describe(inputs[0])}, expected [1] or [${shape.slice(0, -1).join(', ')}] for shape [${shape.join(', ')}]`,
      )
    return [f32(...shape)]
  },
  vjp(g, { inputs: [a] }, [dy]) {
    return [sameShape(a.shape, [1]) ? sum(g, dy!, 'all') : sum(g, dy!, 'last')]
  },
  reference([a], attrs) {
    const y = array(...parseShape('expand', attrs.shape))
    const width = y.data.length / a.data.length
    for (let i = 0; i < y.data.length; i++) y.data[i] = a.data[Math.floor(i / width)]
    return [y]
  },
  cases: [
    { name: 'one', inputs: [normal([1])], attrs: { shape: '7x5' } },
    { name: 'rows', inputs: [normal([33])], attrs: { shape: '33x7' } },
    { name: 'last of three', inputs: [normal([3, 2])], attrs: { shape: '3x2x5' } },
  ],
}

/** a [1] to any shape, or a of the shape without its last axis. */
export const expand = (g: Graph, a: Tensor, shape: readonly number[]): Tensor =>
  g.apply(expandOp, [a], { shape: shapeText(shape) })[0]
