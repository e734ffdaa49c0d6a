import type { ProgramGraph } from './graph.ts'
import { type Memory, partOf } from './memory.ts'
import { type BoundType, bytesOf, elementTypes, type ValueType } from './model.ts'
import type { Ort, Pointer } from './ort/api.ts'

/** What all sessions of a target share. */
export interface Host {
  readonly ort: Ort
  readonly threads: number
  readonly env: Pointer
  /** Memory of the CPU, one arena of it. */
  readonly place: Pointer
  /** Weights as onnxruntime packs them, once for all sessions. */
  readonly packed: Pointer
}

/** Zero points in the middle of codes of 8 and 4 bits; the largest that was asked for serves all. */
const halves = { u8: 0x80, u4: 0x88 }
const zeroPoints = new Map<string, ArrayBuffer>()
function zeroPointsOf(type: 'u8' | 'u4', bytes: number): ArrayBuffer {
  const known = zeroPoints.get(type)
  if (known && known.byteLength >= bytes) return known
  const made = new Uint8Array(bytes).fill(halves[type]).buffer
  zeroPoints.set(type, made)
  return made
}

const makesSession = 'CreateSessionFromArrayWithPrepackedWeightsContainer'

/** A graph that runs on bound memory: states in place, inputs and outputs in memory of its own. */
export class Session {
  private readonly host: Host
  private readonly what: string
  private readonly releases: (() => void)[] = []
  /** By tensor. */
  private readonly inputs = new Map<number, ArrayBuffer>()
  private readonly outputs = new Map<number, ArrayBuffer>()
  /** What onnxruntime packed, and of which write. */
  private readonly packed: (readonly [Memory, version: number])[]
  private pointer: Pointer
  private binding: Pointer
  private options: Pointer

  private constructor(host: Host, what: string, packed: readonly Memory[]) {
    this.host = host
    this.what = what
    this.packed = packed.map((memory) => [memory, memory.version])
  }

  /** Throws DeviceError that names the program, and the node where one is at fault; nothing is left behind then. */
  static async open(
    host: Host,
    what: string,
    graph: ProgramGraph,
    bound: Readonly<Record<string, Memory>>,
  ): Promise<Session> {
    const packed = new Set([...graph.initializers.values()].map(({ source }) => bound[source!.bound]))
    const session = new Session(host, what, [...packed])
    try {
      await session.load(graph, bound)
      session.bind(graph, bound)
      return session
    } catch (error) {
      session.free()
      throw error
    }
  }

  get isOutdated(): boolean {
    return this.packed.some(([memory, version]) => memory.version !== version)
  }

  /** Nothing where no node reads the input. */
  give(tensor: number, bytes: Uint8Array): void {
    const memory = this.inputs.get(tensor)
    if (memory) new Uint8Array(memory).set(bytes)
  }

  output(tensor: number): Uint8Array {
    return new Uint8Array(this.outputs.get(tensor)!)
  }

  async run(): Promise<void> {
    await this.host.ort.callAside('RunWithBinding', this.what, this.pointer, this.options, this.binding)
  }

  /** A run under way fails, and all others until `renew`. */
  abort(): void {
    this.host.ort.call('RunOptionsSetTerminate', this.what, this.options)
  }
  renew(): void {
    this.host.ort.call('RunOptionsUnsetTerminate', this.what, this.options)
  }

  free(): void {
    for (const release of this.releases.splice(0).reverse()) release()
  }

  private async load(graph: ProgramGraph, bound: Readonly<Record<string, Memory>>): Promise<void> {
    const { ort, env, threads, packed } = this.host
    const { what } = this
    const options = ort.make('CreateSessionOptions', what)
    try {
      ort.call('DisableMemPattern', what, options)
      ort.call('SetSessionGraphOptimizationLevel', what, options, 0)
      ort.call('SetIntraOpNumThreads', what, options, threads)
      ort.call('AddSessionConfigEntry', what, options, 'session.use_env_allocators', '1')
      // Threads of a session that rests would keep others from computing.
      ort.call('AddSessionConfigEntry', what, options, 'session.force_spinning_stop', '1')
      const names = [...graph.initializers.keys()]
      const values = names.map((name) => this.boundValue(graph.initializers.get(name)!, bound))
      if (names.length > 0) ort.call('AddExternalInitializers', what, options, names, values, names.length)
      // Those that are added by name too are packed for all sessions.
      for (const [i, name] of names.entries()) ort.call('AddInitializer', what, options, name, values[i])
      const pointer = await ort.makeAside(makesSession, what, env, graph.model, graph.model.length, options, packed)
      this.releases.push(() => ort.release(makesSession, 'ReleaseSession', pointer))
      this.pointer = pointer
      ort.giveBack()
    } finally {
      ort.release('CreateSessionOptions', 'ReleaseSessionOptions', options)
    }
  }

  private bind(graph: ProgramGraph, bound: Readonly<Record<string, Memory>>): void {
    const { ort } = this.host
    this.binding = this.make('CreateIoBinding', 'ReleaseIoBinding', this.pointer)
    this.options = this.make('CreateRunOptions', 'ReleaseRunOptions')
    const call = (name: 'BindInput' | 'BindOutput', value: string, pointer: Pointer) =>
      ort.call(name, `${this.what}: ${value}`, this.binding, value, pointer)
    const tensorOf = new Map([...graph.given].map(([id, value]) => [value, id]))
    for (const [name, value] of graph.inputs) {
      if (value.source) call('BindInput', name, this.boundValue(value, bound))
      else {
        const data = new ArrayBuffer(bytesOf(value))
        this.inputs.set(tensorOf.get(name)!, data)
        call('BindInput', name, this.value(data, 0, value))
      }
    }
    const made = new Map<string, ArrayBuffer>()
    for (const [name, value] of graph.outputs) {
      const state = graph.states.get(name)
      made.set(name, state === undefined ? new ArrayBuffer(bytesOf(value)) : bound[state].parts.values!)
      call('BindOutput', name, this.value(made.get(name)!, 0, value))
    }
    for (const [id, value] of graph.asked) this.outputs.set(id, made.get(value)!)
  }

  private boundValue(value: BoundType, bound: Readonly<Record<string, Memory>>): Pointer {
    const { bound: name, part, row } = value.source!
    if (part === 'halves') return this.value(zeroPointsOf(value.type as 'u8' | 'u4', bytesOf(value)), 0, value)
    const ofRow = bytesOf({ ...value, shape: [1, ...value.shape.slice(1)] })
    return this.value(partOf(bound[name], part), row * ofRow, value)
  }

  private value(data: ArrayBuffer, from: number, type: ValueType): Pointer {
    const bytes = bytesOf(type)
    const view = new Uint8Array(data, from, bytes)
    const shape = [...type.shape]
    const rest = [view, bytes, shape, shape.length, elementTypes[type.type]]
    return this.make('CreateTensorWithDataAsOrtValue', 'ReleaseValue', this.host.place, ...rest)
  }

  private make(name: Parameters<Ort['make']>[0], release: Parameters<Ort['release']>[1], ...args: unknown[]): Pointer {
    const { ort } = this.host
    const pointer = ort.make(name, this.what, ...args)
    this.releases.push(() => ort.release(name, release, pointer))
    return pointer
  }
}
