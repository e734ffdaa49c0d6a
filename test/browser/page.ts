import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Browser, Locator, Page, Worker } from 'playwright-core'
import { build, preview } from 'vite'
import { expect } from 'vitest'
import type { LanguageModel } from '../../sdk/index.ts'
import type { Served } from './browser.ts'

// examples/browser as a person has it: built by Vite, opened in Chromium, used by labels and roles.

const root = fileURLToPath(new URL('../../examples/browser', import.meta.url))
/** For eyes: npx vitest run test/browser/page.test.ts writes them. */
const screenshots = fileURLToPath(new URL('screenshots', import.meta.url))

export async function serveExample(): Promise<Served> {
  const outDir = mkdtempSync(join(tmpdir(), 'halfling-page-'))
  await build({ root, logLevel: 'error', build: { outDir, emptyOutDir: true } })
  const server = await preview({ root, logLevel: 'error', build: { outDir }, preview: { port: 0, host: 'localhost' } })
  const close = () => {
    server.httpServer.close()
    rmSync(outDir, { recursive: true, force: true })
  }
  return { url: server.resolvedUrls!.local[0], close }
}

/** A visit: the page with nothing in its storage, and what goes wrong in it. */
export class Visit {
  readonly tab: Page
  /** Console errors, exceptions and requests to other places. */
  readonly wrong: string[] = []

  private constructor(tab: Page, url: string) {
    this.tab = tab
    tab.on('pageerror', ({ message }) => this.wrong.push(message))
    tab.on('console', (message) => {
      if (message.type() === 'error') this.wrong.push(message.text())
    })
    tab.on('request', (request) => {
      if (!request.url().startsWith(url) && !/^(blob|data):/.test(request.url())) this.wrong.push(request.url())
    })
  }

  static async start(browser: Browser, url: string, device = 'auto'): Promise<Visit> {
    const context = await browser.newContext({ viewport: { width: 1280, height: 900 } })
    const visit = new Visit(await context.newPage(), url)
    await visit.tab.goto(`${url}?device=${device}`)
    await visit.loaded()
    return visit
  }

  async loaded(): Promise<void> {
    await this.tab
      .getByText(/^nano on /)
      .waitFor()
      .catch(async (error) => {
        const told = await this.tab.locator('#status, #notice').allInnerTexts()
        throw new Error(`no model: ${told.join(' ')} ${this.wrong.join(' ')}`, { cause: error })
      })
    // The look at all devices has a Worker of its own, which ends with it.
    await this.tab.locator('#device-list li').first().waitFor({ state: 'attached' })
  }

  section(name: 'Chat' | 'Teach' | 'Adapters' | 'Model' | 'Examples' | 'Rewards' | 'Teacher'): Promise<void> {
    return this.tab.getByRole('tab', { name }).click()
  }

  /** The answer to a question, whole. */
  async ask(question: string): Promise<string> {
    await this.section('Chat')
    await this.tab.getByRole('button', { name: 'New chat' }).click()
    await this.tab.getByLabel('Message').fill(question)
    await this.tab.getByRole('button', { name: 'Send' }).click()
    await this.answers.last().locator('.hint').filter({ hasText: 'tokens' }).waitFor({ timeout: 120_000 })
    return this.answers.last().locator('.said').innerText()
  }

  get answers(): Locator {
    return this.tab.getByRole('log', { name: 'Conversation' }).locator('li.model')
  }

  /** The form of a way to learn, filled in. */
  async form(
    name: 'Examples' | 'Rewards' | 'Teacher',
    fields: Readonly<Record<string, string | number>> = {},
  ): Promise<Locator> {
    await this.section('Teach')
    await this.section(name)
    const form = this.tab.getByRole('tabpanel', { name }).locator('form')
    for (const [label, value] of Object.entries(fields))
      await form.getByLabel(label, { exact: true }).fill(String(value))
    return form
  }

  get status(): Locator {
    return this.tab.locator('#run-status')
  }

  /** Remembers every text that the run's status line shows from now on. */
  async listen(): Promise<() => Promise<string[]>> {
    await this.tab.evaluate(() => {
      const heard: string[] = []
      const line = document.getElementById('run-status')!
      new MutationObserver(() => heard.push(line.textContent)).observe(line, { childList: true })
      Object.assign(globalThis, { heard })
    })
    return () => this.tab.evaluate(() => (globalThis as unknown as { heard: string[] }).heard)
  }

  /** Waits for the run's end, which must be a good one. */
  async done(): Promise<string> {
    await this.status.filter({ hasText: /^(Done|It stopped|Cancelled)/ }).waitFor({ timeout: 240_000 })
    const said = await this.status.innerText()
    if (!said.startsWith('Done')) throw new Error(`${said} ${await this.tab.getByRole('alert').innerText()}`)
    return said
  }

  /** Of the bytes of an adapter's tensors. */
  adapterHash(name: string): Promise<string> {
    return this.tab.evaluate(async (adapter) => {
      const { halfling } = globalThis as unknown as { halfling: { model: LanguageModel } }
      const file = (await halfling.model.adapterFiles(adapter)).get('adapter_model.safetensors')!
      const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', await file.arrayBuffer()))
      return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('')
    }, name)
  }

  /** The device under the model is lost after so many more submits, as when a driver is updated; `again`: its successor too. */
  async loseDevice(submits: number, again = false): Promise<void> {
    // A device that was lost before takes its Worker with it.
    await expect.poll(() => this.devices, { timeout: 5000 }).toHaveLength(1)
    const [device] = this.devices
    if (again) this.tab.once('worker', (worker) => void loseIn(worker, submits))
    await loseIn(device, submits)
  }

  private get devices(): Worker[] {
    return this.tab.workers().filter((worker) => /device-worker/.test(worker.url()))
  }

  /** Wide and narrow, light and dark; what sticks out of a narrow page or is hard to read. */
  async look(name: string): Promise<string[]> {
    const { tab } = this
    const wrong: string[] = []
    for (const colorScheme of ['light', 'dark'] as const)
      for (const [width, height, size] of [
        [1280, 900, 'wide'],
        [390, 844, 'narrow'],
      ] as const) {
        await tab.emulateMedia({ colorScheme })
        await tab.setViewportSize({ width, height })
        await tab.waitForTimeout(100)
        await tab.screenshot({ path: join(screenshots, `${name}-${size}-${colorScheme}.png`), fullPage: true })
        wrong.push(...(await tab.evaluate(hardToRead)).map((text) => `${colorScheme}, ${width} px: ${text}`))
      }
    await tab.setViewportSize({ width: 360, height: 800 })
    const sticksOut = await tab.evaluate(() => document.documentElement.scrollWidth - innerWidth)
    if (sticksOut > 0) wrong.push(`${sticksOut} px stick out at 360 px`)
    await tab.emulateMedia({ colorScheme: 'light' })
    await tab.setViewportSize({ width: 1280, height: 900 })
    return wrong
  }

  async end(): Promise<void> {
    await this.tab.context().close()
  }
}

/** Runs beside the SDK's code in the Worker that holds the device. */
const loseIn = (worker: Worker, submits: number): Promise<void> =>
  worker.evaluate((left) => {
    const { createCommandEncoder } = GPUDevice.prototype
    GPUDevice.prototype.createCommandEncoder = function (this: GPUDevice, ...args) {
      if (left-- === 0) this.destroy()
      return createCommandEncoder.apply(this, args)
    }
  }, submits)

/** Visible texts whose contrast with what is behind them is below 4.5 (WCAG 2.2, 1.4.3). Runs in the page. */
function hardToRead(): string[] {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true })!
  const channels = (colour: string) => {
    canvas.clearRect(0, 0, 1, 1)
    canvas.fillStyle = colour
    canvas.fillRect(0, 0, 1, 1)
    return canvas.getImageData(0, 0, 1, 1).data
  }
  const luminance = (colour: string) => {
    const [r, g, b] = [...channels(colour)].map((c) =>
      c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4,
    )
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const behind = (element: Element | null): string => {
    for (let at = element; at; at = at.parentElement) {
      const { backgroundColor } = getComputedStyle(at)
      if (channels(backgroundColor)[3] === 255) return backgroundColor
    }
    return 'white'
  }
  const wrong: string[] = []
  for (const element of document.querySelectorAll<HTMLElement>('body *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent!.trim() !== '')
    if (!own || !element.checkVisibility() || element.matches(':disabled, option')) continue
    const style = getComputedStyle(element)
    const [a, b] = [luminance(element.closest('svg') ? style.fill : style.color), luminance(behind(element))]
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
    if (contrast < 4.5)
      wrong.push(`${element.tagName} "${element.textContent!.trim().slice(0, 40)}": ${contrast.toFixed(2)}`)
  }
  return wrong
}
