import { type DeviceMemory, usage } from './memory.ts'

/** Bytes: what the default limits promise for offsets of uniform buffers. */
export const uniformAlignment = 256

/** What programs use together: they run one after the other, and keep nothing in it. */
export interface Shared {
  /** Scratch; all buffers but the last are as large as they may be. */
  readonly buffers: readonly GPUBuffer[]
  readonly bytes: number
  /** The numbers of the program that runs. */
  readonly params: GPUBuffer | null
}

/** What one program needs of it. */
export interface Needs {
  readonly memory: { readonly arenaBytes: number }
  /** The numbers of its dispatches. */
  readonly words: Uint32Array<ArrayBuffer>
}

const nothing: Shared = { buffers: [], bytes: 0, params: null }

/** Scratch and numbers, as large as the largest program needs them. */
export class Arena {
  /** Another one whenever a buffer changes. */
  shared = nothing
  private readonly memory: DeviceMemory
  /** Bytes of one buffer, at most. */
  private readonly limit: number
  private readonly programs = new Set<Needs>()
  /** Whose numbers are in the shared params. */
  private loaded: Needs | null = null

  constructor(memory: DeviceMemory, limit: number) {
    this.memory = memory
    this.limit = limit
  }

  /** Throws MemoryError, and is empty then: what is needed is made again for the next that runs. */
  async add(program: Needs): Promise<void> {
    await this.grow(program)
    this.programs.add(program)
  }

  async remove(program: Needs): Promise<void> {
    this.programs.delete(program)
    if (this.loaded === program) this.loaded = null
    const { arena, params } = largest([...this.programs])
    if (arena < this.shared.bytes || params < (this.shared.params?.size ?? 0)) await this.resize(arena, params)
  }

  /** Room for a program, and its numbers in place. */
  async load(program: Needs): Promise<void> {
    await this.grow(program)
    if (this.loaded !== program) this.memory.write(this.shared.params!, 0, new Uint8Array(program.words.buffer))
    this.loaded = program
  }

  /** The buffer that byte `offset` of the arena is in, and its place there. */
  at(offset: number): [buffer: GPUBuffer, offset: number] {
    return [this.shared.buffers[Math.floor(offset / this.limit)], offset % this.limit]
  }

  private async grow({ memory, words }: Needs): Promise<void> {
    const [arena, params] = [this.shared.bytes, this.shared.params?.size ?? 0]
    if (arena < memory.arenaBytes || params < words.byteLength)
      await this.resize(Math.max(arena, memory.arenaBytes), Math.max(params, words.byteLength))
  }

  /** What there was goes first: it holds nothing, and both together might not fit. */
  private async resize(arenaBytes: number, paramsBytes: number): Promise<void> {
    const { shared, memory, limit } = this
    const sizes = Array.from({ length: Math.ceil(arenaBytes / limit) }, (_, i) =>
      Math.min(limit, arenaBytes - i * limit),
    )
    const fits = (buffer: GPUBuffer | null | undefined, size: number | undefined) => buffer?.size === size
    const all = [
      ...shared.buffers.map((buffer, i) => [buffer, sizes[i]] as const),
      [shared.params, paramsBytes] as const,
    ]
    for (const [buffer, size] of all) if (buffer && !fits(buffer, size)) memory.free(buffer)
    ;[this.shared, this.loaded] = [nothing, null]
    const buffers = sizes.map((size, i) =>
      fits(shared.buffers[i], size) ? shared.buffers[i] : memory.allocate(size, 'scratch of programs'),
    )
    const params = fits(shared.params, paramsBytes)
      ? shared.params
      : paramsBytes === 0
        ? null
        : memory.allocate(paramsBytes, 'numbers of programs', usage.uniform | usage.copyTarget)
    try {
      await memory.settled()
    } catch (error) {
      for (const buffer of [...buffers, ...(params ? [params] : [])]) memory.free(buffer)
      throw error
    }
    this.shared = { buffers, bytes: arenaBytes, params }
  }
}

/** Bytes of the numbers of so many dispatches. */
export const paramsBytes = (dispatches: number): number => Math.max(1, dispatches) * uniformAlignment

const largest = (programs: readonly Needs[]): { arena: number; params: number } => ({
  arena: Math.max(0, ...programs.map(({ memory }) => memory.arenaBytes)),
  params: Math.max(0, ...programs.map(({ words }) => words.byteLength)),
})
