import { byteLength } from '../../sdk/dtype.ts'
import type { ProgramTensor } from '../../sdk/graph/program.ts'
import type { Job } from '../checks.ts'
import type { Arena } from './arena.ts'
import { bindGroups, type Compiled } from './compile.ts'
import { type DeviceMemory, usage } from './memory.ts'
import { StepLayout } from './steps.ts'
import type { Submits } from './submits.ts'

/** Runs a program that is loaded into the arena. What comes back is read once, after the last step. */
export async function runProgram(
  device: GPUDevice,
  memory: DeviceMemory,
  arena: Arena,
  compiled: Compiled,
  job: Job,
  submits: Submits,
): Promise<ArrayBuffer[]> {
  const groups = bindGroups(device, compiled, arena.shared)
  const where = ({ id }: ProgramTensor) => arena.at((compiled.memory.locations[id] as { offset: number }).offset)
  const step = async () => {
    for (const [i, dispatch] of compiled.dispatches.entries()) await submits.add(dispatch, groups[i], i)
  }
  if (job.steps === 1) {
    for (const { tensor, bytes } of job.inputs) device.queue.writeBuffer(...where(tensor), bytes)
    await step()
    await submits.flush()
    return memory.read(job.collect.map(({ tensor }) => [...where(tensor), byteLength(tensor)]))
  }
  const layout = new StepLayout(job)
  const buffer = await stepBuffer(memory, compiled, layout.bytes)
  layout.write(device.queue, buffer)
  for (let s = 0; s < job.steps; s++) {
    layout.begin(s, buffer, where, submits)
    await step()
    layout.end(s, buffer, where, submits)
  }
  await submits.flush()
  return memory.read(layout.results(buffer))
}

/** Beside the scratch that a program needs for one step: made for its first run of several, kept until it is freed. */
async function stepBuffer(memory: DeviceMemory, compiled: Compiled, bytes: number): Promise<GPUBuffer> {
  if (compiled.steps && compiled.steps.size >= bytes) return compiled.steps
  if (compiled.steps) memory.free(compiled.steps)
  compiled.steps = null
  const made = memory.allocate(
    bytes,
    `inputs and outputs of several steps of ${compiled.program.name}`,
    usage.copySource | usage.copyTarget,
  )
  try {
    await memory.settled()
  } catch (error) {
    memory.free(made)
    throw error
  }
  compiled.steps = made
  return made
}
