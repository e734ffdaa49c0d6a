import * as opfs from './opfs.ts'

/** What we use of node:fs/promises, with its meaning and its error codes. */
export interface FileSystem {
  open(path: string, flags: 'r' | 'r+' | 'wx' | 'a'): Promise<FileHandle>
  stat(path: string): Promise<FileStat>
  /** Of a link itself. */
  lstat(path: string): Promise<FileStat>
  statfs(path: string): Promise<{ readonly bavail: number; readonly bsize: number }>
  access(path: string): Promise<void>
  readFile(path: string, encoding: 'utf8'): Promise<string>
  appendFile(path: string, text: string): Promise<void>
  mkdir(path: string, options?: { recursive?: boolean }): Promise<unknown>
  mkdtemp(prefix: string): Promise<string>
  chmod(path: string, mode: number): Promise<void>
  readdir(path: string, options?: { recursive?: boolean }): Promise<string[]>
  readdir(path: string, options: { withFileTypes: true }): Promise<FileEntry[]>
  rename(from: string, to: string): Promise<void>
  symlink(target: string, path: string): Promise<void>
  rm(path: string, options?: { recursive?: boolean; force?: boolean }): Promise<void>
}

export interface FileStat {
  /** Bytes. */
  readonly size: number
  readonly mtimeMs: number
  isFile(): boolean
  isDirectory(): boolean
}

export interface FileEntry {
  readonly name: string
  isFile(): boolean
  isDirectory(): boolean
}

export interface FileHandle {
  stat(): Promise<FileStat>
  read(buffer: Uint8Array, offset: number, length: number, position: number): Promise<{ bytesRead: number }>
  write(buffer: Uint8Array, offset: number, length: number, position: number): Promise<{ bytesWritten: number }>
  /** Behind what this handle wrote before. */
  writeFile(bytes: Uint8Array): Promise<void>
  truncate(size: number): Promise<void>
  sync(): Promise<void>
  close(): Promise<void>
}

export const isNode: boolean = typeof globalThis.process?.versions?.node === 'string'

/** Files of the disk in Node, of the origin private file system in a browser. */
export const fileSystem = (): Promise<FileSystem> =>
  isNode ? (import('node:fs/promises') as Promise<FileSystem>) : Promise.resolve(opfs)

/** With slashes, which every system takes. */
export const join = (...parts: string[]): string =>
  parts
    .filter((part) => part !== '')
    .map((part, i) => (i === 0 ? part.replace(/(?<=.)\/+$/, '') : part))
    .join('/')
    .replace(/^\/\/(?=[^/])/, '/')

const lastPart = globalThis.process?.platform === 'win32' ? /[\\/]+[^\\/]*[\\/]*$/ : /\/+[^/]*\/*$/

/** The folder that something lies in. */
export const dirname = (path: string): string => {
  const folder = path.replace(lastPart, '')
  return folder === path ? '.' : folder || '/'
}

/** An absolute path in Node. In a browser all paths begin at the same place. */
export const resolve = async (path: string): Promise<string> =>
  isNode ? (await import('node:path')).resolve(path) : opfs.plain(path)
