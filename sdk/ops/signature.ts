import { type DType, describe, floatDTypes, sameShape, type TensorType } from '../dtype.ts'
import { ShapeError } from '../errors.ts'
import type { Graph, Tensor } from '../graph/graph.ts'
import type { Attrs } from '../graph/spec.ts'

const dtypesOf: Record<string, readonly DType[]> = {
  f32: ['f32'],
  i32: ['i32'],
  any: ['f32', 'i32'],
  vector: ['f32', 'f16', 'bf16'],
  cache: ['f32', 'f16'],
  weight: floatDTypes,
}

export type Dims = Readonly<Record<string, number>>

/**
 * What an op takes and gives, as `x[N,I], w[O,I]:weight, b[O]?:vector -> [N,O]`. A letter stands for one length, the same wherever it
 * occurs, a name of an attribute for its number, `...` for one whole shape, `*` for any; `?` marks optional arguments, at the end. An
 * output under an argument's name has its dtype.
 *
 * @param check throws where more is asked for than this says
 * @returns the types of the outputs; throws ShapeError naming op, argument and both shapes
 */
export function signature<A extends Attrs>(
  op: string,
  text: string,
  check: (dims: Dims, inputs: readonly TensorType[], attrs: A) => void = () => {},
): (inputs: readonly TensorType[], attrs: A) => TensorType[] {
  const [taken, given] = text.split('->').map((side) =>
    [...side.matchAll(/(\w*)\[(.*?)\](\?)?(?::(\w+))?/g)].map(([pattern, name, axes, optional, kind = 'f32']) => {
      return { pattern, name, axes: axes.split(','), optional: optional === '?', dtypes: dtypesOf[kind] }
    }),
  )
  const least = taken.filter((w) => !w.optional).length
  return (inputs, attrs) => {
    if (inputs.length < least || inputs.length > taken.length)
      throw new ShapeError(`${op}: takes (${taken.map((w) => w.pattern).join(', ')}), got ${inputs.length} arguments`)
    const dims: Record<string, number> = {}
    for (const [name, value] of Object.entries(attrs)) if (typeof value === 'number') dims[name] = value
    const from: Record<string, string> = {}
    const whole: { shape?: readonly number[] } = {}
    inputs.forEach((type, i) => {
      const { name, axes, dtypes } = taken[i]
      const fail = (expected: string, because = '') => {
        throw new ShapeError(`${op}: ${name} is ${describe(type)}, expected ${expected}${because}`)
      }
      if (!dtypes.includes(type.dtype)) fail(dtypes.join(' or '))
      if (type.shape.some((d) => !Number.isSafeInteger(d) || d <= 0)) fail('positive lengths')
      if (axes[0] === '...') {
        whole.shape ??= type.shape
        if (!sameShape(type.shape, whole.shape)) fail(`the shape of ${from['...']}`)
        from['...'] ??= `${name} ${describe(type)}`
      }
      if (axes[0] === '...' || axes[0] === '*') return
      const shown = axes.map((axis) => (axis in dims ? `${axis}=${dims[axis]}` : axis)).join(', ')
      const reasons = axes.map((axis) => from[axis]).filter(Boolean)
      const because = reasons.length ? ` to fit ${[...new Set(reasons)].join(' and ')}` : ''
      if (type.shape.length !== axes.length) fail(`[${shown}]`, because)
      type.shape.forEach((d, k) => {
        const length = /^\d+$/.test(axes[k]) ? Number(axes[k]) : dims[axes[k]]
        if (length !== undefined && length !== d) fail(`[${shown}]`, because)
      })
      axes.forEach((axis, k) => {
        if (axis in dims || /^\d+$/.test(axis)) return
        dims[axis] = type.shape[k]
        from[axis] = `${name} ${describe(type)}`
      })
    })
    check(dims, inputs, attrs)
    return given.map(({ name, axes, dtypes: [dtype] }) => ({
      dtype: inputs[taken.findIndex((w) => w.name === name)]?.dtype ?? dtype,
      shape: axes[0] === '...' ? [...whole.shape!] : axes.map((axis) => lengthOf(op, axis, dims)),
    }))
  }
}

function lengthOf(op: string, axis: string, dims: Dims): number {
  const length = dims[axis] ?? Number(axis)
  if (!Number.isSafeInteger(length) || length < 1)
    throw new ShapeError(`${op}: ${axis} is ${length}, expected at least 1`)
  return length
}

export const f32 = (...shape: number[]): TensorType => ({ dtype: 'f32', shape })

/** "2x3" <-> [2, 3]: attributes are numbers and strings only. */
export const shapeText = (shape: readonly number[]): string => shape.join('x')

export function parseShape(op: string, text: string): number[] {
  const shape = text.split('x').map(Number)
  if (shape.some((d) => !Number.isSafeInteger(d) || d <= 0))
    throw new ShapeError(`${op}: shape is "${text}", expected positive lengths like "2x3"`)
  return shape
}

/** The state that gradients of `w` add into. Only trainable f32 weights have one. */
export function gradientState(g: Graph, op: string, argument: string, w: Tensor): Tensor {
  if (!w.trainable || w.dtype !== 'f32')
    throw new ShapeError(`${op}: ${argument} ${w.name} ${describe(w)} needs a gradient but is no trainable f32 weight`)
  return g.gradState(w)
}

/** For outputs that are kept for the reverse pass only. */
export function noGradient(op: string, output: string, grad: Tensor | null): void {
  if (grad) throw new ShapeError(`${op}: no gradient flows through ${output}; wrap it in stopGradient`)
}
