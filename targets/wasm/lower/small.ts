// Elementwise ops, sums, rows, views, the optimizer: kernels-as/{elementwise,rows,optimizer}.ts.
import type { TensorType } from '../../../sdk/dtype.ts'
import { columnsOf, count, direct, type Lower, type Lowered, type Lowering, type LowerNode } from './types.ts'

const nothing: Lower<unknown> = direct(() => [])

/** A step of 0 repeats a scalar argument. */
const binary = (kernel: string): Lower<unknown> => {
  const step = (t: TensorType) => (count(t) === 1 ? 0 : 1)
  return direct(({ inputs: [a, b], outputs: [y] }, { inputs, outputs }) => [
    [kernel, a, step(inputs[0]), b, step(inputs[1]), y, count(outputs[0])],
  ])
}

/** y[i] of x[i], and numbers from the attributes. */
const unary = <A>(kernel: string, numbers: (attrs: A) => readonly number[] = () => []): Lower<A> =>
  direct(({ inputs: [x], outputs: [y] }, { outputs, attrs }) => [[kernel, x, y, count(outputs[0]), ...numbers(attrs)]])

/** Each block leaves an f64. */
function sumAll({ inputs: [x], sizes }: LowerNode<unknown>, squares: 0 | 1): Lowered {
  const [n, blocks] = [count(x), Math.ceil(count(x) / sizes.SUM_BLOCK.value)]
  return {
    scratchBytes: 8 * blocks,
    calls: ({ inputs: [a], outputs: [y], scratch }) => [
      ['sumBlocks', a, n, squares, scratch],
      ['sumPartials', scratch, blocks, y],
    ],
  }
}

export const small = {
  view: nothing,
  stopGradient: nothing,
  gatherRows: direct(({ inputs: [x, rows], outputs: [y] }, { outputs: [{ shape }] }) => [
    ['gatherRows', x, rows, y, shape[0], shape[1]],
  ]),
  scatterRows: direct(({ inputs: [dy, rows], outputs: [y] }, { inputs: [{ shape }], outputs }) => [
    ['fill', y, count(outputs[0]), 0],
    ['embedBack', dy, rows, y, shape[0], shape[1]],
  ]),
  segmentSum: direct(({ inputs: [x, segments], outputs: [y] }, { inputs, outputs }) => [
    ['segmentSum', x, segments, y, count(inputs[0]), count(outputs[0])],
  ]),
  add: binary('add'),
  sub: binary('sub'),
  mul: binary('mul'),
  div: binary('div'),
  min: binary('min'),
  max: binary('max'),
  logAddExp: binary('logAddExp'),
  scale: unary('scale', ({ factor }) => [factor]),
  exp: unary('exp'),
  log: unary('log'),
  log1p: unary('log1p'),
  clamp: unary('clamp', ({ lo, hi }) => [lo, hi]),
  where: direct(({ inputs: [condition, a, b], outputs: [y] }, { outputs }) => [
    ['where', condition, a, b, y, count(outputs[0])],
  ]),
  sum(node) {
    if (node.attrs.axis === 'all') return sumAll(node, 0)
    const [rows, columns] = [count(node.outputs[0]), columnsOf(node.inputs[0])]
    return { scratchBytes: 0, calls: ({ inputs: [x], outputs: [y] }) => [['sumRows', x, y, rows, columns]] }
  },
  sumSquares: (node) => sumAll(node, 1),
  expand: direct(({ inputs: [a], outputs: [y] }, { inputs, outputs }) => [
    ['expand', a, y, count(inputs[0]), count(outputs[0]) / count(inputs[0])],
  ]),
  fill: direct(({ outputs: [y] }, { outputs, attrs: { value } }) => [['fill', y, count(outputs[0]), value]]),
  accumulate: direct(({ inputs: [state, x] }, { inputs }) => [['add', state, 1, x, 1, state, count(inputs[0])]]),
  adamw: direct(({ inputs }, { inputs: [p], attrs: { decay } }) => [['adamw', ...inputs, count(p), decay]]),
} satisfies Partial<Lowering>
