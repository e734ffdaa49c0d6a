import { ShapeError } from '../errors.ts'
import type { Buffer, RunInputs, Target } from '../target.ts'
import { exposeAll, type Program } from './program.ts'

/** A target and the buffers that the program's weights and state are bound to there. Each side needs its own state. */
export interface Side {
  readonly target: Target
  readonly buffers: Readonly<Record<string, Buffer>>
}

export interface Difference {
  /** Index of the node in the program. */
  readonly node: number
  readonly op: string
  /** Name of the tensor that differs. */
  readonly name: string
  readonly error: number
}

/** max|a - b| / max|b|; Infinity where one is not finite and they are not the same. */
export function relativeError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) throw new ShapeError(`cannot compare ${a.length} elements with ${b.length}`)
  let difference = 0
  let largest = 0
  for (let i = 0; i < a.length; i++) {
    if (Object.is(a[i], b[i])) {
      if (Number.isFinite(b[i])) largest = Math.max(largest, Math.abs(b[i]))
      continue
    }
    if (!Number.isFinite(a[i]) || !Number.isFinite(b[i])) return Number.POSITIVE_INFINITY
    difference = Math.max(difference, Math.abs(a[i] - b[i]))
    largest = Math.max(largest, Math.abs(b[i]))
  }
  return difference / Math.max(largest, 1e-30)
}

/**
 * Runs one program on two targets, every temp exposed, and names the first node, in order, with an output that differs by more
 * than `tolerance` (relative to the largest element on side `b`); null where all agree. State of both sides moves on.
 */
export async function compare(
  p: Program,
  a: Side,
  b: Side,
  inputs: RunInputs,
  tolerance = 1e-4,
): Promise<Difference | null> {
  const exposed = exposeAll(p)
  const [left, right] = await Promise.all(
    [a, b].map(async ({ target, buffers }) => {
      const executable = await target.compile(exposed, buffers)
      try {
        return await executable.run(inputs)
      } finally {
        executable.free()
      }
    }),
  )
  for (const [n, node] of p.nodes.entries())
    for (const id of node.outputs) {
      const key = `#${id}`
      if (!(key in left)) continue
      const error = relativeError(left[key] as Float32Array, right[key] as Float32Array)
      if (error > tolerance) return { node: n, op: node.op, name: p.tensors[id].name, error }
    }
  return null
}
