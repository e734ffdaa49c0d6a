import type { FloatDType, TensorType } from '../../../sdk/dtype.ts'
import type * as shared from '../../lowering.ts'
import type { DTypeCode, Sizes } from '../kernels.ts'

export { columnsOf, count, rowsOf, windowOf } from '../../lowering.ts'

/** One kernel call: name, then its arguments without the last two (thread, threads), which each thread adds itself. */
export type Call = readonly [kernel: string, ...args: number[]]

/** What the host knows. */
export interface Host {
  readonly threads: number
  readonly sizes: Sizes
  readonly code: DTypeCode
  /** Whether products with q4 and q4a take four bytes at a time (kernels-as/linear-int8.ts). */
  readonly quads: boolean
}

/** Byte addresses in the wasm memory, unsigned. */
export interface Addresses {
  readonly inputs: readonly number[]
  readonly outputs: readonly number[]
  /** Of as many bytes as were asked for. */
  readonly scratch: number
}

export type LowerNode<A> = shared.LowerNode<A, Host>
/** Calls have a barrier after each. */
export type Lowered = shared.Lowered<Addresses, Call>
export type Lower<A> = shared.Lower<A, Host, Addresses, Call>
export type Lowering = shared.Lowering<Host, Addresses, Call>

/** An op whose kernels need no scratch. */
export const direct =
  <A>(calls: (at: Addresses, node: LowerNode<A>) => Call[]): Lower<A> =>
  (node) => ({ scratchBytes: 0, calls: (at) => calls(at, node) })

/** An op whose kernels need so many bytes of scratch for each thread. */
export const perThread =
  <A>(
    bytes: (node: LowerNode<A>) => number,
    calls: (at: Addresses, node: LowerNode<A>, own: number) => Call[],
  ): Lower<A> =>
  (node) => {
    const own = bytes(node)
    return { scratchBytes: node.threads * own, calls: (at) => calls(at, node, own) }
  }

/** Regions of scratch begin at cache lines. */
export const align = (bytes: number): number => Math.ceil(bytes / 64) * 64
/** The type of a weight as kernels are told it. */
export const codeOf = ({ code }: Pick<Host, 'code'>, { dtype }: TensorType): number => code(dtype as FloatDType)
