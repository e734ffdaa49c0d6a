import type { Chunks, Files } from './store.ts'

/** With slashes, which every system takes. */
export const join = (...parts: string[]): string =>
  parts
    .filter((part) => part !== '')
    .map((part, i) => (i === 0 ? part.replace(/(?<=.)\/+$/, '') : part))
    .join('/')
    .replace(/^\/\/(?=[^/])/, '/')

/** The parts of a path below a root, without '.', '..' and slashes that say nothing. */
export function partsOf(path: string): string[] {
  const parts: string[] = []
  for (const part of path.split('/')) {
    if (part === '..') parts.pop()
    else if (part !== '' && part !== '.') parts.push(part)
  }
  return parts
}

/** Is it what a folder holds, or a file? */
export const isFolder = (content: Chunks | Files): content is Files => content instanceof Map
