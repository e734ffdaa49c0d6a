import { HalflingError, HubError } from '../errors.ts'
import { dirname, type FileHandle, fileSystem, isNode } from '../formats/file-system.ts'
import { writeError } from '../formats/node-file.ts'
import { type Hash, openHash } from './hash.ts'
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
  /** Where the file will be; `<path>.incomplete` while it is not whole. */
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
  const fs = await fileSystem()
  const part = `${d.path}.incomplete`
  const sizeOf = (path: string) =>
    fs.stat(path).then(
      ({ size }) => size,
      () => 0,
    )
  const onWait = async () => d.onBytes(await sizeOf(part), d.size)
  try {
    await withLock(`${part}.lock`, d.signal, onWait, async () => {
      if (await fs.stat(d.path).catch(() => null)) return
      let [failures, from] = [0, await sizeOf(part)]
      for (;;) {
        try {
          return await attempt(d, part)
        } catch (error) {
          d.signal?.throwIfAborted()
          if (!(error instanceof Dropped || error instanceof Unresumable)) throw error
          if (error instanceof Unresumable) await fs.rm(part, { force: true })
          const here = await sizeOf(part)
          failures = here - from >= someBytes ? 1 : failures + 1
          from = here
          if (failures === attempts) throw networkError(d.what, d.url, error.cause ?? error)
          await pause(300 * failures ** 2, d.signal)
        }
      }
    })
  } catch (error) {
    throw error instanceof HalflingError ? error : writeError(d.path, error)
  }
}

async function attempt(d: Download, part: string): Promise<void> {
  const { appendFile, open, rename, rm } = await fileSystem()
  await appendFile(part, '')
  const handle = await open(part, 'r+')
  let whole = false
  try {
    let here = (await handle.stat()).size
    if (d.size !== null && here > d.size) here = 0
    const validator = await d.validator?.()
    if (!d.checksum && !validator) here = 0
    const content = new Content(handle, d)
    if (here > 0) await content.readStart(here)
    if (d.size === null || content.position < d.size) await fetchRest(d, content, validator)
    whole = await content.isRight()
    if (whole) {
      // Another process, or an earlier and longer file, may have left bytes behind the end.
      await handle.truncate(content.position)
      await handle.sync()
    }
  } finally {
    await handle.close()
  }
  if (!whole) {
    await rm(part, { force: true })
    throw new HubError(
      `${d.what}: the content does not match its checksum (${d.checksum?.kind}): it was deleted, try again`,
    )
  }
  await rename(part, d.path)
}

async function fetchRest(d: Download, content: Content, validator: string | undefined): Promise<void> {
  const from = content.position
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
    content.restart()
    await d.onStart?.(response)
    const length = Number(response.headers.get('content-length') ?? Number.NaN)
    if (!Number.isNaN(length)) total ??= length
  }
  if (d.size === null && total !== null) await checkSpace(d.what, dirname(d.path), total - content.position)
  try {
    for await (const chunk of chunksOf(response, d.signal)) {
      if (total !== null && content.position + chunk.length > total) throw tooLong(d, total)
      await content.append(chunk)
      d.onBytes(content.position, total)
    }
  } catch (error) {
    // Errors of the disk are told; those of the connection lead to another try.
    if (error instanceof HubError || /^(write|fsync)$/.test((error as NodeJS.ErrnoException).syscall ?? '')) throw error
    throw new Dropped('the connection dropped', { cause: error })
  }
  if (total !== null && content.position < total)
    throw new Dropped(`the connection ended at byte ${content.position} of ${total}`)
}

/** What names this content: its ETag when that is a strong one, else its date. */
export function validatorOf({ headers }: Response): string | null {
  const etag = headers.get('etag')
  return etag && !etag.startsWith('W/') ? etag : headers.get('last-modified')
}

const tooLong = (d: Download, total: number): HubError =>
  new HubError(`${d.what}: the server sends more than the ${total} bytes that it announced: nothing of it is used`)

/** What is on the disk already, and its hash. */
class Content {
  position = 0
  private readonly handle: FileHandle
  private readonly d: Download
  private hash: Promise<Hash | null>

  constructor(handle: FileHandle, d: Download) {
    this.handle = handle
    this.d = d
    this.hash = newHash(d)
  }

  /** Takes up the first `length` bytes, as they were written before. */
  async readStart(length: number): Promise<void> {
    const buffer = new Uint8Array(2 ** 20)
    const hash = await this.hash
    while (this.position < length) {
      this.d.signal?.throwIfAborted()
      const { bytesRead } = await this.handle.read(
        buffer,
        0,
        Math.min(buffer.length, length - this.position),
        this.position,
      )
      if (bytesRead === 0) break
      hash?.update(buffer.subarray(0, bytesRead))
      this.position += bytesRead
    }
    this.d.onBytes(this.position, this.d.size)
  }

  restart(): void {
    this.position = 0
    this.hash = newHash(this.d)
  }

  async append(chunk: Uint8Array): Promise<void> {
    const hash = await this.hash
    hash?.update(chunk)
    for (let done = 0; done < chunk.length; ) {
      const { bytesWritten } = await this.handle.write(chunk, done, chunk.length - done, this.position)
      done += bytesWritten
      this.position += bytesWritten
    }
  }

  async isRight(): Promise<boolean> {
    const hash = await this.hash
    return hash === null || hash.hex() === this.d.checksum!.value
  }
}

async function newHash({ checksum, size }: Download): Promise<Hash | null> {
  if (!checksum) return null
  if (checksum.kind === 'sha256') return openHash('sha256')
  const hash = await openHash('sha1')
  hash.update(new TextEncoder().encode(`blob ${size}\0`))
  return hash
}
