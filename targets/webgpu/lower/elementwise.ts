import * as kernels from '../../../kernels-wgsl/elementwise.ts'
import type { Kernel } from '../../../kernels-wgsl/kernel.ts'
import type { TensorType } from '../../../sdk/dtype.ts'
import { dropoutThreshold } from '../../../sdk/ops/dropout.ts'
import { count, direct, each, type Lower, type Lowering } from './types.ts'

const step = (t: TensorType): number => (count(t) === 1 ? 0 : 1)

const binary = <A>(kernel: Kernel): Lower<A> =>
  direct(({ inputs: [a, b], outputs: [y] }) => [each(kernel, count(y), [a, b, y], [step(a), step(b)])])

/** A thread for each element of the first output, over all arguments. */
const overAll = <A>(
  kernel: Kernel | ((attrs: A) => Kernel),
  params: (attrs: A) => readonly number[] = () => [],
): Lower<A> =>
  direct(({ inputs, outputs }, attrs) => {
    const own = typeof kernel === 'function' ? kernel(attrs) : kernel
    return [each(own, count(outputs[0]), [...inputs, ...outputs], params(attrs))]
  })

export const elementwise = {
  add: binary(kernels.add),
  sub: binary(kernels.sub),
  mul: binary(kernels.mul),
  div: binary(kernels.div),
  min: binary(kernels.min),
  max: binary(kernels.max),
  logAddExp: binary(kernels.logAddExp),
  scale: overAll(kernels.scale, ({ factor }) => [factor]),
  exp: overAll(kernels.exp),
  log: overAll(kernels.log),
  log1p: overAll(kernels.log1pKernel),
  clamp: overAll(kernels.clamp, ({ lo, hi }) => [lo, hi]),
  where: overAll(kernels.where),
  fill: overAll(kernels.fill, ({ value }) => [value]),
  swiglu: overAll(({ activation }) => kernels.swiglu(activation)),
  swigluBack: overAll(({ activation }) => kernels.swigluBack(activation)),
  dropout: overAll(kernels.dropout, ({ p, stream }) => [stream >>> 0, dropoutThreshold(p), 1 / (1 - p)]),
  expand: direct(({ inputs: [a], outputs: [y] }) => [each(kernels.expand, count(y), [a, y], [count(y) / count(a)])]),
  accumulate: direct(({ inputs: [state, x] }) => [each(kernels.add, count(x), [state, x, state], [1, 1])]),
  adamw: direct(({ inputs }, { decay }) => [each(kernels.adamw, count(inputs[0]), inputs, [decay])]),
} satisfies Partial<Lowering>
