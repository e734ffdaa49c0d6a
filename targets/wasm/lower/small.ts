// Elementwise ops, sums, rows, views, the optimizer: kernels-as/{elementwise,rows,optimizer}.ts.
import { elementCount, type TensorType } from '../../../sdk/dtype.ts'
import type { Call, Lowering, LowerNode, NodeTypes, Scratch } from './types.ts'

const count = ({ shape }: TensorType): number => elementCount(shape)
const number = (node: NodeTypes, name: string): number => node.attrs[name] as number

/** A step of 0 repeats a scalar argument. */
const binary =
  (kernel: string) =>
  ({ inputs: [a, b], outputs: [y] }: LowerNode): Call[] => [
    [kernel, a.ptr, count(a) === 1 ? 0 : 1, b.ptr, count(b) === 1 ? 0 : 1, y.ptr, count(y)],
  ]

const unary =
  (kernel: string, ...attrs: readonly string[]) =>
  (node: LowerNode): Call[] => [
    [
      kernel,
      node.inputs[0].ptr,
      node.outputs[0].ptr,
      count(node.outputs[0]),
      ...attrs.map((name) => number(node, name)),
    ],
  ]

/** Elements of one block of a sum. */
const block = 4096
const blocksOf = (a: TensorType): number => Math.ceil(count(a) / block)

const sumAll = ({ inputs: [a], outputs: [y], scratch }: LowerNode, squares: 0 | 1): Call[] => [
  ['sumBlocks', a.ptr, count(a), block, squares, scratch],
  ['sumPartials', scratch, blocksOf(a), y.ptr],
]

export const lowering: Lowering = {
  view: () => [],
  stopGradient: () => [],
  gatherRows({ inputs: [x, rows], outputs: [y] }) {
    return [['gatherRows', x.ptr, rows.ptr, y.ptr, y.shape[0], y.shape[1]]]
  },
  scatterRows({ inputs: [dy, rows], outputs: [y] }) {
    return [
      ['fill', y.ptr, count(y), 0],
      ['embedBack', dy.ptr, rows.ptr, y.ptr, dy.shape[0], dy.shape[1]],
    ]
  },
  segmentSum({ inputs: [x, segments], outputs: [y] }) {
    return [['segmentSum', x.ptr, segments.ptr, y.ptr, count(x), count(y)]]
  },
  add: binary('add'),
  sub: binary('sub'),
  mul: binary('mul'),
  div: binary('div'),
  min: binary('min'),
  max: binary('max'),
  logAddExp: binary('logAddExp'),
  scale: unary('scale', 'factor'),
  exp: unary('exp'),
  log: unary('log'),
  log1p: unary('log1p'),
  clamp: unary('clamp', 'lo', 'hi'),
  where({ inputs: [condition, a, b], outputs: [y] }) {
    return [['where', condition.ptr, a.ptr, b.ptr, y.ptr, count(y)]]
  },
  sum(node) {
    const [a] = node.inputs
    const [y] = node.outputs
    if (node.attrs.axis === 'all') return sumAll(node, 0)
    return [['sumRows', a.ptr, y.ptr, count(y), a.shape.at(-1)!]]
  },
  expand({ inputs: [a], outputs: [y] }) {
    return [['expand', a.ptr, y.ptr, count(a), count(y) / count(a)]]
  },
  zeros: ({ outputs: [y] }) => [['fill', y.ptr, count(y), 0]],
  fill: (node) => [['fill', node.outputs[0].ptr, count(node.outputs[0]), number(node, 'value')]],
  accumulate({ inputs: [state, x] }) {
    return [['add', state.ptr, 1, x.ptr, 1, state.ptr, count(state)]]
  },
  sumSquares: (node) => sumAll(node, 1),
  adamw(node) {
    const pointers = node.inputs.map(({ ptr }) => ptr)
    return [['adamw', ...pointers, count(node.inputs[0]), number(node, 'decay')]]
  },
}

export const scratch: Scratch = {
  sum: ({ inputs: [a], attrs }) => (attrs.axis === 'all' ? 8 * blocksOf(a) : 0),
  sumSquares: ({ inputs: [x] }) => 8 * blocksOf(x),
}
