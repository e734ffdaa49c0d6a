import type { TensorType } from '../../../sdk/dtype.ts'
import type { AttrsOf, OpName } from '../../../sdk/ops/index.ts'
import type { OnnxGraph } from '../model.ts'

export { columnsOf, count, rowsOf } from '../../lowering.ts'

/** A tensor of a program, with the value that it is in the graph. */
export interface Operand extends TensorType {
  /** '' of a quantized weight, whose parts are asked for (weights.ts). */
  readonly value: string
  /** The weight's or state's name. */
  readonly bound: string
}

export interface LowerNode<A> {
  readonly inputs: readonly Operand[]
  readonly attrs: A
}

/** Adds a node's own nodes to the graph and returns the values of its outputs. */
export type Lower<A> = (g: OnnxGraph, node: LowerNode<A>) => string[]
export type Lowering = { readonly [N in OpName]: Lower<AttrsOf<N>> }
