import { elementCount, type TensorType } from '../sdk/dtype.ts'
import type { Program, ProgramNode } from '../sdk/graph/program.ts'
import type { AttrsOf, OpName } from '../sdk/ops/index.ts'

/** What is known of a node before anything has its place, with what the host knows. */
export type LowerNode<A, Host> = Host & {
  readonly inputs: readonly TensorType[]
  readonly outputs: readonly TensorType[]
  readonly attrs: A
}

/** A node's kernel calls, once its inputs, outputs and scratch have their places. */
export interface Lowered<Places, Call> {
  readonly scratchBytes: number
  calls(places: Places): Call[]
}

export type Lower<A, Host, Places, Call> = (node: LowerNode<A, Host>) => Lowered<Places, Call>
export type Lowering<Host, Places, Call> = { readonly [N in OpName]: Lower<AttrsOf<N>, Host, Places, Call> }

/** By the node's own op: a program's attributes are those of its op. */
export function lowerNode<Host, Places, Call>(
  lowering: Lowering<Host, Places, Call>,
  { op, inputs, outputs, attrs }: ProgramNode,
  { tensors }: Program,
  host: Host,
): Lowered<Places, Call> {
  const lower = lowering[op as OpName] as Lower<unknown, Host, Places, Call>
  return lower({ ...host, inputs: inputs.map((id) => tensors[id]), outputs: outputs.map((id) => tensors[id]), attrs })
}

/** Positions that a token sees as kernels are told it: 0, all of them, is the greatest i32. */
export const windowOf = (window: number): number => window || 2 ** 31 - 1

export const count = ({ shape }: TensorType): number => elementCount(shape)
export const columnsOf = ({ shape }: TensorType): number => shape[shape.length - 1]
export const rowsOf = (t: TensorType): number => count(t) / columnsOf(t)
