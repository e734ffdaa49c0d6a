import { stripVTControlCharacters } from 'node:util'
import type { ProgressStream } from './progress.ts'

/** Lines at the end of a terminal that are drawn over again and again. */
export class LiveBlock {
  private readonly stream: ProgressStream
  private height = 0

  constructor(stream: ProgressStream = process.stderr) {
    this.stream = stream
  }

  draw(lines: readonly string[]): void {
    const width = (this.stream.columns || 80) - 1
    this.stream.write(`${this.up()}\r\x1b[K${lines.map((line) => `${cut(line, width)}\n`).join('')}`)
    this.height = lines.length
  }

  /** Wipes it. */
  clear(): void {
    this.stream.write(this.up())
    this.height = 0
  }

  private up(): string {
    return this.height > 0 ? `\x1b[${this.height}A\x1b[J` : ''
  }
}

const cut = (line: string, width: number): string => {
  const plain = stripVTControlCharacters(line).replace(/\s+$/, '')
  return plain.length > width ? `${plain.slice(0, width - 1)}…` : plain
}
