import { describe, expect, it } from 'vitest'
import { LanguageModel, loadModel } from '../../sdk/index.ts'
import { noBrowser, openBrowser, servePage, waitIn } from './browser.ts'

const question = 'Mia has 14 apples and gives 5 to Tom. How many apples does Mia have now?'

interface Cases {
  readonly features: readonly string[]
  readonly threads: number
  readonly wrong: readonly string[]
  readonly cases: number
}

describe.skipIf(noBrowser)(`wasm in Chromium${noBrowser ? ` (${noBrowser})` : ''}`, () => {
  it('computes on threads in an isolated page, on one thread elsewhere; nano answers as in Node, in a worker too', async () => {
    const lm = await loadModel('nano', { threads: 1 })
    const options = { maxNewTokens: 64, temperature: 0 }
    const here = await LanguageModel.complete(lm.chat([{ role: 'user', content: question }], options))
    await lm.close()
    const browser = await openBrowser()
    const pages = [true, false].map((isolated) => servePage('./wasm-page.ts', { nano: 'models/nano' }, { isolated }))
    try {
      for (const [i, { url }] of (await Promise.all(pages)).entries()) {
        const tab = await browser.newPage()
        const told: string[] = []
        tab.on('pageerror', (error) => told.push(error.message))
        const workers: string[] = []
        tab.on('worker', (worker) => workers.push(worker.url()))
        await tab.goto(url)
        await waitIn(tab, 'typeof cases === "function"')
        const run = (await tab.evaluate(i === 0 ? 'cases(2)' : 'cases()')) as Cases
        expect(run.wrong).toEqual([])
        expect(run.cases).toBeGreaterThan(200)
        // A barrier after each call waits for all threads: with two, both have computed.
        expect(run.threads).toBe(i === 0 ? 2 : 1)
        expect(workers).toHaveLength(i === 0 ? 2 : 0)
        expect(run.features.join()).toMatch(
          i === 0 ? /^relaxed-simd,threads$/ : /not cross-origin isolated .*Embedder-Policy/,
        )
        const asked = `${JSON.stringify(`${url}nano/`)}, ${JSON.stringify(question)}`
        expect(await tab.evaluate(`answer(${asked})`)).toEqual(here.tokenIds)
        expect(await tab.evaluate(`inWorker(${asked})`)).toEqual(here.tokenIds)
        const devices = (await tab.evaluate('devices()')) as { name: string; available: boolean; reason: string }[]
        expect(devices.map(({ name, available }) => `${name} ${available}`)).toEqual([
          ...['cuda false', 'webgpu false', 'cpu false', 'wasm true', 'reference true'],
        ])
        expect(devices[1].reason).toMatch(/swiftshader.* computes in software/i)
        expect(told).toEqual([])
        await tab.close()
      }
    } finally {
      await browser.close()
      for (const page of pages) (await page).close()
    }
  })
})
