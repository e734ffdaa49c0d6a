import type { TensorType } from '../dtype.ts'
import type { Graph, Tensor } from './graph.ts'

/** Attributes are numbers and strings only, so that a Program is plain cloneable data. */
export type Attrs = Readonly<Record<string, number | string>>

/** A tensor of the reference executor: always f64, whatever the declared dtype (quantized weights come dequantized). */
export interface NdArray {
  readonly shape: readonly number[]
  readonly data: Float64Array
}

/** One argument of an op case. */
export interface CaseInput {
  readonly type: TensorType
  /** `normal` is standard normal times `scale`; `values` are given; `quantized` weights are rounded before every target. */
  readonly fill: { kind: 'normal'; scale?: number; offset?: number } | { kind: 'values'; values: readonly number[] }
  /** A weight: bound by name, trainable ones accumulate their gradient into state. Otherwise it is an input of the Program. */
  readonly weight?: 'trainable' | 'frozen'
}

/** The same list runs on every target. */
export interface OpCase<A extends Attrs = Attrs> {
  readonly name: string
  readonly inputs: readonly CaseInput[]
  readonly attrs: A
  /** Relative tolerance per target where it is not 1e-5, with the reason. */
  readonly tolerance?: { readonly value: number; readonly reason: string }
}

/**
 * One op. `reference` is its definition. The gradient pass knows ops only through this interface.
 * A missing optional input is left out of the list; `infer` and `reference` see the shorter list.
 */
export interface OpSpec<A extends Attrs = Attrs> {
  readonly name: string
  /** Output types, or ShapeError that names op, argument and both shapes. */
  infer(inputs: readonly TensorType[], attrs: A): TensorType[]
  /**
   * Appends the ops of the reverse pass. `grads[i]` is the gradient of output i (null: nothing depends on it), `need[i]` whether
   * input i needs one. Returns one gradient (or null) per input. For a trainable weight it appends ops that add into
   * `g.gradState(weight)` and returns null; small ones may return the gradient and the caller accumulates it.
   */
  vjp?(g: Graph, node: VjpNode<A>, grads: readonly (Tensor | null)[], need: readonly boolean[]): (Tensor | null)[]
  /** Plain f64 loops: this is the definition. Must not write into its inputs. */
  reference(inputs: readonly NdArray[], attrs: A): NdArray[]
  /** Output may take the place of an input that dies here. */
  readonly inplace?: readonly (readonly [input: number, output: number])[]
  /** Output IS the new version of a state input (gradient accumulation, KV cache, optimizer). */
  readonly state?: readonly (readonly [input: number, output: number])[]
  /** Output is the same bytes as the input under another shape. */
  readonly view?: readonly (readonly [input: number, output: number])[]
  readonly cases: readonly OpCase<A>[]
}

export interface VjpNode<A extends Attrs = Attrs> {
  readonly inputs: readonly Tensor[]
  readonly outputs: readonly Tensor[]
  readonly attrs: A
}
