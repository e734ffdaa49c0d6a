import { readdirSync, readFileSync } from 'node:fs'

export interface Block {
  readonly document: string
  /** Of the first line of code, from 1. */
  readonly line: number
  /** What follows the fence: `ts`, `ts sdk/ops/swiglu.ts`. Of an indented block null. */
  readonly info: string | null
  readonly code: string
}

export const documents = (): string[] => [
  'README.md',
  ...readdirSync('docs')
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
]

/** The fenced and the indented code blocks of a document. Throws where a fence is never closed. */
export function blocksOf(document: string): Block[] {
  const lines = readFileSync(document, 'utf8').split('\n')
  const blocks: Block[] = []
  for (let i = 0; i < lines.length; i++) {
    const fence = /^(\s*)```(.*)$/.exec(lines[i])
    if (fence) {
      const end = lines.findIndex((line, at) => at > i && line.trim() === '```')
      if (end < 0) throw new Error(`${document}:${i + 1}: this fence is never closed`)
      const code = lines.slice(i + 1, end).map((line) => line.slice(fence[1].length))
      blocks.push({ document, line: i + 2, info: fence[2].trim(), code: code.join('\n') })
      i = end
    } else if (/^ {4}\S/.test(lines[i]) && (lines[i - 1] ?? '').trim() === '') {
      let end = i
      while (end < lines.length && /^( {4}.*|\s*)$/.test(lines[end])) end++
      const code = lines.slice(i, end).map((line) => line.slice(4))
      blocks.push({ document, line: i + 1, info: null, code: code.join('\n').trimEnd() })
      i = end - 1
    }
  }
  return blocks
}
