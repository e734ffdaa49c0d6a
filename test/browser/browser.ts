import { existsSync, readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Browser, type Page, chromium as playwright } from 'playwright-core'
import { build } from 'vite'
import { headers } from '../../examples/browser/headers.ts'
import { chromiumPath } from '../swiftshader.ts'

// Headless Chromium with WebGPU in software, out of an npm package, and pages that are bundled for it.

/** Why there is no browser here; undefined where there is one. */
export const noBrowser =
  process.platform === 'linux' && process.arch === 'x64' ? undefined : '@sparticuz/chromium is for Linux x64 only'

export const openBrowser = async (): Promise<Browser> =>
  playwright.launch({
    executablePath: chromiumPath(),
    headless: true,
    args: ['--no-sandbox', '--headless=shell', '--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader'],
  })

/** Of the example, and servers of tests. */
const policy = headers['content-security-policy'].replace('https:', 'https: http://localhost:* http://127.0.0.1:*')

export interface Served {
  readonly url: string
  close(): void
}

/**
 * A page with the bundle of one file, on a server of its own, with the headers of examples/browser: no code but its own files, and
 * cross-origin isolated, so that threads may share memory, unless told not to be. Folders of the project are served under other names.
 */
export async function servePage(
  entry: string,
  folders: Readonly<Record<string, string>> = {},
  { isolated = true }: { isolated?: boolean } = {},
): Promise<Served> {
  const output = await build({
    configFile: false,
    logLevel: 'error',
    build: {
      write: false,
      target: 'es2022',
      minify: false,
      rollupOptions: { input: fileURLToPath(new URL(entry, import.meta.url)), output: { format: 'es' } },
    },
  })
  const chunks = (Array.isArray(output) ? output : [output]).flatMap((o) => ('output' in o ? o.output : []))
  const files = new Map<string, string | Uint8Array>(
    chunks.map((chunk) => [`/${chunk.fileName}`, chunk.type === 'chunk' ? chunk.code : chunk.source]),
  )
  const main = chunks.find((chunk) => chunk.type === 'chunk' && chunk.isEntry)!.fileName
  files.set('/', `<!doctype html><script type="module" src="/${main}"></script>`)
  const server = createServer((request, response) => {
    const path = new URL(request.url!, 'http://x').pathname
    const [, folder, file] = path.split('/')
    const onDisk = file && Object.hasOwn(folders, folder) ? join(folders[folder], file) : ''
    const content = files.get(path) ?? (existsSync(onDisk) ? new Uint8Array(readFileSync(onDisk)) : undefined)
    const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '')
    const type = path.endsWith('.js')
      ? 'text/javascript'
      : path.endsWith('.wasm')
        ? 'application/wasm'
        : path === '/'
          ? 'text/html'
          : 'application/octet-stream'
    const part = range && content ? content.slice(Number(range[1]), Number(range[2]) + 1) : content
    response.writeHead(content === undefined ? 404 : range ? 206 : 200, {
      'content-length': part === undefined ? 0 : Buffer.byteLength(part),
      'content-type': type,
      ...(isolated && headers),
      'content-security-policy': policy,
    })
    response.end(request.method === 'HEAD' ? undefined : part)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return { url: `http://localhost:${(server.address() as AddressInfo).port}/`, close: () => server.close() }
}

/** Until an expression is true in a page. (waitForFunction evaluates in the page itself, which its policy forbids.) */
export async function waitIn(tab: Page, expression: string): Promise<void> {
  while (!(await tab.evaluate(expression))) await new Promise((resolve) => setTimeout(resolve, 10))
}
