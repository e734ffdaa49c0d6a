import { MemoryError, ShapeError } from '../../sdk/errors.ts'
import type { MemoryPlan, Program } from '../../sdk/graph/program.ts'
import type { CompileProgress } from '../../sdk/target.ts'
import { type Needs, paramsBytes, type Shared, uniformAlignment } from './arena.ts'
import type { TensorMemory } from './buffer.ts'
import type { Pipeline, Pipelines } from './pipelines.ts'
import { planProgram } from './plan.ts'
import { type Binding, gridOf, paramBytes } from './shader.ts'
import { type Work, workOf } from './work.ts'

/** A call with its pipeline; its numbers are in the program's words. */
export interface Dispatch extends Pipeline {
  /** A number: one of the arena's buffers. */
  readonly buffers: readonly (GPUBuffer | number)[]
  readonly groups: number
  /** Of all workgroups. */
  readonly size: readonly [x: number, y: number]
  readonly work: Work
}

export interface Compiled extends Needs {
  readonly program: Program
  readonly memory: MemoryPlan
  readonly dispatches: readonly Dispatch[]
  /** Made for the shared buffers of the last run. */
  groups: { readonly shared: Shared; readonly all: readonly GPUBindGroup[] } | null
  /** Inputs and outputs of a run of several steps, from the first such run on. */
  steps: GPUBuffer | null
}

/** Plans a program, gives each call its buffers and numbers, and compiles the pipelines that are not there yet, all at once. */
export async function compileProgram(
  { limits }: GPUDevice,
  pipelines: Pipelines,
  given: Program,
  bound: Readonly<Record<string, TensorMemory>>,
  limit: number,
  onCompile: (progress: CompileProgress) => void,
): Promise<Compiled> {
  const { program, memory, calls } = planProgram(given, limit, bound)
  for (const [name, id] of Object.entries(program.outputs))
    if ('bound' in memory.locations[id])
      throw new ShapeError(`program ${program.name}: output ${name} is state: read its buffer`)
  const words = new Uint32Array(paramsBytes(calls.length) / 4)
  const most = limits.maxStorageBuffersPerShaderStage
  const places = calls.map(({ kernel, args, params, groups }, i) => {
    const buffers: (GPUBuffer | number)[] = []
    const where = args.map(({ bound: own, part, dtype }): Binding => {
      const buffer = own ? own.parts[part].gpu : part
      if (!buffers.includes(buffer)) buffers.push(buffer)
      return { dtype, buffer: buffers.indexOf(buffer), arena: own === null }
    })
    if (buffers.length > most)
      throw new MemoryError(
        `program ${program.name}: ${kernel.name} would read and write ${buffers.length} buffers, this adapter binds ${most} at most: use a smaller batch or shorter rows`,
      )
    const { size, head } = gridOf({ first: 0, end: groups }, limits.maxComputeWorkgroupsPerDimension)
    const offsets = args.map(({ offset }) => offset)
    words.set(paramBytes(kernel, head, offsets, params), i * (uniformAlignment / 4))
    return { buffers, where, groups, size }
  })

  const wanted = new Set<Promise<Pipeline>>()
  const made = calls.map(({ kernel }, i) => {
    const isNew = !pipelines.has(kernel, places[i].where)
    const pipeline = pipelines.get(kernel, places[i].where)
    if (isNew) wanted.add(pipeline)
    return pipeline
  })
  let done = 0
  const tell = () => onCompile({ program: program.name, pipelines: done++, totalPipelines: wanted.size })
  if (wanted.size > 0) tell()
  for (const pipeline of wanted) pipeline.then(tell, () => {})
  const ready = await Promise.all(made)
  const dispatches = calls.map((call, i) => ({ ...ready[i], ...places[i], work: workOf(call) }))
  return { program, memory, dispatches, words, groups: null, steps: null }
}

/** The program's buffers as its pipelines see them. */
export function bindGroups(device: GPUDevice, compiled: Compiled, shared: Shared): readonly GPUBindGroup[] {
  if (compiled.groups?.shared === shared) return compiled.groups.all
  const all = compiled.dispatches.map(({ layout, buffers }) =>
    device.createBindGroup({
      layout,
      entries: [
        { binding: 0, resource: { buffer: shared.params!, size: uniformAlignment } },
        ...buffers.map((buffer, b) => {
          const own = typeof buffer === 'number' ? shared.buffers[buffer] : buffer
          return { binding: b + 1, resource: { buffer: own } }
        }),
      ],
    }),
  )
  compiled.groups = { shared, all }
  return all
}
