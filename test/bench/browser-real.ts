// A real model on the wasm target in headless Chromium, beside this Node, and where FOLDER has @wllama/wllama in its node_modules beside that in
// the same Chromium. In turns, the others idle; medians. `npx tsx test/bench/browser-real.ts MODEL.gguf [FOLDER] [rounds]`
import { createReadStream, readFileSync, statSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { basename, dirname, join } from 'node:path'
import { loadModel } from '../../sdk/index.ts'
import { openBrowser, servePage, waitIn } from '../browser/browser.ts'
import { speeds } from './browser-real-page.ts'
import { median } from './median.ts'

const [model, peer, rounds = '5'] = process.argv.slice(2)
const threads = 2
type Speeds = Awaited<ReturnType<typeof speeds>>

/** wllama's page: its own files, and the model. */
function serveWllama() {
  const root = join(peer, 'node_modules/@wllama/wllama/esm')
  const script = `
    import { Wllama } from '/index.js'
    const wllama = new Wllama({ default: '/wasm/wllama.wasm' }, { suppressNativeLog: true })
    const words = (n, seed) => Array.from({ length: n }, (_, i) => ' ' + ((seed * 7919 + i * 104729) % 9)).join('')
    const ask = async (prompt, max_tokens) => {
      const start = performance.now()
      const { usage } = await wllama.createCompletion({ prompt, max_tokens, temperature: 0, ignore_eos: true, cache_prompt: false })
      return { seconds: (performance.now() - start) / 1000, ...usage }
    }
    let seed = 0
    globalThis.openModel = async () => {
      await wllama.loadModel([await (await fetch('/model.gguf')).blob()], { n_ctx: 1024, n_threads: ${threads} })
      await ask(words(64, seed++), 4)
      return wllama.getNumThreads?.() ?? null
    }
    globalThis.measure = async () => {
      const first = await ask(words(64, seed++), 1)
      const [short, long] = [await ask(words(8, seed++), 8), await ask(words(8, seed++), 40)]
      return { prefill: first.prompt_tokens / first.seconds, decode: (long.completion_tokens - short.completion_tokens) / (long.seconds - short.seconds) }
    }`
  const types: Record<string, string> = { js: 'text/javascript', wasm: 'application/wasm' }
  const server = createServer((request, response) => {
    const path = new URL(request.url!, 'http://x').pathname
    response.setHeader('cross-origin-opener-policy', 'same-origin')
    response.setHeader('cross-origin-embedder-policy', 'require-corp')
    if (path === '/') {
      response.setHeader('content-type', 'text/html')
      response.end(`<!doctype html><script type="module">${script}</script>`)
    } else if (path === '/model.gguf') {
      response.setHeader('content-length', statSync(model).size)
      createReadStream(model).pipe(response)
    } else {
      response.setHeader('content-type', types[path.split('.').at(-1)!] ?? 'text/plain')
      try {
        response.end(readFileSync(join(root, path)))
      } catch {
        response.writeHead(404).end()
      }
    }
  }).listen(0)
  return { url: `http://localhost:${(server.address() as AddressInfo).port}/`, close: () => server.close() }
}

const lm = await loadModel(model, { device: 'wasm', threads })
const browser = await openBrowser()
const pages = [
  await servePage('../bench/browser-real-page.ts', { model: dirname(model) }),
  ...(peer ? [serveWllama()] : []),
]
const tabs = []
for (const [i, { url }] of pages.entries()) {
  const tab = await browser.newPage()
  tab.on('console', (message) => message.type() === 'error' && console.error(message.text()))
  await tab.goto(url)
  await waitIn(tab, 'typeof measure === "function"')
  console.log(
    i === 0 ? 'page' : 'wllama',
    await tab.evaluate(`openModel(${JSON.stringify(basename(model))}, ${threads})`),
  )
  tabs.push(tab)
}
const all: Speeds[][] = [[], [], []]
for (let round = 0; round < Number(rounds); round++) {
  all[0].push(await speeds(lm))
  for (const [i, tab] of tabs.entries()) all[i + 1].push((await tab.evaluate('measure()')) as Speeds)
}
for (const key of ['prefill', 'decode'] as const) {
  const [node, page, wllama] = all.map((of) => (of.length > 0 ? median(of.map((speed) => speed[key])) : Number.NaN))
  const [byNode, byPeer] = [page / node, page / wllama].map((ratio) => `${ratio.toFixed(2)}x`)
  console.log(
    `${basename(model)}, ${key}: page ${page.toFixed(1)} tokens/s, Node ${process.version} ${node.toFixed(1)} (${byNode}), wllama ${wllama.toFixed(1)} (${byPeer})`,
  )
}
await browser.close()
for (const page of pages) page.close()
await lm.close()
