import { megabytes } from '../../sdk/bytes.ts'
import { byteLength, describe, type TensorType } from '../../sdk/dtype.ts'
import { MemoryError } from '../../sdk/errors.ts'
import { bindings, type MemoryPlan, type Program, planMemory } from '../../sdk/graph/program.ts'
import { lowerNode } from '../lowering.ts'
import { cut, type Part, type TensorMemory } from './buffer.ts'
import { lowering } from './lower/index.ts'
import type { Call, Place } from './lower/types.ts'

/** A program with the kernels that are called for it, and where everything lies. */
export interface Plan {
  readonly program: Program
  readonly memory: MemoryPlan
  readonly calls: readonly Call[]
}

/**
 * Plans a program for buffers of at most `limit` bytes: the arena may be several. Without `bound` for its sizes alone.
 * Throws MemoryError for a tensor that no buffer holds.
 */
export function planProgram(given: Program, limit: number, bound: Readonly<Record<string, TensorMemory>> = {}): Plan {
  // Kernels read what they have not overwritten yet in any order: nothing is done in place.
  const program = { ...given, nodes: given.nodes.map((node) => ({ ...node, inplace: [] })) }
  const lowered = program.nodes.map((node) => lowerNode(lowering, node, program, {}))
  const scratchBytes = lowered.map((node) => node.scratchBytes)
  const check = (what: string, bytes: number) => {
    if (bytes > limit)
      throw new MemoryError(
        `program ${program.name}: ${what} takes ${megabytes(bytes)}, this adapter binds ${megabytes(limit)} at most: use a smaller batch or shorter rows`,
      )
  }
  for (const t of program.tensors)
    if (t.kind === 'input' || t.kind === 'temp') check(`${t.name} ${describe(t)}`, byteLength(t))
  for (const [n, { op }] of program.nodes.entries()) check(`scratch of ${op}`, scratchBytes[n])
  const memory = planMemory(program, { alignment: 256, boundary: limit, scratchBytes })

  const buffers = new Map<string, TensorMemory>()
  for (const kind of ['weight', 'state'] as const)
    for (const [name, type] of bindings(program, kind)) buffers.set(name, bound[name] ?? unallocated(type, name, limit))
  const inArena = ({ dtype, shape }: TensorType, at: number): Place => ({
    dtype,
    shape,
    bound: null,
    part: Math.floor(at / limit),
    offset: (at % limit) / 4,
  })
  const placeOf = (id: number): Place => {
    const { dtype, shape } = program.tensors[id]
    const at = memory.locations[id]
    if ('bound' in at) return { dtype, shape, bound: buffers.get(at.bound)!, part: 0, offset: 0 }
    return inArena({ dtype, shape }, at.offset)
  }
  const calls = program.nodes.flatMap((node, n) => {
    const made = lowered[n].calls({
      inputs: node.inputs.map(placeOf),
      outputs: node.outputs.map(placeOf),
      scratch: inArena({ dtype: 'f32', shape: [] }, Math.max(0, memory.scratch[n])),
    })
    // An op that does not know of parts would see the first one alone.
    for (const { bound: own, part, shape } of made.flatMap(({ args }) => args))
      if (own && own.parts.length > 1 && shape[0] !== own.parts[part].rows)
        throw new MemoryError(
          `program ${program.name}: ${node.op} takes ${own.name} as a whole, ${megabytes(byteLength(own.type))}, this adapter binds ${megabytes(limit)} at most: train an adapter instead of it, or use another device`,
        )
    return made
  })
  return { program, memory, calls }
}

/** Memory in name only, for its parts. */
const unallocated = (type: TensorType, name: string, limit: number): TensorMemory => ({
  name,
  type,
  parts: cut(type, name, limit) as readonly Omit<Part, 'gpu'>[] as readonly Part[],
})
