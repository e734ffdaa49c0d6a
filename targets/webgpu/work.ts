import { workgroup } from '../../kernels-wgsl/kernel.ts'
import { byteLength } from '../../sdk/dtype.ts'
import type { Call } from './lower/types.ts'

/** What a dispatch has to do, estimated from its shapes. */
export interface Work {
  /** Of all arguments, each counted once. */
  readonly bytes: number
  /** Of a product (a multiplication and its addition are two); null: of no interest. */
  readonly operations: number | null
  /** Grows as its time does: for one kernel against itself. */
  readonly cost: number
}

/** Kernels that touch a few rows of a large argument: what they touch is of the size of this argument. */
const sparse: Readonly<Record<string, string>> = { gatherRows: 'y', embed: 'y', kvWrite: 'x', rope: 'x' }

export function workOf({ kernel, args, params, groups }: Call): Work {
  const names = Object.keys(kernel.args)
  const few = names.indexOf(sparse[kernel.name.split(' ')[0]] ?? '')
  const bytes = few < 0 ? args.reduce((sum, arg) => sum + byteLength(arg), 0) : 2 * byteLength(args[few])
  const number = (name: string): number | undefined => params[kernel.params.indexOf(name)]
  const [rows, columns, inner] = ['rows', 'columns', 'inner'].map(number)
  if (rows !== undefined && columns !== undefined && inner !== undefined) {
    const operations = 2 * rows * columns * inner
    return { bytes, operations, cost: operations }
  }
  // Attention: every thread may go over all keys.
  const keys = kernel.name.startsWith('attention') ? (number('capacity') ?? number('n') ?? 1) : 0
  return { bytes, operations: null, cost: Math.max(bytes, groups * workgroup * keys) }
}

/** Seconds that a submit is to take at most: a GPU that does not answer for long is reset. */
export const longestSubmit = 0.2
/** Cost a second of a kernel that was never timed: that of a slow adapter. */
const unknownPace = 1e9
/** What costs no more takes no time to speak of. */
const negligible = 1e5
/** A dispatch of so many times what was timed is timed again. */
const farther = 4

/** How fast one kernel is on this adapter, from its own runs. */
export class Pace {
  private cost = 0
  private seconds = 0
  private times = 0

  /** Seconds, going by the largest that was timed. */
  estimate(cost: number): number {
    return this.cost === 0 ? cost / unknownPace : (cost / this.cost) * this.seconds
  }

  /** Is this to be timed? The first time something else may take long as well: twice. */
  isUnknown(cost: number): boolean {
    return cost > negligible && (this.times < 2 || cost > farther * this.cost)
  }

  learn(cost: number, seconds: number): void {
    if (cost > farther * this.cost) [this.cost, this.seconds, this.times] = [cost, seconds, 1]
    else {
      this.times++
      if (seconds < this.estimate(cost)) [this.cost, this.seconds] = [cost, seconds]
    }
  }
}
