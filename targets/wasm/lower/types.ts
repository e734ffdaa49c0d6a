import type { DType, TensorType } from '../../../sdk/dtype.ts'
import type { Attrs } from '../../../sdk/graph/spec.ts'

/** One kernel call: name, then its arguments without the last two (thread, threads), which each thread adds itself. */
export type Call = readonly [kernel: string, ...args: number[]]

export interface Argument extends TensorType {
  /** Byte address in the wasm memory, unsigned. */
  readonly ptr: number
}

/** A node with its memory: what is lowered to calls, with a barrier after each. */
export interface LowerNode {
  readonly inputs: readonly Argument[]
  readonly outputs: readonly Argument[]
  readonly attrs: Attrs
  /** Address of as many bytes as the op's `scratch` asked for; 0 when it asked for none. */
  readonly scratch: number
  readonly threads: number
}

/** Op name -> its calls. */
export type Lowering = Readonly<Record<string, (node: LowerNode) => Call[]>>

export interface NodeTypes {
  readonly inputs: readonly TensorType[]
  readonly outputs: readonly TensorType[]
  readonly attrs: Attrs
}

/** Op name -> bytes of scratch that its calls need. Ops that need none are left out. */
export type Scratch = Readonly<Record<string, (node: NodeTypes, threads: number) => number>>

/** How a kernel is told the dtype of a weight. The numbers are those of kernels-as/pack.ts. */
export const dtypeCode: Record<DType, number> = { f32: 0, f16: 1, bf16: 2, q8: 3, q4: 4, i32: 5 }
