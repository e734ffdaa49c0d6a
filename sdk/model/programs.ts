import type { Graph } from '../graph/graph.ts'
import type { Buffer, Executable } from '../target.ts'
import type { Model } from './model.ts'

/** Compiled Programs by key (their shapes), dropped when the buffers that they are bound to went away. */
export class Programs {
  private readonly model: Model
  private readonly executables = new Map<string, Promise<Executable>>()
  private version: number

  constructor(model: Model) {
    this.model = model
    this.version = model.version
  }

  /** The Program under `key`; `bound` overrides the model's own buffers. */
  get(key: string, build: (g: Graph) => void, bound?: Readonly<Record<string, Buffer>>): Promise<Executable> {
    if (this.version !== this.model.version) {
      this.clear()
      this.version = this.model.version
    }
    let executable = this.executables.get(key)
    if (!executable) {
      executable = this.model.compile(key, build, bound)
      this.executables.set(key, executable)
      executable.catch(() => this.executables.delete(key))
    }
    return executable
  }

  clear(): void {
    for (const executable of this.executables.values())
      executable.then(
        (e) => e.free(),
        () => {},
      )
    this.executables.clear()
  }
}
