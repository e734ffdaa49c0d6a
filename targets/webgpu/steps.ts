import { byteLength } from '../../sdk/dtype.ts'
import type { ProgramTensor } from '../../sdk/graph/program.ts'
import type { Job } from '../checks.ts'
import type { Range } from './memory.ts'
import type { Submits } from './submits.ts'

/**
 * Where the inputs and outputs of a run of several steps lie: in one buffer, first the inputs (one that is carried has room for the next
 * step alone), then the collected outputs, the steps of each one after the other. Each step begins with copies of its inputs into the
 * arena and ends with copies of what is kept out of it.
 */
export class StepLayout {
  readonly bytes: number
  private readonly job: Job
  private readonly inputs: { tensor: ProgramTensor; at: number; isSliced: boolean; bytes: Uint8Array<ArrayBuffer> }[]
  private readonly outputs: { tensor: ProgramTensor; at: number }[]

  constructor(job: Job) {
    let end = 0
    const place = (bytes: number) => {
      const at = end
      end += bytes
      return at
    }
    this.job = job
    this.inputs = job.inputs.map((input) => ({ ...input, at: place(input.bytes.byteLength) }))
    this.outputs = job.collect.map(({ tensor }) => ({ tensor, at: place(job.steps * byteLength(tensor)) }))
    this.bytes = end
  }

  write(queue: GPUQueue, buffer: GPUBuffer): void {
    for (const { at, bytes } of this.inputs) queue.writeBuffer(buffer, at, bytes)
  }

  /** `where`: a tensor's buffer of the arena and its place there. */
  begin(step: number, buffer: GPUBuffer, where: (t: ProgramTensor) => [GPUBuffer, number], submits: Submits): void {
    for (const { tensor, at, isSliced } of this.inputs) {
      const bytes = byteLength(tensor)
      submits.copy(buffer, at + (isSliced ? step * bytes : 0), ...where(tensor), bytes)
    }
  }

  /** What is carried goes by way of the buffer: in the arena an input may lie where another output is. */
  end(step: number, buffer: GPUBuffer, where: (t: ProgramTensor) => [GPUBuffer, number], submits: Submits): void {
    for (const { tensor, at } of this.outputs) {
      const bytes = byteLength(tensor)
      submits.copy(...where(tensor), buffer, at + step * bytes, bytes)
    }
    if (step === this.job.steps - 1) return
    for (const { from, to } of this.job.carry) {
      const { at } = this.inputs.find(({ tensor }) => tensor === to)!
      submits.copy(...where(from), buffer, at, byteLength(from))
    }
  }

  results(buffer: GPUBuffer): Range[] {
    return this.outputs.map(({ tensor, at }) => [buffer, at, this.job.steps * byteLength(tensor)])
  }
}
