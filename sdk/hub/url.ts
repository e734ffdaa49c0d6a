import { HubError } from '../errors.ts'
import { fileSystem, join } from '../formats/file-system.ts'
import { makeFolder, readJsonFile, writeAtomically } from '../formats/files.ts'
import { download } from './download.ts'
import { newHash } from './hash.ts'
import { cacheRoot, endpoint } from './settings.ts'
import type { PullOptions } from './snapshot.ts'

/** Our own folder in the cache: halfling-urls/<hash of the address>/<file>. */
export const urlsFolder = 'halfling-urls'

export const isUrl = (name: string): boolean => /^https?:\/\//i.test(name)

interface Source {
  /** Where the address stands for one file. */
  readonly url: string
  readonly file: string
  readonly folder: string
  /** The whole file, when it is here. */
  readonly path: string
  readonly sha256: string | null
}

/** The place in the cache of `https://host/file.gguf[#sha256=<64 hexadecimal digits>]`. */
async function locate(name: string, extension: RegExp): Promise<Source> {
  const url = URL.canParse(name) ? new URL(name) : null
  if (!url || url.username || url.password) throw new HubError(`${name}: is not an address that can be fetched`)
  const file = safeDecode(url.pathname.split('/').at(-1) ?? '')
  if (!extension.test(file) || !/^[^/\\:\0]{1,200}$/.test(file))
    throw new HubError(
      `${name}: an address of one file is wanted, of a .gguf for a model, .parquet, .jsonl or .json for rows`,
    )
  const fragment = url.hash.slice(1)
  const sha256 = /^sha256=([0-9a-f]{64})$/i.exec(fragment)?.[1].toLowerCase() ?? null
  if (fragment && !sha256) throw new HubError(`${name}: after "#" only sha256=<64 hexadecimal digits> is understood`)
  url.hash = ''
  const hash = await newHash('sha256')
  hash.update(new TextEncoder().encode(url.href + (sha256 ?? '')))
  const folder = join(await cacheRoot(), urlsFolder, hash.digest().slice(0, 32))
  return { url: url.href, file, folder, path: join(folder, file), sha256 }
}

/** The folder in the cache for an address, whatever it is of. */
export const urlFolder = async (name: string): Promise<string> => (await locate(name, /./)).folder

/** The file of an address when the cache has it. */
export async function findUrl(name: string, extension: RegExp): Promise<string | null> {
  const { access } = await fileSystem()
  const { path } = await locate(name, extension)
  return access(path).then(
    () => path,
    () => null,
  )
}

/** Downloads a file, going on with a part of it while the server says that it is still the same. */
export async function pullUrl(name: string, extension: RegExp, options: PullOptions = {}): Promise<string> {
  const { url, file, folder, path, sha256 } = await locate(name, extension)
  const about = join(folder, 'source.json')
  await makeFolder(folder)
  await download({
    what: file,
    url,
    path,
    size: null,
    checksum: sha256 ? { kind: 'sha256', value: sha256 } : null,
    validator: async () => {
      const { validator } = await readJsonFile(about).catch(() => ({ validator: undefined }))
      return typeof validator === 'string' && validator ? validator : undefined
    },
    onStart: async ({ headers }) => {
      const etag = headers.get('etag')
      const validator = etag && !etag.startsWith('W/') ? etag : headers.get('last-modified')
      await writeAtomically(about, [new TextEncoder().encode(JSON.stringify({ url, validator }))])
    },
    onBytes: (bytes, total) =>
      options.onProgress?.({ file, loadedBytes: bytes, totalBytes: Math.max(bytes, total ?? 0) }),
    signal: options.signal,
  })
  return path
}

/** An address of the hub's own pages as a name: https://huggingface.co/org/name/blob/main/x.gguf. Others as they are. */
export function hubNameOf(name: string): string {
  const hub = `${endpoint()}/`
  if (!name.startsWith(hub) || name.includes('#')) return name
  const path = safeDecode(name.slice(hub.length).replace(/\?.*/, '')).replace(/^datasets\/|\/+$/g, '')
  const [, id, , revision, file] = /^([^/]+\/[^/]+)(\/(?:resolve|blob|tree)\/([^/]+)(?:\/(.+))?)?$/.exec(path) ?? []
  if (!id || (!revision && /\.(gguf|parquet|jsonl?)$/i.test(id))) return name
  return `${id}${file ? `/${file}` : ''}${revision ? `@${revision}` : ''}`
}

function safeDecode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}
