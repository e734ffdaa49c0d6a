import { byteLength, describe, type TensorType } from '../../sdk/dtype.ts'
import { MemoryError } from '../../sdk/errors.ts'
import { bindings, type MemoryPlan, type Program, type ProgramNode, planMemory } from '../../sdk/graph/program.ts'
import { cut, type Part, type Rows, WebGpuBuffer } from './buffer.ts'
import { type Dispatch, lowering, type Place, scratch } from './lower.ts'

/** A program with what is dispatched for it, and where everything lies. */
export interface Plan {
  readonly program: Program
  readonly memory: MemoryPlan
  readonly dispatches: readonly Dispatch[]
}

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(0)} MB`

/**
 * Plans a program for buffers of at most `limit` bytes: the arena may be several. Without `bound` for its sizes alone.
 * Throws MemoryError for a tensor that no buffer holds.
 */
export function planProgram(given: Program, limit: number, bound: Readonly<Record<string, WebGpuBuffer>> = {}): Plan {
  // Kernels read what they have not overwritten yet in any order: nothing is done in place.
  const program = { ...given, nodes: given.nodes.map((node) => ({ ...node, inplace: [] })) }
  const scratchOf = (node: ProgramNode) =>
    scratch[node.op]?.({
      inputs: node.inputs.map((id) => program.tensors[id]),
      outputs: node.outputs.map((id) => program.tensors[id]),
      attrs: node.attrs,
    }) ?? 0
  const check = (what: string, bytes: number) => {
    if (bytes > limit)
      throw new MemoryError(
        `program ${program.name}: ${what} takes ${megabytes(bytes)}, this adapter binds ${megabytes(limit)} at most: use a smaller batch or shorter rows`,
      )
  }
  for (const t of program.tensors)
    if (t.kind === 'input' || t.kind === 'temp') check(`${t.name} ${describe(t)}`, byteLength(t))
  for (const node of program.nodes) check(`scratch of ${node.op}`, scratchOf(node))
  const memory = planMemory(program, { alignment: 256, boundary: limit, scratchBytes: scratchOf })

  const buffers = new Map<string, WebGpuBuffer>()
  for (const kind of ['weight', 'state'] as const)
    for (const [name, type] of bindings(program, kind)) buffers.set(name, bound[name] ?? unallocated(type, name, limit))
  const arenaPlace = ({ dtype, shape }: TensorType, at: number): Place => ({
    dtype,
    shape,
    buffer: null,
    part: Math.floor(at / limit),
    offset: (at % limit) / 4,
  })
  const locate = (id: number): Place => {
    const { dtype, shape } = program.tensors[id]
    const at = memory.locations[id]
    if ('bound' in at) return { dtype, shape, buffer: buffers.get(at.bound)!, part: 0, offset: 0 }
    return arenaPlace({ dtype, shape }, at.offset)
  }
  const dispatches = program.nodes.flatMap((node, n) => {
    const made = lowering[node.op]({
      inputs: node.inputs.map(locate),
      outputs: node.outputs.map(locate),
      attrs: node.attrs,
      scratch: arenaPlace({ dtype: 'f32', shape: [] }, Math.max(0, memory.scratch[n])),
    })
    // An op that does not know of parts would see the first one alone.
    for (const { buffer, part, shape } of made.flatMap(({ args }) => args))
      if (buffer && buffer.parts.length > 1 && shape[0] !== buffer.parts[part].rows)
        throw new MemoryError(
          `program ${program.name}: ${node.op} takes ${buffer.name} as a whole, ${megabytes(buffer.bytes)}, this adapter binds ${megabytes(limit)} at most: train an adapter instead of it, or use another device`,
        )
    return made
  })
  return { program, memory, dispatches }
}

/** A buffer in name only, for its parts. */
const unallocated = (type: TensorType, name: string, limit: number): WebGpuBuffer =>
  new WebGpuBuffer(name, type, cut(type, name, limit) as readonly Rows[] as readonly Part[])
