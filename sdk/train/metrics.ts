import { writeError } from '../formats/node-file.ts'

/** One line of metrics.jsonl; trainers add metrics of their own. */
export type MetricsLine =
  | {
      readonly step: number
      readonly epoch: number
      readonly loss: number
      /** Global norm of the gradients before clipping. */
      readonly gradNorm: number
      readonly learningRate: number
      /** Tokens seen since the start of the run. */
      readonly tokens: number
      readonly tokensPerSecond: number
    }
  | { readonly step: number; readonly evalLoss: number }

/** metrics.jsonl of a run: every line is on disk before the next step starts. */
export class MetricsFile {
  private readonly path: string
  bytes = 0

  constructor(path: string) {
    this.path = path
  }

  /** Makes the folder and cuts the file to what was known at a checkpoint (0: a fresh run). Throws HalflingError of code 'io'. */
  async open(bytes: number): Promise<void> {
    const fs = await import('node:fs/promises')
    const { dirname } = await import('node:path')
    try {
      await fs.mkdir(dirname(this.path), { recursive: true })
      const handle = await fs.open(this.path, 'a')
      try {
        // One that was deleted meanwhile begins anew.
        this.bytes = Math.min(bytes, (await handle.stat()).size)
        await handle.truncate(this.bytes)
      } finally {
        await handle.close()
      }
    } catch (cause) {
      throw writeError(this.path, cause)
    }
  }

  async append(line: MetricsLine): Promise<void> {
    const fs = await import('node:fs/promises')
    const text = `${JSON.stringify(line)}\n`
    try {
      await fs.appendFile(this.path, text)
    } catch (cause) {
      throw writeError(this.path, cause)
    }
    this.bytes += new TextEncoder().encode(text).length
  }
}
