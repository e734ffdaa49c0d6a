import { describe, sameShape } from '../dtype.ts'
import { ShapeError } from '../errors.ts'
import type { Graph, Tensor } from '../graph/graph.ts'
import type { OpSpec } from '../graph/spec.ts'
import { array, copyOf } from './array.ts'
import { floats, normal } from './cases.ts'
import { f32, signature } from './signature.ts'

const squaresArguments = signature('sumSquares', 'x[...]')

export const sumSquaresOp: OpSpec = {
  name: 'sumSquares',
  infer(inputs) {
    squaresArguments(inputs)
    return [f32(1)]
  },
  reference([x]) {
    const total = array(1)
    for (const v of x.data) total.data[0] += v * v
    return [total]
  },
  cases: [
    { name: 'matrix', inputs: [normal([33, 67])], attrs: {} },
    { name: 'one', inputs: [normal([1])], attrs: {} },
    { name: 'many', inputs: [normal([5003], 1e-3)], attrs: {} },
  ],
}

/** Sum of squares [1] of a tensor of any shape. */
export const sumSquares = (g: Graph, x: Tensor): Tensor => g.apply(sumSquaresOp, [x], {})[0]

const adamwArguments = signature('adamw', 'p[...]', 'g[...]', 'm[...]', 'v[...]', 'normSquared[1]', 'hyper[10]')

/**
 * torch.optim.AdamW after torch.nn.utils.clip_grad_norm_; the gradient is zeroed for the next step.
 * hyper = lr, beta1, beta2, eps, weightDecay, maxGradNorm (0: no clipping), 1 - beta1^t, 1 - beta2^t, 1 - beta1, 1 - beta2
 * (the last two because 1 - f32(beta) has lost four digits).
 * Where normSquared is not finite, p, m and v stay as they are: a bad batch spoils nothing.
 */
export const adamwOp: OpSpec<{ decay: number }> = {
  name: 'adamw',
  state: [
    [0, 0],
    [1, 1],
    [2, 2],
    [3, 3],
  ],
  infer(inputs) {
    adamwArguments(inputs)
    const p = inputs[0]
    inputs.slice(1, 4).forEach((t, i) => {
      if (!sameShape(t.shape, p.shape))
        throw new ShapeError(`adamw: ${'gmv'[i]} is ${describe(t)}, expected the shape of p ${describe(p)}`)
    })
    return [p, p, p, p].map((t) => f32(...t.shape))
  },
  reference([p, grad, m, v, { data: normSquared }, { data: hyper }], { decay }) {
    const [lr, beta1, beta2, eps, weightDecay, maxGradNorm, correction1, correction2, rest1, rest2] = hyper
    if (!Number.isFinite(normSquared[0])) return [copyOf(p), array(...p.shape), copyOf(m), copyOf(v)]
    const clip = maxGradNorm > 0 ? Math.min(1, maxGradNorm / (Math.sqrt(normSquared[0]) + 1e-6)) : 1
    const [p2, g2, m2, v2] = [p, p, p, p].map((t) => array(...t.shape))
    p.data.forEach((value, i) => {
      const g = grad.data[i] * clip
      m2.data[i] = beta1 * m.data[i] + rest1 * g
      v2.data[i] = beta2 * v.data[i] + rest2 * g * g
      const step = m2.data[i] / (Math.sqrt(v2.data[i]) / Math.sqrt(correction2) + eps)
      p2.data[i] = value * (decay ? 1 - lr * weightDecay : 1) - (lr / correction1) * step
    })
    return [p2, g2, m2, v2]
  },
  cases: [
    {
      name: 'decay, clipped',
      inputs: [
        normal([7, 33]),
        normal([7, 33]),
        normal([7, 33], 0.1),
        normal([7, 33], 0.05, 0.5),
        floats([231]),
        floats([1e-2, 0.9, 0.999, 1e-8, 0.1, 1, 0.271, 0.002997, 0.1, 0.001]),
      ],
      attrs: { decay: 1 },
    },
    {
      name: 'no decay, no clipping, first step',
      inputs: [
        normal([65]),
        normal([65]),
        floats(new Array<number>(65).fill(0)),
        floats(new Array<number>(65).fill(0)),
        floats([65]),
        floats([1e-3, 0.9, 0.95, 1e-8, 0.1, 0, 0.1, 0.05, 0.1, 0.05]),
      ],
      attrs: { decay: 0 },
    },
    {
      name: 'norm is infinite',
      inputs: [
        normal([33]),
        normal([33]),
        normal([33]),
        normal([33], 0.05, 0.5),
        floats([Number.POSITIVE_INFINITY]),
        floats([1e-3, 0.9, 0.95, 1e-8, 0.1, 1, 0.1, 0.05, 0.1, 0.05]),
      ],
      attrs: { decay: 1 },
    },
  ],
}

/** One step: p, grad, m, v are states of one shape, normSquared [1], hyper [10]. Returns their next versions. */
export const adamw = (
  g: Graph,
  p: Tensor,
  grad: Tensor,
  m: Tensor,
  v: Tensor,
  normSquared: Tensor,
  hyper: Tensor,
  { decay }: { decay: number },
): [p: Tensor, grad: Tensor, m: Tensor, v: Tensor] =>
  g.apply(adamwOp, [p, grad, m, v, normSquared, hyper], { decay }) as [Tensor, Tensor, Tensor, Tensor]
