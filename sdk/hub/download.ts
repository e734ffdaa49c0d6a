import { HubError } from '../errors.ts'
import { type Hash, openHash } from '../hash.ts'
import { isNode } from '../runtime.ts'
import type { Store } from '../store/store.ts'
import { withLock } from './lock.ts'
import { chunksOf, networkError, pause, refusal, request } from './request.ts'
import { checkSpace } from './space.ts'

export interface Checksum {
  /** `git` is that of a git blob: SHA-1 of 'blob <size>\0' and the content. */
  readonly kind: 'sha256' | 'git'
  /** Hexadecimal, lower case. */
  readonly value: string
}

export interface Download {
  /** Whom errors are about: 'org/name: model.safetensors'. */
  readonly what: string
  readonly url: string
  readonly store: Store
  /** Where the file will be in it; `<path>.incomplete` while it is not whole. */
  readonly path: string
  /** null: the server says it. */
  readonly size: number | null
  /** null: nothing is known of the content. */
  readonly checksum: Checksum | null
  /** For If-Range: what names the content of which a part is here already. Not needed with a checksum. */
  readonly validator?: () => Promise<string | undefined>
  /** Told of the answer with which the content begins anew. */
  readonly onStart?: (response: Response) => Promise<void>
  /** Bytes that are here. */
  readonly onBytes: (bytes: number, total: number | null) => void
  readonly signal?: AbortSignal
}

/** Tries in a row that bring less than this are limited. */
const [attempts, someBytes] = [5, 2 ** 20]

/** The connection ended before the content did: the rest is asked for again. */
class Dropped extends Error {}

/** The server went back on the range: everything is asked for again. */
class Unresumable extends Error {}

/**
 * Downloads a file, going on where an earlier download ended. The content is hashed as it comes; it has its name only when it is
 * whole, right and on the disk. Several processes may ask for the same file: one works, the others wait.
 *
 * @throws HubError when the server refuses, and for a wrong content, which is deleted
 * @throws HalflingError of code 'io' when the disk is full or not writable
 */
export async function download(d: Download): Promise<void> {
  const { store } = d
  const part = `${d.path}.incomplete`
  const bytesHere = async () => (await store.open(part))?.size ?? 0
  const onWait = async () => d.onBytes(await bytesHere(), d.size)
  await withLock(store, `${part}.lock`, d.signal, onWait, async () => {
    if (await store.open(d.path)) return
    let [failures, from] = [0, await bytesHere()]
    for (;;) {
      try {
        return await attempt(d, part)
      } catch (error) {
        d.signal?.throwIfAborted()
        if (!(error instanceof Dropped || error instanceof Unresumable)) throw error
        if (error instanceof Unresumable) await store.remove(part)
        const here = await bytesHere()
        failures = here - from >= someBytes ? 1 : failures + 1
        from = here
        if (failures === attempts) throw networkError(d.what, d.url, error.cause ?? error)
        await pause(300 * failures ** 2, d.signal)
      }
    }
  })
}

async function attempt(d: Download, part: string): Promise<void> {
  const validator = await d.validator?.()
  const content = await contentHere(d, part, validator)
  if (d.size === null || content.bytes < d.size) await fetchRest(d, part, content, validator)
  if (d.checksum && content.hash?.hex() !== d.checksum.value) {
    await d.store.remove(part)
    throw new HubError(
      `${d.what}: the content does not match its checksum (${d.checksum.kind}): it was deleted, try again`,
    )
  }
  await d.store.move(part, d.path)
}

/** What is here already, and its hash. */
interface Content {
  bytes: number
  hash: Hash | null
}

async function contentHere(d: Download, part: string, validator: string | undefined): Promise<Content> {
  const content: Content = { bytes: 0, hash: await newHash(d) }
  const file = await d.store.open(part)
  const isOfUse = d.checksum || validator
  if (!file || !isOfUse || (d.size !== null && file.size > d.size)) {
    await d.store.append(part, [], 0)
    return content
  }
  while (content.bytes < file.size) {
    d.signal?.throwIfAborted()
    const bytes = await file.read(content.bytes, Math.min(2 ** 20, file.size - content.bytes))
    content.hash?.update(bytes)
    content.bytes += bytes.length
  }
  if (file.size > 0) d.onBytes(content.bytes, d.size)
  return content
}

async function fetchRest(d: Download, part: string, content: Content, validator: string | undefined): Promise<void> {
  const from = content.bytes
  // Another origin's server would be asked first whether a page may send If-Range: there the answer is looked at.
  const mayAsk = isNode || new URL(d.url).origin === location.origin
  const range = from > 0 && { range: `bytes=${from}-`, ...(validator && mayAsk && { 'if-range': validator }) }
  const response = await request(d.what, d.url, { headers: range || undefined, signal: d.signal })
  if (response.status === 416) {
    await response.body?.cancel()
    throw new Unresumable('the range cannot be had')
  }
  if (!response.ok) throw await refusal(d.what, d.url, response)
  let total = d.size
  if (response.status === 206) {
    const [, start, end, all] = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(response.headers.get('content-range') ?? '') ?? []
    const isSame = mayAsk || d.checksum || validatorOf(response) === validator
    if (from === 0 || Number(start) !== from || !end || !isSame) {
      await response.body?.cancel()
      throw new Unresumable('another range came than the one that was asked for')
    }
    if (all !== '*') total ??= Number(all)
  } else {
    content.bytes = 0
    content.hash = await newHash(d)
    await d.onStart?.(response)
    const length = Number(response.headers.get('content-length') ?? Number.NaN)
    if (!Number.isNaN(length)) total ??= length
  }
  if (d.size === null && total !== null) await checkSpace(d.what, d.store, total - content.bytes)
  await d.store.append(part, arriving(d, response, content, total), content.bytes)
  if (total !== null && content.bytes < total)
    throw new Dropped(`the connection ended at byte ${content.bytes} of ${total}`)
}

/** The chunks of an answer, hashed and told as they are written. */
async function* arriving(
  d: Download,
  response: Response,
  content: Content,
  total: number | null,
): AsyncGenerator<Uint8Array, void> {
  const chunks = chunksOf(response, d.signal)
  try {
    for (;;) {
      // An error of the connection leads to another try; those of the store are told.
      const { done, value } = await chunks.next().catch((cause) => {
        throw new Dropped('the connection dropped', { cause })
      })
      if (done) return
      if (total !== null && content.bytes + value.length > total)
        throw new HubError(
          `${d.what}: the server sends more than the ${total} bytes that it announced: nothing of it is used`,
        )
      yield value
      content.hash?.update(value)
      content.bytes += value.length
      d.onBytes(content.bytes, total)
    }
  } finally {
    await chunks.return()
  }
}

/** What names this content: its ETag when that is a strong one, else its date. */
export function validatorOf({ headers }: Response): string | null {
  const etag = headers.get('etag')
  return etag && !etag.startsWith('W/') ? etag : headers.get('last-modified')
}

async function newHash({ checksum, size }: Download): Promise<Hash | null> {
  if (!checksum) return null
  if (checksum.kind === 'sha256') return openHash('sha256')
  const hash = await openHash('sha1')
  hash.update(new TextEncoder().encode(`blob ${size}\0`))
  return hash
}
