import type { Graph, Tensor } from '../graph/graph.ts'
import type { OpCase, OpSpec } from '../graph/spec.ts'
import { array, copyOf } from './array.ts'
import { floats, normal } from './cases.ts'
import { signature } from './signature.ts'

export const sumSquaresOp: OpSpec = {
  name: 'sumSquares',
  infer: signature('sumSquares', 'x[...] -> [1]'),
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

type AdamwAttrs = { decay: number }

/**
 * torch.optim.AdamW after torch.nn.utils.clip_grad_norm_; the gradient is zeroed for the next step.
 * hyper = lr, beta1, beta2, eps, weightDecay, maxGradNorm (0: no clipping), 1 - beta1^t, 1 - beta2^t, 1 - beta1, 1 - beta2
 * (the last two because 1 - f32(beta) has lost four digits).
 * Where normSquared is not finite, p, m and v stay as they are: a bad batch spoils nothing.
 */
export const adamwOp: OpSpec<AdamwAttrs> = {
  name: 'adamw',
  state: [
    [0, 0],
    [1, 1],
    [2, 2],
    [3, 3],
  ],
  infer: signature('adamw', 'p[...], g[...], m[...], v[...], normSquared[1], hyper[10] -> [...] [...] [...] [...]'),
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
    step('decay, clipped', [7, 33], 231, [1e-2, 0.9, 0.999, 1e-8, 0.1, 1, 0.271, 0.002997, 0.1, 0.001], 1),
    step('no decay, no clipping, first step', [65], 65, [1e-3, 0.9, 0.95, 1e-8, 0.1, 0, 0.1, 0.05, 0.1, 0.05], 0),
    step('norm is infinite', [33], Number.POSITIVE_INFINITY, [1e-3, 0.9, 0.95, 1e-8, 0.1, 1, 0.1, 0.05, 0.1, 0.05], 1),
  ],
}

/** Without decay its moments are zeros, as at first. */
function step(name: string, shape: number[], normSquared: number, hyper: number[], decay: number): OpCase<AdamwAttrs> {
  const [m, v] = decay ? [normal(shape, 0.1), normal(shape, 0.05, 0.5)] : [normal(shape, 0), normal(shape, 0)]
  return { name, inputs: [normal(shape), normal(shape), m, v, floats([normSquared]), floats(hyper)], attrs: { decay } }
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
  { decay }: AdamwAttrs,
): [p: Tensor, grad: Tensor, m: Tensor, v: Tensor] =>
  g.apply(adamwOp, [p, grad, m, v, normSquared, hyper], { decay }) as [Tensor, Tensor, Tensor, Tensor]
