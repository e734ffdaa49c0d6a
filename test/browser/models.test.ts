import { readdirSync, readFileSync } from 'node:fs'
import type { BrowserContext, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Hub, send, sha256, startHub, type Trouble } from '../hub/server.ts'
import { noBrowser, openBrowser, type Served, servePage, waitIn } from './browser.ts'

const names = readdirSync('models/nano')
const files = Object.fromEntries(names.map((name) => [name, new Uint8Array(readFileSync(`models/nano/${name}`))]))
const weights = files['model.safetensors']
const total = Object.values(files).reduce((sum, { length }) => sum + length, 0)

describe.skipIf(noBrowser)(`models in Chromium${noBrowser ? ` (${noBrowser})` : ''}`, () => {
  let browser: Awaited<ReturnType<typeof openBrowser>>
  let context: BrowserContext
  let page: Served
  let hub: Hub
  let tab: Page
  let wanted: unknown

  async function open(): Promise<Page> {
    const opened = await context.newPage()
    await opened.goto(page.url)
    await waitIn(opened, 'typeof pull === "function"')
    return opened
  }

  beforeAll(async () => {
    hub = await startHub({ 'models/org/nano': { commit: 'c'.repeat(40), files } })
    page = await servePage('./models-page.ts', { files: 'models/nano' })
    browser = await openBrowser()
    context = await browser.newContext()
    await context.route('https://huggingface.co/**', async (route) => {
      const url = route.request().url().replace('https://huggingface.co', hub.url)
      await route.fulfill({ response: await route.fetch({ url, maxRedirects: 0 }) })
    })
    tab = await open()
    hub.trouble = allow
    wanted = await tab.evaluate('answer()')
  })
  afterAll(async () => {
    await browser.close()
    page.close()
    await hub.close()
  })

  /** What the hub answers to pages of other sites; files below /folder/ are those of any server. */
  const allow: Trouble = (request, response, path) => {
    response.setHeader('access-control-allow-origin', '*')
    response.setHeader('access-control-expose-headers', 'ETag, Content-Range')
    const file = /^\/folder\/(.+)$/.exec(path)?.[1]
    if (!file) return false
    if (Object.hasOwn(files, file)) send(request, response, files[file], `"${sha256(files[file])}"`)
    else response.writeHead(404).end()
    return true
  }

  /** The first answer with the weights sends most of them and stands still. */
  function stall(): void {
    let first = true
    hub.trouble = (request, response, path) => {
      allow(request, response, path === '/folder/model.safetensors' && first ? '' : path)
      if (response.writableEnded) return true
      if (!first || !(path.startsWith('/cdn/') || path === '/folder/model.safetensors')) return false
      first = false
      response.writeHead(200, { etag: `"${sha256(weights)}"`, 'content-length': weights.length })
      response.write(weights.subarray(0, weights.length - 1000))
      return true
    }
  }

  it('nano comes with the page', () => {
    expect(wanted).toHaveLength(4)
  })

  it.each([
    ['of the hub', () => 'org/nano', 'model'],
    ['below an address', () => `${hub.url}/folder/`, 'url'],
  ])('a download %s goes on after its tab was closed, and is found, told and removed', async (_, name, kind) => {
    stall()
    hub.asked.length = 0
    const first = await open()
    await first.evaluate(`void pull('${name()}')`)
    await expect.poll(() => tab.evaluate('partBytes()'), { timeout: 20_000 }).toBeGreaterThanOrEqual(2 ** 20)
    await first.close()
    hub.trouble = allow
    const path = await tab.evaluate(`pull('${name()}')`)
    expect(path).toMatch(/^models\//)
    const ranges = hub.asked.map(({ range }) => Number(/^bytes=(\d+)-$/.exec(range ?? '')?.[1] ?? 0))
    expect(Math.max(...ranges)).toBeGreaterThanOrEqual(2 ** 20)
    hub.asked.length = 0
    expect(await tab.evaluate(`answer('${name()}')`)).toEqual(wanted)
    expect(hub.asked).toEqual([])
    const listed = (await tab.evaluate('list()')) as { name: string; kind: string; bytes: number }[]
    expect(listed).toEqual([{ name: name(), kind, bytes: expect.any(Number) }])
    expect(listed[0].bytes).toBeGreaterThanOrEqual(total)
    expect(await tab.evaluate(`removeModel('${name()}')`)).toBe(listed[0].bytes)
    expect(await tab.evaluate('list()')).toEqual([])
  })

  it('a wrong content is refused and deleted', async () => {
    hub.edit = (entries) =>
      entries.map((entry) => (entry.lfs ? { ...entry, lfs: { ...entry.lfs, oid: '0'.repeat(64) } } : entry))
    hub.trouble = (request, response, path) => {
      allow(request, response, path)
      if (!path.endsWith('/model.safetensors')) return false
      send(request, response, weights, '"x"')
      return true
    }
    expect(await tab.evaluate("pull('org/nano')")).toMatch(/^hub: .*does not match its checksum/)
    hub.edit = null
    hub.trouble = allow
    const left = (await tab.evaluate('stored()')) as string[]
    expect(left.filter((file) => /0{64}|incomplete/.test(file))).toEqual([])
    await tab.evaluate("removeModel('org/nano')")
  })

  it('files that the page was given are imported under a name, whole or not at all', async () => {
    const given = `'${page.url}files/', ${JSON.stringify(names)}`
    expect(await tab.evaluate(`imported(${given}, 'mine')`)).toBe('models/halfling-imported/mine')
    expect(await tab.evaluate("answer('mine')")).toEqual(wanted)
    expect(await tab.evaluate('list()')).toEqual([{ name: 'mine', kind: 'imported', bytes: total }])
    const sizes = [files['config.json'].length, null]
    expect(await tab.evaluate("picked('mine', ['config.json', 'none.json'])")).toEqual(sizes)
    expect(await tab.evaluate(`imported(${given}, 'mine')`)).toMatch(/^option: mine: is there already/)
    expect(await tab.evaluate(`imported('${page.url}files/', ['config.json'], 'half')`)).toMatch(/half: has neither/)
    const session = await context.newCDPSession(tab)
    await session.send('Storage.overrideQuotaForOrigin', { origin: new URL(page.url).origin, quotaSize: 2_000_000 })
    expect(await tab.evaluate(`imported(${given}, 'more')`)).toMatch(/^io: more: needs .* MB more, and .* MB are left/)
    await session.send('Storage.overrideQuotaForOrigin', { origin: new URL(page.url).origin })
    expect(((await tab.evaluate('stored()')) as string[]).filter((file) => /more|half\b/.test(file))).toEqual([])
    expect(await tab.evaluate("removeModel('mine')")).toBe(total)
    expect(await tab.evaluate('list()')).toEqual([])
  })

  it('rows of files and adapters of the storage are read', async () => {
    const row = { question: 'What is 2 + 3?', answer: '5' }
    const text = `${JSON.stringify(row)}\n`.repeat(2)
    const [saved, again] = (await tab.evaluate(`adapterThereAndBack(${JSON.stringify(text)})`)) as string[]
    expect(saved.length).toBeGreaterThan(1000)
    expect(again).toBe(saved)
    expect(await tab.evaluate(`rowsOf(${JSON.stringify(text)})`)).toEqual([
      ['rows.jsonl:1', row],
      ['rows.jsonl:2', row],
      ['dropped.jsonl:1', row],
      ['dropped.jsonl:2', row],
      expect.stringMatching(/x\.parquet: parquet is read in Node alone/),
    ])
  })
})
