import { HubError } from '../errors.ts'
import type { Checksum } from './download.ts'
import { isSafePath, type Repo } from './names.ts'
import { chunksOf, networkError, refusal, request } from './request.ts'
import { endpoint } from './settings.ts'

export interface RepoFile {
  readonly path: string
  /** Bytes. */
  readonly size: number
  readonly checksum: Checksum
  /** Of the git blob: of large files that is only a pointer. */
  readonly blobId: string
}

/** What a repository holds at one commit. */
export interface Listing {
  readonly commit: string
  readonly files: readonly RepoFile[]
}

const [mostFiles, mostPages, mostBytes] = [100_000, 1000, 2 ** 26]

/** Asks the hub. Throws HubError also for a listing that no hub would give: paths that lead out of it, impossible sizes. */
export async function listRepo(repo: Repo, signal?: AbortSignal): Promise<Listing> {
  const { datasetInfo, listFiles, modelInfo } = await import('@huggingface/hub')
  const what = repo.id
  let pages = 0
  const checked = async (input: string | URL | Request): Promise<Response> => {
    const url = String(input)
    if (++pages > mostPages) throw new HubError(`${what}: a listing of more than ${mostPages} pages: refused`)
    const response = await request(what, url, { headers: { accept: 'application/json' }, signal })
    if (!response.ok) throw await refusal(what, url, response)
    return bounded(what, url, response, signal)
  }
  const shared = { hubUrl: endpoint(), fetch: checked as typeof fetch }
  const wrong = (why: string, cause?: unknown) =>
    new HubError(`${what}: ${endpoint()} does not answer like the hub (${why}): check HF_ENDPOINT`, { cause })
  try {
    const about = { ...shared, name: repo.id, revision: repo.revision, additionalFields: ['sha' as const] }
    const { sha } = repo.kind === 'model' ? await modelInfo(about) : await datasetInfo(about)
    if (!/^[0-9a-f]{40}$/.test(String(sha))) throw wrong('no commit')
    const files: RepoFile[] = []
    for await (const entry of listFiles({
      ...shared,
      repo: { type: repo.kind, name: repo.id },
      revision: sha,
      recursive: true,
    })) {
      if (entry.type !== 'file') continue
      files.push(checkedFile(what, entry))
      if (files.length > mostFiles) throw new HubError(`${what}: has more than ${mostFiles} files`)
    }
    return { commit: sha, files }
  } catch (error) {
    if (error instanceof HubError || signal?.aborted) throw error
    throw wrong((error as Error).message, error)
  }
}

function checkedFile(what: string, entry: unknown): RepoFile {
  const { path, size, oid, lfs } = entry as {
    path: unknown
    size: unknown
    oid: unknown
    lfs?: { oid: unknown; size: unknown }
  }
  if (typeof path !== 'string' || !isSafePath(path))
    throw new HubError(`${what}: lists a file ${JSON.stringify(path)?.slice(0, 100)}, which would lie outside: refused`)
  if (!Number.isSafeInteger(size) || (size as number) < 0 || (lfs && lfs.size !== size))
    throw new HubError(`${what}: ${path}: ${JSON.stringify(lfs?.size ?? size)} is not its size in bytes: refused`)
  const isHex = (value: unknown, digits: number): value is string =>
    typeof value === 'string' && value.length === digits && /^[0-9a-f]+$/.test(value)
  if (!isHex(oid, 40) || (lfs && !isHex(lfs.oid, 64)))
    throw new HubError(`${what}: ${path}: has no checksum in the listing: refused`)
  const checksum: Checksum = lfs ? { kind: 'sha256', value: lfs.oid as string } : { kind: 'git', value: oid }
  return { path, size: size as number, checksum, blobId: oid }
}

/** The same response, read whole, with a limit. */
async function bounded(what: string, url: string, response: Response, signal?: AbortSignal): Promise<Response> {
  const parts: Uint8Array[] = []
  let bytes = 0
  try {
    for await (const chunk of chunksOf(response, signal)) {
      parts.push(chunk)
      bytes += chunk.length
      if (bytes > mostBytes) throw new HubError(`${what}: a listing of more than ${mostBytes} bytes: refused`)
    }
  } catch (error) {
    signal?.throwIfAborted()
    throw error instanceof HubError ? error : networkError(what, url, error)
  }
  return new Response(new Blob(parts as BlobPart[]), { status: response.status, headers: response.headers })
}
