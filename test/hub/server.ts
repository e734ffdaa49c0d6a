import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

// A hub on this machine: the answers of huggingface.co that a download meets, and its bad days.

export interface Asked {
  readonly path: string
  readonly range: string | undefined
  readonly authorization: string | undefined
  readonly ifRange: string | undefined
}

/** What a test may do to an answer; true: it has answered. */
export type Trouble = (request: IncomingMessage, response: ServerResponse, path: string) => boolean | undefined

export interface Hub {
  readonly url: string
  readonly asked: Asked[]
  /** Below /cdn/, by file: what was asked of the place where large files come from. */
  downloads(): Asked[]
  /** Set by tests. */
  trouble: Trouble | null
  /** Changes the listing before it is told. */
  edit: ((entries: Record<string, unknown>[]) => Record<string, unknown>[]) | null
  close(): Promise<void>
}

export interface HubRepo {
  readonly commit: string
  readonly files: Readonly<Record<string, Uint8Array>>
}

export const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text)

export const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

export const gitHash = (bytes: Uint8Array): string =>
  createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex')

/** Files of these kinds are kept apart, as with LFS. */
const isLarge = (path: string): boolean => /\.(safetensors|gguf|parquet)$/.test(path)

/** @param repos by 'models/org/name' or 'datasets/org/name' */
export async function startHub(repos: Readonly<Record<string, HubRepo>>): Promise<Hub> {
  const asked: Asked[] = []
  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url ?? '/', 'http://hub').pathname)
    const { range, authorization } = request.headers
    asked.push({ path, range, authorization, ifRange: request.headers['if-range'] as string | undefined })
    response.on('error', () => {})
    if (hub.trouble?.(request, response, path)) return
    answer(request, response, path)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const hub: Hub = {
    url,
    asked,
    downloads: () => asked.filter(({ path }) => path.startsWith('/cdn/')),
    trouble: null,
    edit: null,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }

  function answer(request: IncomingMessage, response: ServerResponse, path: string): unknown {
    const api = /^\/api\/(models|datasets)\/([^/]+\/[^/]+)\/(revision|tree)\/(.+)$/.exec(path)
    if (api) {
      const repo = repos[`${api[1]}/${api[2]}`]
      if (!repo) return refuse(response, 401, 'RepoNotFound')
      if (!['main', 'HEAD', 'v1', 'refs/pr/1', repo.commit].includes(api[4]))
        return refuse(response, 404, 'RevisionNotFound')
      if (api[3] === 'revision')
        return json(response, {
          _id: 'x',
          id: api[2],
          sha: repo.commit,
          lastModified: '2026-11-01T00:00:00.000Z',
          siblings: Object.keys(repo.files).map((rfilename) => ({ rfilename })),
        })
      const entries = listing(repo)
      return json(response, hub.edit ? hub.edit(entries) : entries)
    }
    const resolve = /^\/(datasets\/)?([^/]+\/[^/]+)\/resolve\/([0-9a-f]{40})\/(.+)$/.exec(path)
    const repo = resolve && repos[`${resolve[1] ?? 'models/'}${resolve[2]}`]
    const bytes = repo?.commit === resolve?.[3] ? repo?.files[resolve?.[4] ?? ''] : undefined
    if (resolve && bytes) {
      if (!isLarge(path)) {
        response.setHeader('x-repo-commit', resolve[3])
        return send(request, response, bytes, `"${gitHash(bytes)}"`)
      }
      response.writeHead(302, {
        // Another host than the hub, as a CDN is.
        location: `${url.replace('127.0.0.1', 'localhost')}/cdn/${sha256(bytes)}`,
        'x-repo-commit': resolve[3],
        'x-linked-etag': `"${sha256(bytes)}"`,
        'x-linked-size': bytes.length,
      })
      return response.end()
    }
    const files = Object.values(repos).flatMap((each) => Object.values(each.files))
    const stored = path.startsWith('/cdn/') && files.find((file) => path === `/cdn/${sha256(file)}`)
    if (stored) return send(request, response, stored, `"${sha256(stored)}"`)
    refuse(response, 404, 'EntryNotFound')
  }
  return hub
}

export function listing({ files }: HubRepo): Record<string, unknown>[] {
  return Object.entries(files).map(([path, bytes]) => ({
    type: 'file',
    path,
    size: bytes.length,
    oid: gitHash(bytes),
    ...(isLarge(path) && { lfs: { oid: sha256(bytes), size: bytes.length, pointerSize: 134 } }),
  }))
}

/** Bytes, or the range of them that is asked for while If-Range agrees. */
export function send(request: IncomingMessage, response: ServerResponse, bytes: Uint8Array, etag: string): unknown {
  const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? Number.NaN)
  const condition = request.headers['if-range']
  const headers = { etag, 'accept-ranges': 'bytes' }
  if (Number.isNaN(start) || (condition && condition !== etag)) {
    response.writeHead(200, { ...headers, 'content-length': bytes.length })
    return response.end(bytes)
  }
  if (start >= bytes.length) return response.writeHead(416).end()
  const range = `bytes ${start}-${bytes.length - 1}/${bytes.length}`
  response.writeHead(206, { ...headers, 'content-length': bytes.length - start, 'content-range': range })
  response.end(bytes.subarray(start))
}

/** Announces all of it, sends `sent` bytes, and drops the connection. */
export function cut(response: ServerResponse, bytes: Uint8Array, sent: number, etag = '"x"'): void {
  response.writeHead(200, { etag, 'content-length': bytes.length })
  response.write(bytes.subarray(0, sent), () => setTimeout(() => response.destroy(), 500))
}

export function refuse(
  response: ServerResponse,
  status: number,
  code: string,
  headers: Record<string, string> = {},
): void {
  response.writeHead(status, { 'x-error-code': code, 'content-type': 'application/json', ...headers })
  response.end(JSON.stringify({ error: code }))
}

function json(response: ServerResponse, value: unknown): void {
  response.writeHead(200, { 'content-type': 'application/json' })
  response.end(JSON.stringify(value))
}
