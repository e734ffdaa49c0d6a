import { createServer, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { serve } from '@hono/node-server'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { Example } from '../../sdk/data/tokenize.ts'
import { TeacherError } from '../../sdk/errors.ts'
import { type HttpTeacherOptions, httpTeacher } from '../../sdk/generate/http-teacher.ts'
import { modelTeacher } from '../../sdk/generate/teacher.ts'
import { type LanguageModel, loadModel } from '../../sdk/index.ts'
import { serveApp } from '../../sdk/serve/app.ts'

let lm: LanguageModel
let examples: Example[]
beforeAll(async () => {
  lm = await loadModel('nano', { threads: 1 })
  examples = ['What is 2 + 3?', 'Mia has 4 naïve apples ×.', 'Hello'].map((text, row) => {
    const inputIds = lm.tokenizer.encode(text)
    return { inputIds, labels: [-100, ...inputIds.slice(1)], row }
  })
})
afterAll(() => lm.close())

const open: Server[] = []
afterEach(() => {
  for (const server of open.splice(0)) {
    server.close()
    server.closeAllConnections()
  }
})
async function listen(handler: RequestListener): Promise<string> {
  const server = createServer(handler)
  open.push(server)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

const teacherAt = (url: string, more: Partial<HttpTeacherOptions> = {}) =>
  httpTeacher({
    url,
    model: 'nano',
    k: 8,
    vocabSize: lm.model.config.vocabSize,
    tokenizer: lm.tokenizer,
    backOff: 1,
    retries: 2,
    ...more,
  })

describe('a server of our own engine', () => {
  it.each([true, false])('says what the model says (tokens as ids: %s)', async (asIds) => {
    const app = serveApp(lm, { modelName: 'nano' })
    const url = await new Promise<string>((resolve) => {
      const server = serve(
        {
          fetch: async (request) => {
            const body = JSON.parse(await request.text())
            return app.request('/v1/completions', {
              method: 'POST',
              body: JSON.stringify({ ...body, return_tokens_as_token_ids: asIds }),
            })
          },
          port: 0,
          hostname: '127.0.0.1',
        },
        ({ port }) => resolve(`http://127.0.0.1:${port}/v1`),
      )
      open.push(server as Server)
    })
    const want = await modelTeacher(lm.model, { method: 'topk', k: 8, temperature: 1, seed: 0 })(examples)
    const got = await teacherAt(url)(examples)
    for (const [i, row] of want.entries()) {
      expect(got[i].tail).toHaveLength(row.tail.length)
      for (let t = 0; t < row.tail.length; t++) {
        // What has no text of its own is left to the rest when tokens come as text.
        const kept = [...got[i].ids.subarray(t * 8, t * 8 + 8)].filter((id) => id >= 0)
        expect(asIds ? kept.length : Math.sign(kept.length)).toBe(asIds ? 8 : 1)
        expect(kept[0]).toBe(row.ids[t * 8])
        expect(got[i].logProbs[t * 8]).toBeCloseTo(row.logProbs[t * 8], 4)
        if (asIds) expect(Math.abs(Math.exp(got[i].tail[t]) - Math.exp(row.tail[t]))).toBeLessThan(1e-5)
      }
    }
  })
})

it("llama.cpp's Python server: takes text alone, and tells at each token what follows it", async () => {
  const app = serveApp(lm, { modelName: 'nano' })
  const url = await listen((request, response) => {
    let text = ''
    request.on('data', (chunk) => {
      text += chunk
    })
    request.on('end', async () => {
      const body = JSON.parse(text)
      if (typeof body.prompt !== 'string') {
        response.writeHead(500).end('{"error": {"message": "Input should be a valid string"}}')
        return
      }
      const asked = { ...body, return_tokens_as_token_ids: false }
      const answer = await app.request('/v1/completions', { method: 'POST', body: JSON.stringify(asked) })
      const { choices, usage } = await answer.json()
      const { tokens, token_logprobs, top_logprobs } = choices[0].logprobs
      const logprobs = {
        tokens: tokens.slice(0, -1),
        token_logprobs: [null, ...token_logprobs.slice(2)],
        top_logprobs: [null, ...top_logprobs.slice(2)],
      }
      response.end(JSON.stringify({ choices: [{ ...choices[0], logprobs }], usage }))
    })
  })
  // Nothing is said of what follows the first token.
  const rows = examples.slice(0, 2).map((e) => ({ ...e, labels: e.labels.map((id, t) => (t === 1 ? -100 : id)) }))
  const want = await modelTeacher(lm.model, { method: 'topk', k: 8, temperature: 1, seed: 0 })(rows)
  const got = await teacherAt(url)(rows)
  for (const [i, { ids, logProbs, tail }] of want.entries())
    for (let t = 0; t < tail.length; t++) {
      expect(got[i].ids[t * 8]).toBe(ids[t * 8])
      expect(got[i].logProbs[t * 8]).toBeCloseTo(logProbs[t * 8], 4)
    }
  await expect(teacherAt(url)(examples.slice(0, 1))).rejects.toThrow('no top_logprobs at token 1')
})

/** The answer that a good server gives to a prompt, to be spoilt. */
function good(ids: readonly number[]): Good {
  const tokens = ids.map((id) => `token_id:${id}`)
  const top = ids.map((id, t) => (t === 0 ? null : { [`token_id:${id}`]: -0.1, 'token_id:5': -3 }))
  return { choices: [{ logprobs: { tokens, token_logprobs: ids.map(() => -0.1), top_logprobs: top } }] }
}
interface Good {
  readonly choices: {
    logprobs: { tokens: string[]; token_logprobs: number[]; top_logprobs: (Record<string, number> | null)[] }
  }[]
}

const answering =
  (spoil: (answer: Good) => unknown, status = 200): RequestListener =>
  (request, response) => {
    let text = ''
    request.on('data', (chunk) => {
      text += chunk
    })
    request.on('end', () => {
      const ids: number[] = JSON.parse(text).prompt
      const answer = ids.length > 2 ? spoil(good(ids)) : good(ids) // "Hello" is one token: nothing to spoil
      response.writeHead(status, { 'content-type': 'application/json' })
      response.end(typeof answer === 'string' ? answer : JSON.stringify(answer))
    })
  }
const withLogs = (answer: Good, changed: Partial<Good['choices'][0]['logprobs']>) => ({
  choices: [{ logprobs: { ...answer.choices[0].logprobs, ...changed } }],
})
const withTokens = (answer: Good, change: (tokens: string[]) => string[]) =>
  withLogs(answer, { tokens: change(answer.choices[0].logprobs.tokens) })
const topAt1 = (answer: Good, top: Record<string, unknown> | null) =>
  withLogs(answer, {
    top_logprobs: answer.choices[0].logprobs.top_logprobs.with(1, top as Record<string, number> | null),
  })

describe('a server that lies, stalls or refuses ends in a typed error that says so', () => {
  it.each<[string, (answer: Good) => unknown, RegExp]>([
    ['no JSON', () => '{"choices": [', /row 0: .*is not JSON \(cut off\?\)/],
    ['no logprobs', () => ({ choices: [{ logprobs: null }] }), /no logprobs of the prompt/],
    ['too few tokens', (a) => withTokens(a, (tokens) => tokens.slice(1)), /tokens came back for/],
    [
      'another token',
      (a) => withTokens(a, (tokens) => tokens.with(2, 'token_id:9')),
      /row 0: .*another tokenizer: token 2 is .* here and "token_id:9" there/,
    ],
    ['no number', (a) => topAt1(a, { 'token_id:5': 'x' }), /"x" at token 1 is no log-probability/],
    ['a positive one', (a) => topAt1(a, { 'token_id:5': 0.5 }), /0.5 at token 1 is no log-probability/],
    [
      'more mass than there is',
      (a) => topAt1(a, { 'token_id:5': -0.1, 'token_id:6': -0.2 }),
      /masses at token 1 add up to 1\.7/,
    ],
    ['an id past the vocabulary', (a) => topAt1(a, { 'token_id:5000': -1 }), /id 5000 at token 1 is not below 768/],
    ['tokens of another language', (a) => topAt1(a, { 東京: -0.1 }), /90% of the mass at token 1/],
    ['a hole', (a) => topAt1(a, null), /no top_logprobs at token 1/],
  ])('%s', async (_, spoil, message) => {
    const url = await listen(answering(spoil))
    await expect(teacherAt(url)(examples)).rejects.toThrow(message)
    await expect(teacherAt(url)(examples)).rejects.toThrow(TeacherError)
  })

  it.each([
    [401, /wants another API key/],
    [404, /404/],
    [400, /400/],
  ])('status %s is not tried again', async (status, message) => {
    let asked = 0
    const url = await listen((request, response) => {
      asked++
      answering(() => ({ error: 'no' }), status)(request, response)
    })
    await expect(teacherAt(url, { concurrency: 1 })([examples[0]])).rejects.toThrow(message)
    expect(asked).toBe(1)
  })

  it.each([429, 500, 503])('status %s is tried again, and then it is well', async (status) => {
    let asked = 0
    const url = await listen((request, response) => answering((a) => a, asked++ < 2 ? status : 200)(request, response))
    const [row] = await teacherAt(url)([examples[0]])
    expect(asked).toBe(3)
    expect(row.ids[0]).toBe(examples[0].inputIds[1])
  })

  it('a server that cuts off, one that stalls, none at all: an error after the retries', async () => {
    const cut = await listen((_, response) => {
      response.writeHead(200, { 'content-length': '1000' })
      response.write('{"choices"')
      setTimeout(() => response.destroy(), 5)
    })
    await expect(teacherAt(cut)([examples[0]])).rejects.toThrow(/after 2 retries/)
    const stalled = await listen(() => {})
    await expect(teacherAt(stalled, { timeoutSeconds: 0.05 })([examples[0]])).rejects.toThrow(/no answer within 0.05 s/)
    const gone = await listen(() => {})
    open.pop()!.close()
    await expect(teacherAt(gone)([examples[0]])).rejects.toThrow(/ECONNREFUSED.*after 2 retries/)
  })

  it('a server that must generate one token is asked for one, which is dropped', async () => {
    const wanted: number[] = []
    const url = await listen((request, response) => {
      let text = ''
      request.on('data', (chunk) => {
        text += chunk
      })
      request.on('end', () => {
        const { max_tokens, prompt } = JSON.parse(text)
        wanted.push(max_tokens)
        const answer = good([...prompt, 7])
        response.writeHead(max_tokens === 0 ? 400 : 200)
        response.end(max_tokens === 0 ? '{"error": "max_tokens must be at least 1"}' : JSON.stringify(answer))
      })
    })
    const [row] = await teacherAt(url)([examples[0]])
    expect(wanted).toEqual([0, 1])
    expect(row.tail).toHaveLength(examples[0].inputIds.length - 1)
  })

  it('an abort ends it with its own reason', async () => {
    const url = await listen(() => {})
    const stop = new AbortController()
    setTimeout(() => stop.abort(new Error('enough')), 30)
    await expect(teacherAt(url)(examples, stop.signal)).rejects.toThrow('enough')
  })
})
