import { BLOCK } from '../blocks.ts'
import { type DType, floatDTypes, isQuantized } from '../dtype.ts'
import { OptionError } from '../errors.ts'
import type { Graph, Tensor } from '../graph/graph.ts'
import type { OpSpec } from '../graph/spec.ts'
import { array } from './array.ts'
import { frozen, normal, trained, vectorDTypes } from './cases.ts'
import { linearBackBias, linearBackInput, linearBackWeight } from './linear-back.ts'
import { gradientState, signature } from './signature.ts'

/** What a product does to its input first: nothing, or it rounds each block of 32 to integers, where the weights are integers in blocks too. */
export type Activations = 'f32' | 'int8' | 'int16'
type LinearAttrs = { activations: Activations }
const exact: LinearAttrs = { activations: 'f32' }
/** Of cases with rounded activations. */
export const rounded = (dtype: DType) => ({
  attrs: { activations: roundedFor(dtype, 'int8') },
  tolerance: { value: 0.01, reason: 'targets without the kernel compute with activations as they are' },
})

/** int8 is int16 beside q8, where kernels multiply 16 bits in any case. */
export const roundedFor = (dtype: DType, activations: Activations): Activations =>
  !isQuantized(dtype) ? 'f32' : activations === 'int8' && dtype === 'q8' ? 'int16' : activations

/** Integers of -127 to 127 (-32767 to 32767) times max|x| / 127 of their block, in f32 arithmetic. */
export function roundActivations(x: Float64Array, activations: Activations = 'f32'): Float64Array {
  if (activations === 'f32') return x
  const most = activations === 'int8' ? 127 : 32_767
  const y = x.slice()
  for (let at = 0; at < y.length; at += BLOCK) {
    const block = y.subarray(at, at + BLOCK)
    const largest = block.reduce((most, v) => Math.max(most, Math.abs(v)), 0)
    if (largest === 0) continue
    const [scale, inverse] = [Math.fround(largest / most), Math.fround(most / largest)]
    block.forEach((v, i) => {
      // In f32 adding and taking away 1.5 * 2^23 rounds to the nearest integer, of two as near the even one.
      block[i] = scale * (Math.fround(Math.fround(v * inverse) + 12_582_912) - 12_582_912)
    })
  }
  return y
}

/** Throws OptionError: a gradient through rounded activations would be another function's. */
export function refuseRounded(op: string, activations: Activations = 'f32'): void {
  if (activations !== 'f32') throw new OptionError(`${op}: ${activations} activations have no gradient; train with f32`)
}

/** y = x·wᵀ + b. Where a target has no kernel for rounded activations it computes with x as it is. */
export const linearOp: OpSpec<LinearAttrs> = {
  name: 'linear',
  infer: signature('linear', 'x[N,I], w[O,I]:weight, b[O]?:vector -> [N,O]'),
  vjp(g, { inputs: [x, w, b], attrs: { activations } }, [dy], need) {
    refuseRounded('linear', activations)
    if (need[1]) linearBackWeight(g, dy!, x, gradientState(g, 'linear', 'w', w))
    if (need[2]) linearBackBias(g, dy!, gradientState(g, 'linear', 'b', b))
    return [need[0] ? linearBackInput(g, dy!, w) : null, null, null]
  },
  reference([x, w, b], { activations }) {
    const input = roundActivations(x.data, activations)
    const [n, i] = x.shape
    const o = w.shape[0]
    const y = array(n, o)
    for (let r = 0; r < n; r++)
      for (let c = 0; c < o; c++) {
        let sum = b ? b.data[c] : 0
        for (let k = 0; k < i; k++) sum += input[r * i + k] * w.data[c * i + k]
        y.data[r * o + c] = sum
      }
    return [y]
  },
  cases: [
    ...floatDTypes.flatMap((dtype) => [
      { name: `${dtype}, one row`, inputs: [normal([1, 544]), frozen(dtype, [33, 544])], attrs: exact },
      {
        name: `${dtype}, rows`,
        inputs: [normal([7, 160]), frozen(dtype, [65, 160]), frozen('f32', [65])],
        attrs: exact,
      },
      { name: `${dtype}, across tiles`, inputs: [normal([65, 64]), frozen(dtype, [130, 64])], attrs: exact },
    ]),
    ...vectorDTypes.map((dtype) => ({
      name: `bias ${dtype}`,
      inputs: [normal([3, 5]), frozen('f32', [7, 5]), frozen(dtype, [7])],
      attrs: exact,
    })),
    { name: 'trained', inputs: [normal([5, 33]), trained([7, 33]), trained([7])], attrs: exact },
    { name: 'trained, one by one', inputs: [normal([1, 1]), trained([1, 1]), trained([1])], attrs: exact },
    { name: 'trained, across tiles', inputs: [normal([33, 65]), trained([67, 65])], attrs: exact },
    { name: 'long inner axis', inputs: [normal([3, 1031]), frozen('f32', [5, 1031])], attrs: exact },
    ...(['q8', 'q4', 'q4a'] as const).flatMap((dtype) => [
      { name: `int8, ${dtype}, one row`, inputs: [normal([1, 1088]), frozen(dtype, [33, 1088])], ...rounded(dtype) },
      {
        name: `int8, ${dtype}, rows`,
        inputs: [normal([67, 96]), frozen(dtype, [6, 96]), frozen('f16', [6])],
        ...rounded(dtype),
      },
    ]),
    { name: 'few rows, long', inputs: [normal([3, 544]), frozen('q8', [6, 544]), frozen('f32', [6])], attrs: exact },
  ],
}

/** x [N, I], w [O, I] of any weight dtype, b [O] -> x·wᵀ + b [N, O]. Also the vocabulary logits. `activations` count where w is quantized. */
export const linear = (g: Graph, x: Tensor, w: Tensor, b?: Tensor, activations: Activations = 'f32'): Tensor =>
  g.apply(linearOp, b ? [x, w, b] : [x, w], { activations: roundedFor(w.dtype, activations) })[0]
