/** What is used of Node's file handles. */
export interface FileHandle {
  read(bytes: Uint8Array, offset: number, length: number, position: number): Promise<{ bytesRead: number }>
  write(bytes: Uint8Array, offset: number, length: number, position: number): Promise<{ bytesWritten: number }>
  /** At the end of what was written. */
  writeFile(chunk: Uint8Array): Promise<void>
  stat(): Promise<FileStats>
  truncate(bytes: number): Promise<void>
  sync(): Promise<void>
  close(): Promise<void>
}

/** Reading, at the end, within; new files with x. */
export type OpenFlags = 'r' | 'a' | 'r+' | 'wx' | 'wx+'

export interface FileStats {
  readonly size: number
  readonly mtimeMs: number
  isFile(): boolean
  isDirectory(): boolean
}

/** What is used of node:fs/promises where a browser has to have it too. */
export interface FileSystem {
  open(path: string, flags: OpenFlags): Promise<FileHandle>
  readFile(path: string, encoding: 'utf8'): Promise<string>
  appendFile(path: string, text: string): Promise<void>
  access(path: string): Promise<void>
  stat(path: string): Promise<FileStats>
  lstat(path: string): Promise<FileStats>
  readdir(path: string, options?: { recursive: boolean }): Promise<string[]>
  mkdir(path: string, options?: { recursive: true }): Promise<string | undefined>
  /** Of a file, in place of an older one. */
  rename(from: string, to: string): Promise<void>
  rm(path: string, options?: { recursive?: boolean; force?: boolean }): Promise<void>
}

export const inNode = typeof process !== 'undefined' && process.versions?.node !== undefined

/** The path of something below a folder. */
export const join = (folder: string, ...below: string[]): string =>
  [folder.replace(/(?<=.)\/$/, ''), ...below].join('/')

export const dirname = (path: string): string => path.replace(/\/[^/]*$/, '')

/** Node's files, or those that a browser keeps for the page's origin. */
export const fileSystem = (): Promise<FileSystem> => (inNode ? import('node:fs/promises') : import('./opfs.ts'))
