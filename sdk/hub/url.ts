import { HubError } from '../errors.ts'
import { shardNames } from '../formats/stored-model.ts'
import { sha256 } from '../hash.ts'
import { join } from '../store/path.ts'
import { isPage } from '../store/sources.ts'
import { jsonChunks, readJson } from '../store/text.ts'
import { download, validatorOf } from './download.ts'
import { cache, endpoint } from './settings.ts'
import type { PullOptions } from './snapshot.ts'

/** Our own folder in the cache: halfling-urls/<hash of the address>/<file>. */
export const urlsFolder = 'halfling-urls'

export const isUrl = (name: string): boolean => /^https?:\/\//i.test(name)

/** An address of one file, and where it is kept. */
interface Located {
  readonly url: string
  /** In the cache. */
  readonly folder: string
  readonly file: string
  readonly sha256: string | null
}

/** The place in the cache of `https://host/file.gguf[#sha256=<64 hexadecimal digits>]`. */
async function locate(name: string, extension: RegExp): Promise<Located> {
  const url = URL.canParse(name) ? new URL(name) : null
  if (!url || url.username || url.password) throw new HubError(`${name}: is not an address that can be fetched`)
  const file = safeDecode(url.pathname.split('/').at(-1) ?? '')
  if (!extension.test(file) || !/^[^/\\:\0]{1,200}$/.test(file))
    throw new HubError(
      `${name}: an address of one file is wanted, of a .gguf for a model, .parquet, .jsonl or .json for rows`,
    )
  const fragment = url.hash.slice(1)
  const checksum = /^sha256=([0-9a-f]{64})$/i.exec(fragment)?.[1].toLowerCase() ?? null
  if (fragment && !checksum) throw new HubError(`${name}: after "#" only sha256=<64 hexadecimal digits> is understood`)
  url.hash = ''
  return { url: url.href, folder: await keptAt(url.href + (checksum ?? '')), file, sha256: checksum }
}

const keptAt = async (text: string): Promise<string> => join(urlsFolder, (await sha256(text)).slice(0, 32))

/** The folder in the cache for an address, whatever it is of. */
export const folderOfUrl = async (name: string): Promise<string> =>
  isFolderUrl(name) ? keptAt(new URL(name).href) : (await locate(name, /./)).folder

/** An address that ends with a slash: of a folder as it is on the hub. */
export const isFolderUrl = (name: string): boolean =>
  isUrl(name) && URL.canParse(name) && new URL(name).pathname.endsWith('/') && !/[?#]/.test(name)

/** The folder of an address when the cache has all of it. */
export async function findUrlFolder(name: string): Promise<string | null> {
  const store = await cache()
  const folder = await folderOfUrl(name)
  const source = await readJson(store, join(folder, 'source.json')).catch(() => null)
  return source?.whole === true ? join(store.name, folder) : null
}

/** Downloads the files of a model or an adapter below an address, each as pullUrl does. */
export async function pullUrlFolder(name: string, options: PullOptions = {}): Promise<string> {
  const base = new URL(name)
  if (base.username || base.password) throw new HubError(`${name}: is not an address that can be fetched`)
  const store = await cache()
  const folder = await folderOfUrl(name)
  const about = (source: object) => store.write(join(folder, 'source.json'), jsonChunks(source))
  if (!(await findUrlFolder(name))) await about({ url: base.href })
  let before = 0
  const get = async (file: string): Promise<boolean> => {
    let here = 0
    try {
      await fetchInto({ folder, file, url: new URL(file, base).href, sha256: null }, `${file}.source.json`, {
        ...options,
        onProgress: ({ loadedBytes, totalBytes }) => {
          here = totalBytes
          options.onProgress?.({ file, loadedBytes: before + loadedBytes, totalBytes: before + totalBytes })
        },
      })
    } catch (error) {
      if (error instanceof HubError && error.status === 404) return false
      throw error
    }
    before += here
    return true
  }
  const needed = async (file: string): Promise<void> => {
    if (!(await get(file))) throw new HubError(`${name}: has no ${file}`, { status: 404 })
  }
  const isAdapter = await get('adapter_config.json')
  if (isAdapter) await needed('adapter_model.safetensors')
  else {
    for (const file of ['config.json', 'tokenizer.json']) await needed(file)
    for (const file of ['generation_config.json', 'tokenizer_config.json', 'chat_template.jinja']) await get(file)
    if (!(await get('model.safetensors'))) {
      const index = 'model.safetensors.index.json'
      await needed(index)
      const json = (await readJson(store, join(folder, index)))!
      for (const shard of new Set(shardNames(json, `${name}${index}`).values())) await needed(shard)
    }
  }
  await about({ url: base.href, whole: true })
  return join(store.name, folder)
}

/** The file of an address when the cache has it. */
export async function findUrl(name: string, extension: RegExp): Promise<string | null> {
  const { folder, file } = await locate(name, extension)
  return (await (await cache()).open(join(folder, file)))?.name ?? null
}

/** Downloads a file, going on with a part of it while the server says that it is still the same. */
export async function pullUrl(name: string, extension: RegExp, options: PullOptions = {}): Promise<string> {
  return fetchInto(await locate(name, extension), 'source.json', options)
}

/** @param aboutFile remembers what names the content, so that a part of it can be gone on with */
async function fetchInto(
  { url, folder, file, sha256 }: Located,
  aboutFile: string,
  options: PullOptions,
): Promise<string> {
  const store = await cache()
  const about = join(folder, aboutFile)
  await download({
    what: file,
    url,
    store,
    path: join(folder, file),
    size: null,
    checksum: sha256 ? { kind: 'sha256', value: sha256 } : null,
    validator: async () => {
      const source = await readJson(store, about).catch(() => null)
      return typeof source?.validator === 'string' && source.validator ? source.validator : undefined
    },
    onStart: async (response) => {
      if (isPage(response))
        throw new HubError(`${url}: the server has no such file, it answers with a page`, { status: 404 })
      await store.write(about, jsonChunks({ url, validator: validatorOf(response) }))
    },
    onBytes: (bytes, total) =>
      options.onProgress?.({ file, loadedBytes: bytes, totalBytes: Math.max(bytes, total ?? 0) }),
    signal: options.signal,
  })
  return join(store.name, folder, file)
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
