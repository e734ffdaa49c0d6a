import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { realModel } from '../real.ts'
import { noBrowser, openBrowser, type Served } from './browser.ts'
import { serveExample, Visit } from './page.ts'

// A single .gguf file in examples/browser: chosen, and dropped.

const { path, missing } = realModel('smollm2-135m-q4_1.gguf')

describe.skipIf(noBrowser)(
  `a .gguf file in Chromium${noBrowser ? ` (${noBrowser})` : ''}`,
  { timeout: 180_000 },
  () => {
    let browser: Browser
    let served: Served
    let v: Visit
    beforeAll(async () => {
      ;[served, browser] = await Promise.all([serveExample(), openBrowser()])
      v = await Visit.start(browser, served.url, 'wasm')
      await v.section('Model')
      await v.tab.getByLabel('From this computer').check()
    })
    afterAll(async () => {
      await browser?.close()
      served?.close()
    })

    /** Drops what the chooser holds onto the page. */
    const drop = () =>
      v.tab.evaluate(() => {
        const dataTransfer = new DataTransfer()
        for (const file of (document.getElementById('model-file') as HTMLInputElement).files!)
          dataTransfer.items.add(file)
        document.body.dispatchEvent(new DragEvent('drop', { dataTransfer, bubbles: true, cancelable: true }))
      })
    const choose = (file: string | { name: string; mimeType: string; buffer: Buffer }) =>
      v.tab.getByLabel('A .gguf file', { exact: true }).setInputFiles(file)
    const status = () => v.tab.locator('#status')

    it('a dropped file that is none is named, and the model that is there stays', async () => {
      for (const [name, text, message] of [
        ['notes.txt', 'hello', 'notes.txt is no model: give a .gguf file'],
        ['cut.gguf', 'GGU', 'cut.gguf is no GGUF file'],
      ]) {
        await choose({ name, mimeType: 'application/octet-stream', buffer: Buffer.from(text) })
        await drop()
        await v.tab.getByRole('alert').filter({ hasText: message }).waitFor()
        expect(await status().innerText()).toMatch(/^nano on wasm/)
      }
    })

    it.skipIf(missing)(
      `SmolLM2 shows progress, can be cancelled, answers, and learns a fact${missing ? ` (${missing})` : ''}`,
      async () => {
        const { tab } = v
        await choose(path)
        // Chosen, and cancelled; then dropped.
        await tab.getByLabel('Keep a copy in this browser').uncheck()
        await tab.getByRole('button', { name: 'Load', exact: true }).click()
        await status()
          .filter({ hasText: /^Loading smollm2-135m-q4_1 … [1-9]/ })
          .waitFor()
        await tab.getByRole('button', { name: 'Cancel loading' }).click()
        await status().filter({ hasText: 'Loading was cancelled' }).waitFor()

        const heard = await tab.evaluateHandle(() => {
          const seen: string[] = []
          const line = document.getElementById('status')!
          new MutationObserver(() => seen.push(line.textContent)).observe(line, { childList: true })
          return seen
        })
        await drop()
        await status()
          .filter({ hasText: /^smollm2-135m-q4_1 on wasm/ })
          .waitFor({ timeout: 60_000 })
        const counts = (await heard.jsonValue()).flatMap((text) => {
          const [, done, total] = /^Loading .* … ([\d.]+) MB of ([\d.]+) MB$/.exec(text) ?? []
          return done ? [[Number(done), Number(total)]] : []
        })
        const done = counts.map(([n]) => n)
        expect(done.length).toBeGreaterThan(100)
        expect(done).toEqual(done.toSorted((a, b) => a - b))
        expect(new Set(counts.map(([, total]) => total)).size).toBe(1)
        expect(counts.at(-1)![0]).toBe(counts[0][1])

        const facts = await tab.getByRole('region', { name: 'What the model is' }).innerText()
        expect(facts).toMatch(/134,515,008/)
        expect(facts).toMatch(/You are a helpful AI assistant named SmolLM, trained by Hugging Face/)
        expect(facts).toMatch(/8,192 tokens/)

        const question = 'Which colour has the river Zorb? Answer with one word.'
        const before = await v.ask(question)
        expect(before).toMatch(/^\w{3}/)
        expect(before).not.toMatch(/purple/i)
        const form = await v.form('Examples', { Steps: 4, 'Rows a step': 1, 'LoRA rank': 4, Name: 'zorb' })
        await form.getByLabel('My own').check()
        await form.getByLabel('Rows, one JSON object a line').fill(JSON.stringify({ question, answer: 'Purple.' }))
        await form.getByText(/^Needs /).waitFor()
        await form.getByRole('button', { name: 'Start' }).click()
        await v.done()
        expect(await v.ask(question)).toBe('Purple.')
        expect(v.wrong).toEqual([])
      },
    )
  },
)
