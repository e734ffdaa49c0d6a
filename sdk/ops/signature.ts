import { type DType, describe, type TensorType } from '../dtype.ts'
import { ShapeError } from '../errors.ts'
import type { Graph, Tensor } from '../graph/graph.ts'

const dtypesOf: Record<string, readonly DType[]> = {
  f32: ['f32'],
  i32: ['i32'],
  any: ['f32', 'i32'],
  vector: ['f32', 'f16', 'bf16'],
  weight: ['f32', 'f16', 'bf16', 'q8', 'q4'],
}

export type Dims = Readonly<Record<string, number>>

/**
 * Checks the arguments of an op against patterns like `x[N,I]`, `ids[N]:i32`, `w[O,I]:weight`, `b[O]?:vector`, `y[...]`.
 * A letter stands for one length, the same wherever it occurs; `?` marks optional ones, at the end.
 *
 * @returns a function from the inputs to the lengths; it throws ShapeError naming op, argument and both shapes
 */
export function signature(op: string, ...patterns: readonly string[]): (inputs: readonly TensorType[]) => Dims {
  const wanted = patterns.map((pattern) => {
    const [, name, axes, optional, kind = 'f32'] = /^(\w+)\[(.*)\](\?)?(?::(\w+))?$/.exec(pattern)!
    return { name, axes: axes === '...' ? null : axes.split(','), optional: optional === '?', dtypes: dtypesOf[kind] }
  })
  const least = wanted.filter((w) => !w.optional).length
  return (inputs) => {
    if (inputs.length < least || inputs.length > wanted.length)
      throw new ShapeError(`${op}: takes (${patterns.join(', ')}), got ${inputs.length} arguments`)
    const dims: Record<string, number> = {}
    const from: Record<string, string> = {}
    inputs.forEach((type, i) => {
      const { name, axes, dtypes } = wanted[i]
      const fail = (expected: string, because = '') => {
        throw new ShapeError(`${op}: ${name} is ${describe(type)}, expected ${expected}${because}`)
      }
      if (!dtypes.includes(type.dtype)) fail(dtypes.join(' or '))
      if (type.shape.some((d) => !Number.isSafeInteger(d) || d <= 0)) fail('positive lengths')
      if (!axes) return
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
    return dims
  }
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
