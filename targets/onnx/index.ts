import { totalmem } from 'node:os'
import { byteLength } from '../../sdk/dtype.ts'
import { DeviceError } from '../../sdk/errors.ts'
import { type MemoryPlan, type Program, planMemory } from '../../sdk/graph/program.ts'
import type { DeviceInfo, Target } from '../../sdk/target.ts'
import type { Job } from '../checks.ts'
import { defaultThreads, processorName } from '../machine.ts'
import { type Executor, QueuedTarget } from '../queued-target.ts'
import { checkThreads } from '../threads.ts'
import { graphOf, type ProgramGraph, sessionBytes } from './graph.ts'
import { copySlots } from './lower/decode.ts'
import { lowering } from './lower/index.ts'
import { allocate, type Memory, read, write } from './memory.ts'
import { Ort } from './ort/api.ts'
import { findLibrary } from './ort/library.ts'
import { type Host, Session } from './session.ts'

/** A feature of libraries that are newer than any that was tried. */
export const untested = 'untested version'

export interface OnnxOptions {
  /** Default: HALFLING_THREADS, else the cores, 8 at most. */
  readonly threads?: number
}

/** Programs as ONNX graphs on onnxruntime's CPU provider. Throws DeviceError where its library or koffi is missing, or too old. */
export async function onnxTarget({ threads }: OnnxOptions = {}): Promise<Target> {
  if (threads !== undefined) checkThreads(threads, 'threads')
  const ort = await Ort.open(findLibrary())
  return new QueuedTarget(new OnnxExecutor(ort, threads ?? defaultThreads()))
}

/** A program's session; none of a program that only copies slots. */
interface Compiled {
  readonly program: Program
  readonly memory: MemoryPlan
  readonly bound: Readonly<Record<string, Memory>>
  readonly graph: ProgramGraph | null
  session: Session | null
}

class OnnxExecutor implements Executor<Memory, Compiled> {
  readonly name = 'cpu'
  readonly info: DeviceInfo
  private readonly host: Host
  private readonly opened = new Set<Compiled>()
  private closed = false

  constructor(ort: Ort, threads: number) {
    const env = ort.make('CreateEnv', 'onnxruntime', 4, 'halfling')
    const place = ort.make('CreateCpuMemoryInfo', 'onnxruntime', 1, 0)
    // By what is asked for, not by powers of two.
    const arena = ort.make('CreateArenaCfgV2', 'onnxruntime', ['arena_extend_strategy'], [1], 1)
    ort.call('CreateAndRegisterAllocator', 'onnxruntime', env, place, arena)
    ort.release('CreateArenaCfgV2', 'ReleaseArenaCfg', arena)
    this.host = { ort, threads, env, place, packed: ort.make('CreatePrepackedWeightsContainer', 'onnxruntime') }
    const description = `onnxruntime ${ort.version}, ${processorName()}`
    this.info = { description, threads, memoryLimit: totalmem(), features: ort.isUntested ? [untested] : [] }
  }

  supports(op: string): true | string {
    return op === 'kvCopy' || Object.hasOwn(lowering, op) ? true : `cpu has no lowering of ${op}`
  }

  allocate = allocate
  /** Arrays are the garbage collector's. */
  release(): void {}
  write = write
  read = read

  scratchBytes(programs: readonly Program[]): number {
    return sessionBytes(programs.filter(({ nodes }) => nodes.some(({ op }) => op !== 'kvCopy')))
  }

  async compile(program: Program, bound: Readonly<Record<string, Memory>>): Promise<Compiled> {
    const copies = program.nodes.every(({ op }) => op === 'kvCopy')
    const graph = copies ? null : graphOf(program)
    const compiled: Compiled = { program, bound, memory: planMemory(program), graph, session: null }
    if (graph) await this.open(compiled, graph)
    return compiled
  }

  unload(compiled: Compiled): void {
    this.opened.delete(compiled)
    compiled.session?.free()
    compiled.session = null
  }

  async close(idle: Promise<void>): Promise<void> {
    this.closed = true
    await idle
    for (const compiled of [...this.opened]) this.unload(compiled)
    const { ort, env, place, packed } = this.host
    ort.release('CreatePrepackedWeightsContainer', 'ReleasePrepackedWeightsContainer', packed)
    ort.release('CreateCpuMemoryInfo', 'ReleaseMemoryInfo', place)
    ort.release('CreateEnv', 'ReleaseEnv', env)
  }

  async run(compiled: Compiled, { steps, inputs, carry, collect, signal }: Job): Promise<ArrayBuffer[]> {
    const { program, graph } = compiled
    if (!graph) return this.copy(compiled, inputs)
    if (compiled.session?.isOutdated) this.unload(compiled)
    const session = compiled.session ?? (await this.open(compiled, graph))
    const outputs = collect.map(({ tensor }) => new Uint8Array(steps * byteLength(tensor)))
    const abort = () => session.abort()
    signal?.addEventListener('abort', abort)
    try {
      for (let s = 0; s < steps; s++) {
        for (const { tensor, bytes, isSliced } of inputs) {
          const size = byteLength(tensor)
          if (s === 0 || isSliced) session.give(tensor.id, isSliced ? bytes.subarray(s * size, (s + 1) * size) : bytes)
        }
        await session.run()
        signal?.throwIfAborted()
        if (this.closed) throw new DeviceError(`program ${program.name}: the target is closed`)
        for (const [i, { tensor }] of collect.entries())
          outputs[i].set(session.output(tensor.id), s * byteLength(tensor))
        for (const { from, to } of carry) session.give(to.id, session.output(from.id))
      }
    } catch (error) {
      signal?.throwIfAborted()
      throw error
    } finally {
      signal?.removeEventListener('abort', abort)
      if (signal?.aborted) session.renew()
    }
    return outputs.map(({ buffer }) => buffer)
  }

  private copy({ program, bound }: Compiled, inputs: Job['inputs']): ArrayBuffer[] {
    const numbers = new Map(inputs.map(({ tensor, bytes }) => [tensor.id, new Int32Array(bytes.buffer)]))
    for (const node of program.nodes) {
      const [cache, ...rest] = node.inputs
      const { name, shape } = program.tensors[cache]
      const [from, to, length] = rest.map((id) => numbers.get(id)!)
      copySlots(new Float32Array(bound[name].parts.values!), shape, from, to, length)
    }
    return []
  }

  private async open(compiled: Compiled, graph: ProgramGraph): Promise<Session> {
    const { program, bound } = compiled
    compiled.session = await Session.open(this.host, `program ${program.name}`, graph, bound)
    this.opened.add(compiled)
    return compiled.session
  }
}
