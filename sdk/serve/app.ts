import { type Context, Hono } from 'hono'
import { HTTPException } from 'hono/http-exception'
import { streamSSE } from 'hono/streaming'
import type { ContentfulStatusCode } from 'hono/utils/http-status'
import type { z } from 'zod'
import { ContextError, DataError, OptionError } from '../errors.ts'
import type { Completion, Piece } from '../generate/answer.ts'
import { LanguageModel } from '../generate/language-model.ts'
import { type GenerateOptions, requestsOf } from '../generate/request.ts'
import { Scheduler } from '../generate/scheduler.ts'
import type { TopLogProbs } from '../generate/steps.ts'
import { modelTeacher } from '../generate/teacher.ts'
import { Programs } from '../model/programs.ts'
import { type ChatRequest, type CompletionRequest, chatRequest, completionRequest } from './requests.ts'

export interface ServeOptions {
  /** What clients call the model; another name is a 404. */
  readonly modelName: string
  /** Answers that are computed side by side, each with a key/value cache; default 8. */
  readonly slots?: number
  /** Requests that may wait beside those; more get a 429. Default 64. */
  readonly queue?: number
}

/**
 * OpenAI's completions and chat completions over a model, as a hono app: `serve(app)` of @hono/node-server listens, `app.request`
 * asks it in the same process. Requests are answered side by side.
 */
export function serveApp(lm: LanguageModel, { modelName, slots = 8, queue = 64 }: ServeOptions): Hono {
  const app = new Hono()
  const scoring = new Programs(lm.model)
  const scheduler = new Scheduler(lm, slots)
  const created = Math.floor(Date.now() / 1000)
  let [requests, count] = [0, 0]
  const head = (object: string) => ({
    id: `${object.startsWith('chat') ? 'chatcmpl' : 'cmpl'}-${created}-${count++}`,
    object,
    created: Math.floor(Date.now() / 1000),
    model: modelName,
  })

  app.onError((error, c) => {
    const status = statusOf(error)
    return c.json(
      { error: { message: error.message, type: status < 500 ? 'invalid_request_error' : 'server_error', code: null } },
      status,
    )
  })
  app.notFound((c) =>
    c.json({ error: { message: `no ${c.req.method} ${c.req.path}`, type: 'invalid_request_error', code: null } }, 404),
  )

  const card = { id: modelName, object: 'model', created, owned_by: 'halfling' }
  app.get('/v1/models', (c) => c.json({ object: 'list', data: [card] }))

  app.post('/v1/completions', async (c) => {
    const request = await body(c, completionRequest)
    checkModel(request.model)
    const prompts = promptsOf(lm, request.prompt)
    const { echo, logprobs } = request
    const show = tokenShower(lm, request.return_tokens_as_token_ids === true)
    const maxTokens = request.max_tokens ?? 16
    if (maxTokens === 0 && !echo) throw new OptionError('max_tokens: 0 goes with echo alone')
    const options = optionsOf(request, maxTokens, logprobs ?? 0)
    // What can never be answered is refused before it waits.
    requestsOf(lm, prompts, options)
    const logs = (
      ids: readonly number[],
      logProbs: readonly (number | null)[],
      top: readonly (TopLogProbs | null)[],
      offset: number,
    ) => legacyLogProbs(show, ids, logProbs, top, offset)
    if (request.stream) {
      if (prompts.length > 1 || (request.n ?? 1) > 1 || echo)
        throw new OptionError('stream: of one prompt, one answer (n), and without echo')
      const leave = enter()
      return streamSSE(c, async (sse) => {
        const common = head('text_completion')
        let offset = 0
        const chunk = (choice: object) =>
          sse.writeSSE({ data: JSON.stringify({ ...common, choices: [{ index: 0, ...choice }] }) })
        await streamed(sse, c.req.raw.signal, leave, async (signal) => {
          for await (const piece of pieces(prompts[0], { ...options, signal })) {
            const top = piece.top ?? piece.tokenIds.map(() => null)
            const logged = logprobs == null ? null : logs(piece.tokenIds, piece.logProbs, top, offset)
            offset += piece.text.length
            await chunk({ text: piece.text, logprobs: logged, finish_reason: piece.finishReason ?? null })
          }
        })
      })
    }
    return limited(async () => {
      const choices: object[] = []
      let [promptTokens, completionTokens] = [0, 0]
      const answers = prompts.map((ids) =>
        maxTokens === 0 ? [noAnswer] : complete(ids, options, c.req.raw.signal, request.n),
      )
      for (const [p, ids] of prompts.entries()) {
        promptTokens += ids.length
        const scored = echo && logprobs != null ? await scorePrompt(ids, logprobs, c.req.raw.signal) : null
        for (const answer of await answers[p]) {
          completionTokens += answer.tokenIds.length
          const before = echo ? lm.tokenizer.decode(ids) : ''
          const logged =
            logprobs == null
              ? null
              : logs(
                  [...(scored ? ids : []), ...answer.tokenIds],
                  [...(scored?.logProbs ?? []), ...answer.logProbs],
                  [...(scored?.top ?? []), ...(answer.top ?? answer.tokenIds.map(() => null))],
                  scored ? 0 : before.length,
                )
          choices.push({
            index: choices.length,
            text: before + answer.text,
            logprobs: logged,
            finish_reason: answer.finishReason,
          })
        }
      }
      return c.json({ ...head('text_completion'), choices, usage: usage(promptTokens, completionTokens) })
    })
  })

  app.post('/v1/chat/completions', async (c) => {
    const request = await body(c, chatRequest)
    checkModel(request.model)
    const k = request.logprobs ? (request.top_logprobs ?? 0) : 0
    const maxTokens = request.max_completion_tokens ?? request.max_tokens ?? undefined
    const options = optionsOf(request, maxTokens, k)
    const show = tokenShower(lm, false)
    const logs = (ids: readonly number[], logProbs: readonly number[], top: readonly TopLogProbs[]) =>
      request.logprobs ? { content: ids.map((id, i) => chatLogProb(show, id, logProbs[i], top[i])) } : null
    const ids = lm.chatPrompt(request.messages, { ...options, tools: request.tools ?? undefined })
    requestsOf(lm, [ids], options)
    if (request.stream) {
      if ((request.n ?? 1) > 1) throw new OptionError('stream: of one answer (n) alone')
      const leave = enter()
      return streamSSE(c, async (sse) => {
        const common = head('chat.completion.chunk')
        const chunk = (choice: object) =>
          sse.writeSSE({ data: JSON.stringify({ ...common, choices: [{ index: 0, ...choice }] }) })
        await streamed(sse, c.req.raw.signal, leave, async (signal) => {
          await chunk({ delta: { role: 'assistant', content: '' }, finish_reason: null })
          for await (const piece of pieces(ids, { ...options, signal })) {
            const logprobs = logs(piece.tokenIds, piece.logProbs, piece.top ?? [])
            await chunk({ delta: { content: piece.text }, logprobs, finish_reason: piece.finishReason ?? null })
          }
        })
      })
    }
    return limited(async () => {
      const choices: object[] = []
      let completionTokens = 0
      for (const [index, answer] of (await complete(ids, options, c.req.raw.signal, request.n)).entries()) {
        completionTokens += answer.tokenIds.length
        const message = { role: 'assistant', content: answer.text }
        choices.push({
          index,
          message,
          logprobs: logs(answer.tokenIds, answer.logProbs, answer.top ?? []),
          finish_reason: answer.finishReason,
        })
      }
      return c.json({ ...head('chat.completion'), choices, usage: usage(ids.length, completionTokens) })
    })
  })

  function checkModel(name: string | undefined): void {
    if (name !== undefined && name !== modelName)
      throw new HTTPException(404, { message: `model: there is no "${name}" here, only "${modelName}"` })
  }

  /** Holds the number of requests within bounds; the returned function lets the next one in. */
  function enter(): () => void {
    if (requests >= slots + queue)
      throw new HTTPException(429, { message: `${requests} requests run and wait already: try again later` })
    requests++
    return () => {
      requests--
    }
  }

  async function limited(answer: () => Promise<Response>): Promise<Response> {
    const leave = enter()
    return answer().finally(leave)
  }

  const pieces = (ids: readonly number[], options: GenerateOptions): AsyncGenerator<Piece, void> =>
    scheduler.pieces(requestsOf(lm, [ids], options, { isRead: true })[0])

  /** `n` whole answers, side by side. */
  const complete = (
    ids: readonly number[],
    options: GenerateOptions,
    signal: AbortSignal,
    n?: number | null,
  ): Promise<Completion[]> =>
    Promise.all(
      Array.from({ length: n ?? 1 }, (_, i) => LanguageModel.complete(pieces(ids, { ...seeded(options, i), signal }))),
    )

  /** Log-probabilities of a prompt's own tokens, and the k likeliest at each; nothing comes before the first. */
  async function scorePrompt(ids: readonly number[], k: number, signal: AbortSignal) {
    const logProbs: (number | null)[] = [null]
    const top: (TopLogProbs | null)[] = [null]
    if (ids.length < 2) return { logProbs, top }
    const example = { inputIds: [...ids], labels: [-100, ...ids.slice(1)], row: 0 }
    const [own] = await (await import('../generate/score.ts')).scoreExamples(lm.model, [example], {
      signal,
      programs: scoring,
    })
    logProbs.push(...own)
    if (k === 0) return { logProbs, top: ids.map(() => null) }
    const question = { method: 'topk' as const, k: Math.min(k, lm.model.config.vocabSize), temperature: 1, seed: 0 }
    const [row] = await modelTeacher(lm.model, question, scoring)([example], signal)
    for (let t = 0; t < own.length; t++) {
      const range = [t * question.k, (t + 1) * question.k] as const
      top.push({ ids: [...row.ids.subarray(...range)], logProbs: [...row.logProbs.subarray(...range)] })
    }
    return { logProbs, top }
  }
  return app
}

const noAnswer: Completion = { text: '', tokenIds: [], logProbs: [], finishReason: 'length' }

const usage = (prompt_tokens: number, completion_tokens: number) => ({
  prompt_tokens,
  completion_tokens,
  total_tokens: prompt_tokens + completion_tokens,
})

function statusOf(error: Error): ContentfulStatusCode {
  if (error instanceof HTTPException) return error.status as ContentfulStatusCode
  if (error instanceof ContextError || error instanceof OptionError || error instanceof DataError) return 400
  return 500
}

async function body<T>(c: Context, schema: z.ZodType<T>): Promise<T> {
  const json: unknown = await c.req.json().catch(() => {
    throw new HTTPException(400, { message: 'the body is not JSON' })
  })
  const result = schema.safeParse(json)
  if (result.success) return result.data
  const { path, message } = result.error.issues[0]
  throw new HTTPException(400, { message: `${path.join('.') || 'body'}: ${message}` })
}

function promptsOf(lm: LanguageModel, prompt: CompletionRequest['prompt']): number[][] {
  if (typeof prompt === 'string') return [lm.encodePrompt(prompt)]
  if (typeof prompt[0] === 'number') return [prompt as number[]]
  return (prompt as (string | number[])[]).map((one) => (typeof one === 'string' ? lm.encodePrompt(one) : one))
}

function optionsOf(
  r: CompletionRequest | ChatRequest,
  maxTokens: number | undefined,
  topLogProbs: number,
): GenerateOptions {
  return {
    maxNewTokens: maxTokens === 0 ? undefined : maxTokens,
    // OpenAI samples at 1 unless it is told otherwise.
    temperature: r.temperature ?? 1,
    topP: r.top_p ?? undefined,
    topK: r.top_k == null ? undefined : Math.max(0, r.top_k),
    minP: r.min_p ?? undefined,
    frequencyPenalty: r.frequency_penalty ?? undefined,
    presencePenalty: r.presence_penalty ?? undefined,
    repetitionPenalty: r.repetition_penalty ?? undefined,
    seed: r.seed ?? undefined,
    stop: r.stop == null ? undefined : [r.stop].flat(),
    topLogProbs,
  }
}

/** Several answers (n) of one seed differ. */
const seeded = (options: GenerateOptions, i: number): GenerateOptions =>
  options.seed === undefined ? options : { ...options, seed: (options.seed + i) % 2 ** 32 }

type Show = (id: number) => string

const tokenShower =
  (lm: LanguageModel, asIds: boolean): Show =>
  (id) =>
    asIds ? `token_id:${id}` : lm.tokenizer.decode([id])

/** The shape of OpenAI's completions: lists of one length. */
function legacyLogProbs(
  show: Show,
  ids: readonly number[],
  logProbs: readonly (number | null)[],
  top: readonly (TopLogProbs | null)[],
  offset: number,
) {
  const tokens = ids.map(show)
  let at = offset
  const offsets = tokens.map((token) => {
    at += token.length
    return at - token.length
  })
  const topOf = (t: TopLogProbs | null | undefined) =>
    t ? Object.fromEntries(t.ids.map((id, i) => [show(id), t.logProbs[i]])) : null
  return { tokens, token_logprobs: [...logProbs], top_logprobs: ids.map((_, i) => topOf(top[i])), text_offset: offsets }
}

function chatLogProb(show: Show, id: number, logprob: number, top: TopLogProbs | undefined) {
  const entry = (token: string, value: number) => ({
    token,
    logprob: value,
    bytes: [...new TextEncoder().encode(token)],
  })
  return {
    ...entry(show(id), logprob),
    top_logprobs: top?.ids.map((each, i) => entry(show(each), top.logProbs[i])) ?? [],
  }
}

/** Runs a stream to its [DONE]; a client that leaves stops the generation, an error ends the stream with its message. */
async function streamed(
  sse: { writeSSE(message: { data: string }): Promise<unknown>; onAbort(listener: () => void): void },
  requested: AbortSignal,
  leave: () => void,
  run: (signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const gone = new AbortController()
  sse.onAbort(() => gone.abort(new HTTPException(499 as ContentfulStatusCode, { message: 'the client left' })))
  try {
    await run(AbortSignal.any([gone.signal, requested]))
    await sse.writeSSE({ data: '[DONE]' })
  } catch (error) {
    if (gone.signal.aborted || requested.aborted) return
    await sse.writeSSE({
      data: JSON.stringify({ error: { message: (error as Error).message, type: 'server_error', code: null } }),
    })
  } finally {
    leave()
  }
}
