import type { TeacherRow } from '../data/teacher-cache.ts'
import type { Example } from '../data/tokenize.ts'
import { OptionError, TeacherError } from '../errors.ts'
import { LOG_ZERO } from '../log-zero.ts'
import type { Tokenizer } from '../text/tokenizer.ts'
import type { Teacher } from './teacher.ts'

export interface HttpTeacherOptions {
  /** Of an OpenAI-compatible server that gives log-probabilities of the prompt (vLLM, SGLang, llama.cpp's Python server, halfling serve): http://host:port, with or without /v1. */
  readonly url: string
  readonly model: string
  readonly apiKey?: string
  /** Ids a token, 1 to 64; the server may allow fewer. */
  readonly k: number
  readonly vocabSize: number
  /** The student's: the server's must give the same tokens. */
  readonly tokenizer: Tokenizer
  /** Requests at once; default 4. */
  readonly concurrency?: number
  /** Default: as many as it takes. */
  readonly requestsPerMinute?: number
  /** Of a request that fails for want of time, network or capacity; default 5. */
  readonly retries?: number
  /** Of one request; default 120. */
  readonly timeoutSeconds?: number
  /** Milliseconds before the first retry, doubled each time; default 500. */
  readonly backOff?: number
}

/** Mass of the server's likeliest tokens that may be lost because their text is no single token of ours. */
const lostLimit = 0.05

/**
 * A teacher behind HTTP: asks for the log-probabilities of each row's own tokens (`echo`, nothing generated), K at each place.
 *
 * @throws TeacherError (through the returned function) naming row and place: for another tokenizer (the first token that
 *   differs), for answers that are malformed, cut off or no log-probabilities, and once the retries are used up
 */
export function httpTeacher(options: HttpTeacherOptions): Teacher {
  const { k, tokenizer, vocabSize, concurrency = 4 } = options
  if (!(Number.isInteger(k) && k >= 1 && k <= 64)) throw new OptionError(`k: ${k} is not an integer from 1 to 64`)
  const url = `${options.url.replace(/\/+$/, '').replace(/\/v1$/, '')}/v1/completions`
  const idOf = idsByText(tokenizer, vocabSize)
  const turn = pacer(options.requestsPerMinute)

  // Some servers generate at least one token; it is dropped. llama.cpp's Python server takes text alone, and max_tokens 0 for no limit.
  const ways = [
    (prompt: readonly number[]) => ({ prompt, max_tokens: 0 }),
    (prompt: readonly number[]) => ({ prompt, max_tokens: 1 }),
    (prompt: readonly number[], row: number) => ({ prompt: textOf(prompt, row), max_tokens: 1, temperature: 0 }),
  ]
  let firstWay = 0

  return async (examples, signal) => {
    const rows = new Array<TeacherRow>(examples.length)
    let next = 0
    const worker = async () => {
      for (let i = next++; i < examples.length; i = next++) {
        await turn(signal)
        rows[i] = await ask(examples[i], signal)
      }
    }
    await Promise.all(Array.from({ length: Math.min(concurrency, examples.length) }, worker))
    return rows
  }

  async function ask(example: Example, signal?: AbortSignal): Promise<TeacherRow> {
    const { row, inputIds } = example
    const common = { model: options.model, echo: true, logprobs: k, temperature: 1, return_tokens_as_token_ids: true }
    for (let way = firstWay; way < ways.length; way++) {
      const answer = await post({ ...common, ...ways[way](inputIds, row) }, row, signal)
      if (answer === null) continue
      firstWay = Math.max(firstWay, way)
      return readAnswer(answer, example)
    }
    throw new TeacherError(`row ${row}: ${url} refuses to score a prompt (as ids or text, max_tokens 0 or 1)`)
  }

  /** The text of ids, which must be the ids of the text. */
  function textOf(ids: readonly number[], row: number): string {
    const text = tokenizer.decode(ids)
    const again = tokenizer.encode(text)
    if (again.length !== ids.length || again.some((id, t) => id !== ids[t]))
      throw new TeacherError(
        `row ${row}: ${url} takes text alone, and this row's text has other tokens when it is read again`,
      )
    return text
  }

  /** The body of a 200; null where max_tokens 0 or a prompt of ids is refused. Throws TeacherError. */
  async function post(
    request: { max_tokens: number; prompt: readonly number[] | string },
    row: number,
    signal?: AbortSignal,
  ): Promise<unknown> {
    const { apiKey, retries = 5, timeoutSeconds = 120, backOff = 500 } = options
    let problem = ''
    for (let attempt = 0; attempt <= retries; attempt++) {
      signal?.throwIfAborted()
      const limit = AbortSignal.timeout(timeoutSeconds * 1000)
      let wait = backOff * 2 ** attempt
      try {
        const response = await fetch(url, {
          method: 'POST',
          headers: {
            'content-type': 'application/json',
            ...(apiKey !== undefined && { authorization: `Bearer ${apiKey}` }),
          },
          body: JSON.stringify(request),
          signal: signal ? AbortSignal.any([signal, limit]) : limit,
        })
        const text = await response.text()
        if (response.ok) return parse(text, row)
        const told = text.slice(0, 200)
        if (response.status === 400 && request.max_tokens === 0 && /max_tokens/.test(text)) return null
        if (typeof request.prompt !== 'string' && /valid string|string_type/.test(text)) return null
        if (response.status === 401 || response.status === 403)
          throw new TeacherError(`${url}: ${response.status}: it wants another API key (${told})`)
        if (response.status !== 429 && response.status < 500)
          throw new TeacherError(`row ${row}: ${url}: ${response.status}: ${told}`)
        const after = Number(response.headers.get('retry-after'))
        if (after > 0) wait = Math.min(after * 1000, 60_000)
        problem = `${response.status}: ${told}`
      } catch (error) {
        if (error instanceof TeacherError) throw error
        signal?.throwIfAborted()
        problem = limit.aborted ? `no answer within ${timeoutSeconds} s` : reason(error)
      }
      if (attempt < retries) await pause(wait, signal)
    }
    throw new TeacherError(`row ${row}: ${url}: ${problem} (after ${retries} retries)`)
  }

  function parse(text: string, row: number): unknown {
    try {
      return JSON.parse(text)
    } catch (cause) {
      throw new TeacherError(`row ${row}: ${url}: its answer is not JSON (cut off?)`, { cause })
    }
  }

  function readAnswer(answer: unknown, { inputIds, labels, row }: Example): TeacherRow {
    const fail = (what: string): never => {
      throw new TeacherError(`row ${row}: ${url}: ${what}`)
    }
    const logs = (answer as { choices?: { logprobs?: Record<string, unknown> }[] })?.choices?.[0]?.logprobs
    if (!logs) return fail('its answer has no logprobs of the prompt (does the server give them?)')
    const { tokens, top_logprobs: top, token_logprobs: own } = logs
    if (!Array.isArray(tokens) || !Array.isArray(top)) return fail('logprobs has no tokens or top_logprobs')
    if (tokens.length < inputIds.length || top.length < inputIds.length)
      return fail(`${tokens.length} tokens came back for ${inputIds.length}`)
    for (const [t, id] of inputIds.entries()) checkToken(tokens[t], id, t, fail)
    const late = isLate(answer, inputIds.length) ? 1 : 0
    const places = inputIds.flatMap((_, t) => (t > 0 && labels[t] >= 0 ? [t] : []))
    const said = {
      ids: new Int32Array(places.length * k).fill(-1),
      logProbs: new Float32Array(places.length * k).fill(LOG_ZERO),
      tail: new Float32Array(places.length),
    }
    for (const [at, t] of places.entries()) {
      const entries: [number, number][] = []
      let lost = 0
      const likely = top[t - late]
      if (typeof likely !== 'object' || likely === null) return fail(`no top_logprobs at token ${t}`)
      for (const [token, value] of Object.entries(likely as Record<string, unknown>)) {
        if (typeof value !== 'number' || Number.isNaN(value) || value > 1e-3)
          return fail(`${JSON.stringify(value)} at token ${t} is no log-probability`)
        // What has no text of its own (a special token, a part of a character) is known where it is the row's own token.
        const isOwn = !late && Array.isArray(own) && value === own[t] && (token === tokens[t] || token === '')
        const id = /^token_id:\d+$/.test(token)
          ? Number(token.slice(9))
          : (idOf(token) ?? (isOwn ? inputIds[t] : undefined))
        if (id === undefined) lost += Math.exp(value)
        else if (id >= vocabSize) return fail(`id ${id} at token ${t} is not below ${vocabSize}`)
        else entries.push([id, Math.min(value, 0)])
      }
      if (lost > lostLimit)
        return fail(
          `${(100 * lost).toFixed(0)}% of the mass at token ${t} is on tokens that this tokenizer cannot name`,
        )
      // vLLM adds the token itself to the likeliest.
      const best = entries.sort(([a, x], [b, y]) => y - x || a - b).slice(0, k)
      if (best.length === 0 || new Set(best.map(([id]) => id)).size < best.length)
        return fail(`token ${t}: no likeliest tokens, or one twice`)
      const mass = best.reduce((sum, [, value]) => sum + Math.exp(value), 0)
      if (mass > 1.001) return fail(`the masses at token ${t} add up to ${mass.toFixed(4)}`)
      for (const [j, [id, value]] of best.entries()) {
        said.ids[at * k + j] = id
        said.logProbs[at * k + j] = value
      }
      said.tail[at] = mass >= 1 ? LOG_ZERO : Math.log1p(-mass)
    }
    return said
  }

  function checkToken(got: unknown, id: number, t: number, fail: (what: string) => never): void {
    const ours = tokenizer.decode([id])
    const same =
      got === `token_id:${id}` ||
      got === ours ||
      got === tokenizer.idToToken(id) ||
      // Some servers hide special tokens, and bytes that are no whole character are shown in many ways.
      (got === '' && tokenizer.specialIds.has(id)) ||
      (typeof got === 'string' && ours.includes('\ufffd') && !got.startsWith('token_id:'))
    if (!same)
      fail(
        `another tokenizer: token ${t} is ${JSON.stringify(ours)} (${id}) here and ${JSON.stringify(got)} there: teacher and student must have the same`,
      )
  }
}

/**
 * llama.cpp's Python server, for a model without a beginning-of-sequence token, tells at each token what follows it rather than
 * the token itself: its list ends with the prompt although it generated a token, and its last entry is led by that one.
 */
function isLate(answer: unknown, n: number): boolean {
  const { choices, usage } = answer as {
    choices: { text?: unknown; logprobs: { tokens: unknown[]; top_logprobs: unknown[] } }[]
    usage?: { completion_tokens?: unknown }
  }
  const [{ text, logprobs }] = choices
  if (logprobs.tokens.length > n || usage?.completion_tokens !== 1 || typeof text !== 'string') return false
  const [[best]] = Object.entries(logprobs.top_logprobs[n - 1] ?? {}).sort(([, a], [, b]) => Number(b) - Number(a))
  return best !== undefined && text.endsWith(best)
}

/** Texts that stand for one token alone. */
function idsByText(tokenizer: Tokenizer, vocabSize: number): (text: string) => number | undefined {
  let known: Map<string, number | null> | undefined
  return (text) => {
    if (!known) {
      known = new Map()
      for (let id = 0; id < vocabSize; id++) {
        const own = tokenizer.idToToken(id)
        if (own === undefined) continue
        for (const shown of new Set([tokenizer.decode([id]), own]))
          known.set(shown, known.has(shown) && known.get(shown) !== id ? null : id)
      }
    }
    return known.get(text) ?? undefined
  }
}

/** Lets callers through at most so many times a minute. */
function pacer(perMinute: number | undefined): (signal?: AbortSignal) => Promise<void> {
  let free = 0
  return async (signal) => {
    if (perMinute === undefined) return
    const now = performance.now()
    const at = Math.max(now, free)
    free = at + 60_000 / perMinute
    if (at > now) await pause(at - now, signal)
  }
}

const pause = (milliseconds: number, signal?: AbortSignal): Promise<void> =>
  new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer)
      reject(signal!.reason)
    }
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', stop)
      resolve()
    }, milliseconds)
    signal?.addEventListener('abort', stop, { once: true })
  })

const reason = (error: unknown): string => {
  const { message, cause } = error as Error & { cause?: { code?: string; message?: string } }
  return cause?.code ?? cause?.message ?? message
}
