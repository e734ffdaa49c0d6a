import { HubError } from '../errors.ts'
import { isNode } from '../runtime.ts'
import { join } from '../store/path.ts'
import { type Store, storeAt } from '../store/store.ts'
import { readText } from '../store/text.ts'

// What huggingface_hub reads from the environment, read the same way. Everything is read when it is needed.

const variable = (name: string): string | undefined => globalThis.process?.env[name]?.trim() || undefined

const isOn = (name: string): boolean => /^(1|on|yes|true)$/i.test(variable(name) ?? '')

/** Without a slash at its end. */
export const endpoint = (): string => (variable('HF_ENDPOINT') ?? 'https://huggingface.co').replace(/\/+$/, '')

export const isOffline = (): boolean => isOn('HF_HUB_OFFLINE') || isOn('TRANSFORMERS_OFFLINE')

/** Milliseconds without a byte after which a connection counts as dropped. */
export const stallTime = (): number => 1000 * (Number(variable('HF_HUB_DOWNLOAD_TIMEOUT')) || 30)

async function home(): Promise<string> {
  const { homedir } = await import('node:os')
  const cache = variable('XDG_CACHE_HOME') ?? join(homedir(), '.cache')
  return expand(variable('HF_HOME') ?? join(cache, 'huggingface'), homedir())
}

const expand = (path: string, user: string): string => path.replace(/^~(?=$|[\\/])/, () => user)

/** The folder of the cache: HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub; `models` in a browser's storage. */
export async function cacheRoot(): Promise<string> {
  if (!isNode) return 'models'
  const [{ resolve }, { homedir }] = await Promise.all([import('node:path'), import('node:os')])
  const set = variable('HF_HUB_CACHE') ?? variable('HUGGINGFACE_HUB_CACHE')
  return resolve(set ? expand(set, homedir()) : join(await home(), 'hub'))
}

/** Where downloads are kept. */
export const cache = async (): Promise<Store> => storeAt(await cacheRoot())

/** HF_TOKEN, else what `hf auth login` has left; a page has none. */
export async function readToken(): Promise<string | undefined> {
  if (!isNode) return undefined
  const path = variable('HF_TOKEN_PATH') ?? join(await home(), 'token')
  const fromFile = async () => ((await readText(await storeAt(path), '').catch(() => null)) ?? '').trim()
  const token = variable('HF_TOKEN') ?? variable('HUGGING_FACE_HUB_TOKEN') ?? (await fromFile())
  if (token !== '' && !/^[\x21-\x7e]{1,1000}$/.test(token))
    throw new HubError(`the token for the hub (HF_TOKEN or ${path}) holds characters that no token has: set it again`)
  return token || undefined
}
