import { ShapeError } from '../sdk/errors.ts'
import type { Program } from '../sdk/graph/program.ts'
import { relativeError } from '../sdk/self-test.ts'
import type { Buffer, RunInputs, Target } from '../sdk/target.ts'

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

/** A copy of the program whose every temp is an output, named `#id`: what `compare` runs. */
export function exposeAll(p: Program): Program {
  const temps = p.tensors.filter((t) => t.kind === 'temp').map((t) => [`#${t.id}`, t.id] as const)
  if (temps.length === 0) throw new ShapeError(`program ${p.name}: nothing to compare, it has no temps`)
  return { ...p, outputs: { ...p.outputs, ...Object.fromEntries(temps) } }
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
