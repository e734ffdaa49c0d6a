import { spawn } from 'node:child_process'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { LanguageModel, loadModel } from '../../sdk/index.ts'
import { serveApp } from '../../sdk/serve/app.ts'
import { cli } from '../built.ts'

let lm: LanguageModel
let app: ReturnType<typeof serveApp>
beforeAll(async () => {
  lm = await loadModel('nano', { threads: 1 })
  app = serveApp(lm, { modelName: 'nano', slots: 1, queue: 1 })
})
afterAll(() => lm.close())

const post = (path: string, body: unknown, signal?: AbortSignal) =>
  app.request(path, { method: 'POST', body: typeof body === 'string' ? body : JSON.stringify(body), signal })
const question = [{ role: 'user', content: 'What is 17 + 25?' }]

describe('chat completions', () => {
  it('answer as the model does, with log-probabilities', async () => {
    const own = await LanguageModel.complete(lm.chat(question, { temperature: 0 }))
    const response = await post('/v1/chat/completions', {
      messages: question,
      temperature: 0,
      logprobs: true,
      top_logprobs: 3,
    })
    const json = await response.json()
    expect(json.choices[0].message).toEqual({ role: 'assistant', content: own.text })
    expect(json.choices[0].finish_reason).toBe('stop')
    expect(json.usage.completion_tokens).toBe(own.tokenIds.length)
    const { content } = json.choices[0].logprobs
    expect(content).toHaveLength(own.tokenIds.length)
    for (const [i, { logprob, top_logprobs }] of content.entries()) {
      expect(logprob).toBeCloseTo(own.logProbs[i], 5)
      // Greedy: the token is the likeliest.
      expect(top_logprobs[0].logprob).toBeCloseTo(logprob, 4)
      expect(top_logprobs).toHaveLength(3)
    }
  })

  it('stream the same text in pieces', async () => {
    const response = await post('/v1/chat/completions', { messages: question, temperature: 0, stream: true })
    expect(response.headers.get('content-type')).toContain('text/event-stream')
    const events = (await response.text())
      .split('\n\n')
      .filter(Boolean)
      .map((event) => event.replace(/^data: /, ''))
    expect(events.at(-1)).toBe('[DONE]')
    const choices = events.slice(0, -1).map((event) => JSON.parse(event).choices[0])
    expect(choices.map(({ delta }) => delta.content ?? '').join('')).toContain('<answer>42</answer>')
    expect(choices.at(-1).finish_reason).toBe('stop')
  })

  it('the same seed gives the same answers, n of them differ', async () => {
    const ask = async () =>
      (
        await (
          await post('/v1/chat/completions', { messages: question, temperature: 2, seed: 5, n: 3, max_tokens: 20 })
        ).json()
      ).choices.map((choice: { message: { content: string } }) => choice.message.content)
    const [first, second] = [await ask(), await ask()]
    expect(second).toEqual(first)
    expect(new Set(first).size).toBeGreaterThan(1)
  })
})

describe('requests side by side', () => {
  const ask = async (app: ReturnType<typeof serveApp>, i: number, more: object = {}, signal?: AbortSignal) => {
    const messages = [{ role: 'user', content: `What is ${11 + 7 * i} + ${25 + i}?` }]
    const body = JSON.stringify({ messages, temperature: 0, ...more })
    return app.request('/v1/chat/completions', { method: 'POST', body, signal })
  }
  const textOf = async (response: Response): Promise<string> => (await response.json()).choices[0].message.content
  const eight = Array.from({ length: 8 }, (_, i) => i)

  it('eight chats at once say what they say one after the other', async () => {
    const [together, apart] = [8, 1].map((slots) => serveApp(lm, { modelName: 'nano', slots }))
    const want: string[] = []
    for (const i of eight) want.push(await textOf(await ask(apart, i)))
    expect(await Promise.all(eight.map(async (i) => textOf(await ask(together, i))))).toEqual(want)
    expect(new Set(want).size).toBe(8)
  })

  it('a client that leaves makes room for one that waits; one that asks for what cannot be is refused at once', async () => {
    const busy = serveApp(lm, { modelName: 'nano', slots: 1, queue: 4 })
    const gone = new AbortController()
    const bans = { temperature: 2, seed: 1, max_tokens: 900, stream: true }
    const long = await ask(busy, 1, bans, gone.signal)
    const reader = long.body!.getReader()
    await reader.read()
    const waits = ask(busy, 2)
    for (const stream of [false, true]) {
      const body = JSON.stringify({ prompt: [5, 999_999], stream })
      expect((await busy.request('/v1/completions', { method: 'POST', body })).status).toBe(400)
    }
    await reader.cancel()
    gone.abort()
    expect(await textOf(await waits)).toBe(await textOf(await ask(app, 2)))
  })
})

describe('completions', () => {
  it('score a prompt: its own tokens and the likeliest at each', async () => {
    const ids = lm.tokenizer.encode('What is 2 + 3?')
    const body = { prompt: ids, max_tokens: 0, echo: true, logprobs: 4, return_tokens_as_token_ids: true }
    const { choices } = await (await post('/v1/completions', body)).json()
    const { tokens, token_logprobs, top_logprobs } = choices[0].logprobs
    expect(tokens).toEqual(ids.map((id) => `token_id:${id}`))
    expect(token_logprobs[0]).toBe(null)
    expect(top_logprobs[0]).toBe(null)
    for (let t = 1; t < ids.length; t++) {
      const top = Object.values(top_logprobs[t]) as number[]
      expect(top).toHaveLength(4)
      expect(top).toEqual(top.toSorted((a, b) => b - a))
      expect(token_logprobs[t]).toBeLessThanOrEqual(top[0] + 1e-5)
    }
  })

  it('take text, several prompts, stops', async () => {
    const body = { prompt: ['What is 2', 'What is 3'], max_tokens: 6, temperature: 0, logprobs: 1 }
    const { choices } = await (await post('/v1/completions', body)).json()
    expect(choices).toHaveLength(2)
    for (const { logprobs, text } of choices) {
      expect(logprobs.tokens.join('')).toBe(text)
      expect(logprobs.text_offset[0]).toBe(0)
    }
    const stopped = await (
      await post('/v1/completions', { ...body, prompt: 'What is 2', stop: [text(choices)] })
    ).json()
    expect(stopped.choices[0].finish_reason).toBe('stop')
  })
  const text = (choices: { text: string }[]) => choices[0].text.slice(1, 3)
})

describe('what is wrong is told in the shape of the API', () => {
  it.each([
    ['/v1/completions', '{', 400, 'not JSON'],
    ['/v1/completions', { prompt: 'a', logprobs: 65 }, 400, 'logprobs'],
    ['/v1/completions', { prompt: [5, 999_999] }, 400, 'vocabulary'],
    ['/v1/completions', { prompt: 'a', model: 'gpt' }, 404, 'there is no "gpt" here'],
    ['/v1/completions', { prompt: 'a '.repeat(3000) }, 400, 'context'],
    ['/v1/completions', { prompt: 'a', max_tokens: 0 }, 400, 'echo'],
    ['/v1/chat/completions', { messages: [] }, 400, 'messages'],
    ['/v1/nothing', {}, 404, 'no POST /v1/nothing'],
  ])('%s %j: %s', async (path, body, status, message) => {
    const response = await post(path, body)
    expect(response.status).toBe(status)
    expect((await response.json()).error.message).toContain(message)
  })

  it('more requests than may wait get a 429, and a client that leaves stops its generation', async () => {
    const slow = { prompt: 'What is', max_tokens: 900, temperature: 1, seed: 1, n: 16 }
    const gone = new AbortController()
    const first = post('/v1/completions', slow, gone.signal)
    const second = post('/v1/completions', slow)
    await new Promise((resolve) => setTimeout(resolve, 20))
    const third = await post('/v1/completions', slow)
    expect(third.status).toBe(429)
    gone.abort()
    expect((await first).status).toBeGreaterThanOrEqual(400)
    expect((await second).status).toBe(200)
    expect((await post('/v1/completions', { prompt: 'a', max_tokens: 1 })).status).toBe(200)
  })
})

it('halfling serve listens, answers and ends at Ctrl-C', async () => {
  const child = spawn(process.execPath, [...cli, 'serve', '--port', '0'])
  let told = ''
  child.stderr.on('data', (chunk) => {
    told += chunk
  })
  const ended = new Promise((resolve) => child.on('close', resolve))
  try {
    let url: string | undefined
    for (let i = 0; i < 400 && !url; i++) {
      url = /http:\S+\/v1/.exec(told)?.[0]
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    const models = await (await fetch(`${url}/models`)).json()
    expect(models.data[0].id).toBe('nano')
    child.kill('SIGINT')
    expect(await ended).toBe(130)
  } finally {
    child.kill('SIGKILL')
  }
})
