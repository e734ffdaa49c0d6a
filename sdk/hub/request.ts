import { HubError } from '../errors.ts'
import { isNode } from '../runtime.ts'
import { endpoint, isOffline, readToken, stallTime } from './settings.ts'

export interface RequestOptions {
  readonly headers?: Readonly<Record<string, string>>
  readonly signal?: AbortSignal
}

const attempts = 4
/** Milliseconds: the first pause, tripled each time; and the longest that a server may ask for. */
const [firstPause, longestPause] = [400, 60_000]

/**
 * A GET that follows redirects and is tried again after 408, 429, 5xx and dropped connections. The token goes to the hub
 * alone. Returns any other answer, bad ones too.
 *
 * @param what whom errors are about
 * @throws HubError when no answer is to be had
 */
export async function request(what: string, url: string, options: RequestOptions = {}): Promise<Response> {
  if (isOffline())
    throw new HubError(`${what}: is not in the cache, and HF_HUB_OFFLINE forbids asking the network. ${withoutNetwork}`)
  const isHub = new URL(url).origin === new URL(endpoint()).origin
  const token = isHub ? await readToken() : undefined
  const headers = {
    // A page may not set these.
    ...(isNode && { 'user-agent': 'halfling', 'accept-encoding': 'identity' }),
    ...(token && { authorization: `Bearer ${token}` }),
    ...options.headers,
  }
  for (let attempt = 1; ; attempt++) {
    let wait = firstPause * 3 ** (attempt - 1) * (1 + Math.random() / 4)
    try {
      const response = await fetchOnce(url, { ...options, headers })
      if (!isBusy(response.status)) return response
      await response.body?.cancel()
      const asked = retryAfter(response.headers)
      if (attempt === attempts || (asked ?? 0) > longestPause) throw busyError(what, url, response.status, asked)
      wait = asked ?? wait
    } catch (error) {
      options.signal?.throwIfAborted()
      if (error instanceof HubError) throw error
      if (attempt === attempts) throw networkError(what, url, error)
    }
    await pause(wait, options.signal)
  }
}

/** A fetch that gives up when no answer begins in time. What comes after it, the reader of the body watches. */
async function fetchOnce(url: string, options: RequestOptions): Promise<Response> {
  const late = new AbortController()
  const timer = setTimeout(() => late.abort(new Error('no answer in time')), stallTime())
  try {
    const signals = [late.signal, options.signal].filter((signal) => signal !== undefined)
    return await fetch(url, { ...options, signal: AbortSignal.any(signals) })
  } finally {
    clearTimeout(timer)
  }
}

const isBusy = (status: number): boolean => status === 408 || status === 429 || status >= 500

/** Milliseconds, from seconds or a date. */
function retryAfter(headers: Headers): number | undefined {
  const value = headers.get('retry-after')
  if (!value) return undefined
  const milliseconds = /^\s*\d+\s*$/.test(value) ? 1000 * Number(value) : Date.parse(value) - Date.now()
  return Number.isNaN(milliseconds) ? undefined : Math.max(0, milliseconds)
}

/** Waits; a signal ends it at once with its reason. */
export function pause(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason)
    const stop = () => {
      clearTimeout(timer)
      reject(signal?.reason)
    }
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', stop)
      resolve()
    }, milliseconds)
    signal?.addEventListener('abort', stop, { once: true })
  })
}

const withoutNetwork =
  'Pull it where there is a network and copy the cache, or point HF_HUB_CACHE at a cache that has it.'

export function networkError(what: string, url: string, cause: unknown): HubError {
  const { message, cause: inner } = cause as Error
  const reason = (inner as Error | undefined)?.message || (inner as NodeJS.ErrnoException)?.code || message
  const proxy = ['HTTPS_PROXY', 'https_proxy'].find((name) => globalThis.process?.env[name])
  const viaProxy = proxy ? ` ${proxy} is heeded from Node 24 on, with NODE_USE_ENV_PROXY=1.` : ''
  const host = new URL(url).host
  return new HubError(`${what}: ${host} cannot be reached (${reason}). ${withoutNetwork}${viaProxy}`, { cause })
}

function busyError(what: string, url: string, status: number, asked: number | undefined): HubError {
  const { host } = new URL(url)
  const why = status === 429 ? 'too many requests (a token in HF_TOKEN raises the limit)' : 'it is in trouble'
  const when = asked === undefined ? 'try again later' : `it asks to come back in ${Math.ceil(asked / 1000)} s`
  return new HubError(`${what}: ${host} answers ${status}: ${why}; ${when}`, { status })
}

/** What a bad answer means, and what to do about it. */
export async function refusal(what: string, url: string, response: Response): Promise<HubError> {
  await response.body?.cancel()
  const { status, headers } = response
  const page = new URL(url)
  const isHub = page.origin === new URL(endpoint()).origin
  const code = headers.get('x-error-code') ?? ''
  const said = (headers.get('x-error-message') ?? '').slice(0, 200)
  const told = (text: string) => new HubError(`${what}: ${text}`, { status })
  if (!isHub) return told(`${page.host} answers ${status}${status === 404 ? ': there is no such file' : ''}`)
  const token = (await readToken()) ? 'the token has no access to it' : 'no token is set: HF_TOKEN, or hf auth login'
  const repoPage = `${endpoint()}/${page.pathname.includes('/datasets/') ? 'datasets/' : ''}${what.replace(/[@:].*/, '')}`
  if (code === 'GatedRepo' || (status === 403 && /gated|restricted/i.test(said)))
    return told(`is gated: accept its terms at ${repoPage}, then set HF_TOKEN to a token of that account (${token})`)
  if (code === 'RevisionNotFound')
    return told('the hub has no such revision: check the branch, tag or commit after "@"')
  if (code === 'EntryNotFound') return told('the repository has no such file')
  if (status === 404 || code === 'RepoNotFound')
    return told(`the hub has no such repository: check the name. A private one looks the same: ${token}`)
  if (status === 401)
    return told(
      `the hub refuses (401): the name is wrong, or it is private or gated, or HF_TOKEN is not valid; ${token}`,
    )
  if (status === 403) return told(`the hub forbids it (403): ${said || token}; see ${repoPage}`)
  return told(`the hub answers ${status}${said && `: ${said}`}`)
}

/** The body, chunk by chunk; an error when nothing comes for too long. */
export async function* chunksOf(response: Response, signal?: AbortSignal): AsyncGenerator<Uint8Array, void> {
  if (!response.body) return
  const reader = response.body.getReader()
  let timer: ReturnType<typeof setTimeout> | undefined
  try {
    for (;;) {
      signal?.throwIfAborted()
      const late = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new Error('nothing came for too long')), stallTime())
      })
      const { done, value } = await Promise.race([reader.read(), late])
      clearTimeout(timer)
      if (done) return
      yield value
    }
  } finally {
    clearTimeout(timer)
    // A body that is not read to its end would hold the connection.
    await reader.cancel().catch(() => {})
  }
}
