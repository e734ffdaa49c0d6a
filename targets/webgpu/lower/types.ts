import { type Kernel, workgroup } from '../../../kernels-wgsl/kernel.ts'
import type { TensorType } from '../../../sdk/dtype.ts'
import type * as shared from '../../lowering.ts'
import type { TensorMemory } from '../buffer.ts'

export { columnsOf, count, rowsOf, windowOf } from '../../lowering.ts'

/** An argument with its memory. */
export interface Place extends TensorType {
  /** null: the arena. */
  readonly bound: TensorMemory | null
  /** Which of the tensor's parts, where a large table has several; which of the arena's buffers. */
  readonly part: number
  /** Elements from the start of the part (4 bytes each in the arena). */
  readonly offset: number
}

/** One kernel over its arguments. */
export interface Call {
  readonly kernel: Kernel
  readonly args: readonly Place[]
  readonly params: readonly number[]
  readonly groups: number
}

export interface Places {
  readonly inputs: readonly Place[]
  readonly outputs: readonly Place[]
  /** As many bytes of the arena as were asked for. */
  readonly scratch: Place
}

export type LowerNode<A> = shared.LowerNode<A, unknown>
export type Lowered = shared.Lowered<Places, Call>
export type Lower<A> = shared.Lower<A, unknown, Places, Call>
export type Lowering = shared.Lowering<unknown, Places, Call>

/** An op that needs no scratch. */
export const direct =
  <A>(calls: (places: Places, attrs: A) => Call[]): Lower<A> =>
  ({ attrs }) => ({ scratchBytes: 0, calls: (places) => calls(places, attrs) })

export const moved = (place: Place, elements: number): Place => ({ ...place, offset: place.offset + elements })

/** A thread for each of n. */
export const threads = (kernel: Kernel, n: number, args: readonly Place[], params: readonly number[]): Call => ({
  kernel,
  args,
  params,
  groups: Math.ceil(n / workgroup),
})

/** A kernel made by `each`. */
export const each = (kernel: Kernel, n: number, args: readonly Place[], params: readonly number[] = []): Call =>
  threads(kernel, n, args, [n, ...params])

/** Parts of a table that is too large for one binding: each with its first row. */
export function partsOf(table: Place): { place: Place; first: number }[] {
  if (!table.bound) return [{ place: table, first: 0 }]
  return table.bound.parts.map(({ first, rows }, part) => ({
    place: { ...table, part, shape: [rows, ...table.shape.slice(1)] },
    first,
  }))
}
