import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, expect, it, vi } from 'vitest'
import { listModels, removeModel } from '../../sdk/hub/list.ts'
import { pullModel, resolveModel } from '../../sdk/hub/models.ts'
import { findRows } from '../../sdk/hub/rows.ts'
import { urlFolder } from '../../sdk/store/sources.ts'
import { cut, type Hub, send, sha256, startHub } from './server.ts'

// Files of any server, by their address.

const file = Uint8Array.from({ length: 200_000 }, (_, i) => (i * 31) >> 3)
let server: Hub
let home: string
let etag: string | null
let content: Uint8Array
const url = () => `${server.url}/files/x.gguf`
const asked = () => server.asked.map(({ range, ifRange }) => [range, ifRange])

beforeAll(async () => {
  server = await startHub({})
})
afterAll(() => server.close())
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'halfling-url-'))
  vi.stubEnv('HF_HUB_CACHE', join(home, 'elsewhere'))
  vi.stubEnv('HF_HOME', home)
  vi.stubEnv('HF_HUB_OFFLINE', '')
  vi.stubEnv('HF_TOKEN', 'hf_secret')
  etag = '"one"'
  content = file
  server.asked.length = 0
  server.trouble = serve
})
afterEach(() => {
  vi.unstubAllEnvs()
  rmSync(home, { recursive: true })
})

function serve(request: IncomingMessage, response: ServerResponse, path: string): true {
  if (path === '/files/x.gguf') send(request, response, content, etag ?? '')
  else response.writeHead(404).end()
  return true
}

/** The first connection drops after 60,000 bytes. */
function cutFirst(): void {
  let first = true
  server.trouble = (request, response, path) => {
    if (!first) return serve(request, response, path)
    first = false
    cut(response, content, 60_000, etag ?? '')
    return true
  }
}

it('lie in a folder of our own in the cache, without the token of the hub', async () => {
  const path = await pullModel(url())
  expect(path).toMatch(/elsewhere[\\/]halfling-urls[\\/][0-9a-f]{32}[\\/]x\.gguf$/)
  expect(readFileSync(path).equals(file)).toBe(true)
  expect(readdirSync(join(path, '..')).sort()).toEqual(['source.json', 'x.gguf'])
  expect(server.asked.map(({ authorization }) => authorization)).toEqual([undefined])
  expect((await resolveModel(url())).name).toBe(path)
  expect(server.asked).toHaveLength(1)
  const entry = (await listModels()).find(({ kind }) => kind === 'url')
  expect(entry?.name).toBe(url())
  expect(await removeModel(url())).toBe(entry?.bytes)
  expect(existsSync(path)).toBe(false)
})

it('go on while the server says that the file is the same', async () => {
  cutFirst()
  expect(readFileSync(await pullModel(url())).equals(file)).toBe(true)
  expect(asked()).toEqual([
    [undefined, undefined],
    ['bytes=60000-', '"one"'],
  ])
})

it('begin anew when it is another file, or nothing tells', async () => {
  for (const [before, after, range] of [
    ['"one"', '"two"', 'bytes=60000-'],
    ['W/"weak"', 'W/"weak"', undefined],
  ] as const) {
    etag = before
    content = file
    let first = true
    server.trouble = (request, response, path) => {
      if (!first) return serve(request, response, path)
      first = false
      cut(response, file, 60_000, before)
      // Shorter than the part that is here.
      content = file.slice(100, 50_000)
      etag = after
      return true
    }
    server.asked.length = 0
    const path = await pullModel(url())
    expect(readFileSync(path).equals(content)).toBe(true)
    expect(asked().map(([asked]) => asked)).toEqual([undefined, range])
    await removeModel(url())
  }
})

it('are compared with the checksum that the address carries', async () => {
  const right = await pullModel(`${url()}#sha256=${sha256(file)}`)
  expect(readFileSync(right).equals(file)).toBe(true)
  await expect(pullModel(`${url()}#sha256=${'0'.repeat(64)}`)).rejects.toThrow('does not match its checksum')
  await expect(pullModel(`${url()}#md5=0`)).rejects.toThrow('only sha256=<64 hexadecimal digits> is understood')
})

it('that cannot be had name why', async () => {
  await expect(pullModel(`${server.url}/files/none.gguf`)).rejects.toThrow(/none\.gguf: 127\.0\.0\.1:\d+ answers 404/)
  await expect(pullModel(`${server.url}/files/x.safetensors`)).rejects.toThrow('an address of one file is wanted')
  await expect(pullModel(`${server.url}/files/..%2F..%2Fx.gguf`)).rejects.toThrow('an address of one file is wanted')
  await expect(pullModel('http://user:pass@host/x.gguf')).rejects.toThrow('is not an address that can be fetched')
  await expect(findRows(`${server.url}/x.csv`)).rejects.toThrow('an address of one file is wanted')
})

it('count as missing where a server of a single-page app answers with its page', async () => {
  server.trouble = (_, response) => {
    response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' }).end('<!doctype html>')
    return true
  }
  await expect(pullModel(url())).rejects.toThrow(/x\.gguf: the server has no such file, it answers with a page/)
  expect(await urlFolder(`${server.url}/files/`).open('chat_template.jinja')).toBeNull()
})
