import { HubError } from '../errors.ts'
import { fileSystem, join } from '../formats/file-system.ts'
import { shardNames } from '../formats/model-source.ts'
import { makeFolder, readJsonFile, writeAtomically } from '../formats/node-file.ts'
import { download, validatorOf } from './download.ts'
import { sha256OfText } from './hash.ts'
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
  const folder = await cachedAt(url.href + (sha256 ?? ''))
  return { url: url.href, file, folder, path: join(folder, file), sha256 }
}

const cachedAt = async (text: string): Promise<string> =>
  join(await cacheRoot(), urlsFolder, (await sha256OfText(text)).slice(0, 32))

/** The folder in the cache for an address, whatever it is of. */
export const urlFolder = async (name: string): Promise<string> =>
  isFolderUrl(name) ? cachedAt(new URL(name).href) : (await locate(name, /./)).folder

/** An address that ends with a slash: of a folder as it is on the hub. */
export const isFolderUrl = (name: string): boolean =>
  isUrl(name) && URL.canParse(name) && new URL(name).pathname.endsWith('/') && !/[?#]/.test(name)

/** The folder of an address when the cache has all of it. */
export async function findUrlFolder(name: string): Promise<string | null> {
  const folder = await urlFolder(name)
  const { whole } = await readJsonFile(join(folder, 'source.json')).catch(() => ({ whole: false }))
  return whole === true ? folder : null
}

/** Downloads the files of a model or an adapter below an address, each as pullUrl does. */
export async function pullUrlFolder(name: string, options: PullOptions = {}): Promise<string> {
  const base = new URL(name)
  if (base.username || base.password) throw new HubError(`${name}: is not an address that can be fetched`)
  const folder = await urlFolder(name)
  const about = (source: object) =>
    writeAtomically(join(folder, 'source.json'), [new TextEncoder().encode(JSON.stringify(source))])
  await makeFolder(folder)
  if (!(await findUrlFolder(name))) await about({ url: base.href })
  let before = 0
  const get = async (file: string): Promise<boolean> => {
    let here = 0
    try {
      await fetchInto(folder, file, new URL(file, base).href, null, {
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
      for (const shard of new Set(shardNames(await readJsonFile(join(folder, index)), `${name}${index}`).values()))
        await needed(shard)
    }
  }
  await about({ url: base.href, whole: true })
  return folder
}

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
  await makeFolder(folder)
  await fetchInto(folder, file, url, sha256, options, 'source.json')
  return path
}

/** @param aboutFile remembers what names the content, so that a part of it can be gone on with */
async function fetchInto(
  folder: string,
  file: string,
  url: string,
  sha256: string | null,
  options: PullOptions,
  aboutFile = `${file}.source.json`,
): Promise<void> {
  const about = join(folder, aboutFile)
  await download({
    what: file,
    url,
    path: join(folder, file),
    size: null,
    checksum: sha256 ? { kind: 'sha256', value: sha256 } : null,
    validator: async () => {
      const { validator } = await readJsonFile(about).catch(() => ({ validator: undefined }))
      return typeof validator === 'string' && validator ? validator : undefined
    },
    onStart: async (response) => {
      const validator = validatorOf(response)
      await writeAtomically(about, [new TextEncoder().encode(JSON.stringify({ url, validator }))])
    },
    onBytes: (bytes, total) =>
      options.onProgress?.({ file, loadedBytes: bytes, totalBytes: Math.max(bytes, total ?? 0) }),
    signal: options.signal,
  })
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
