import { describe, expect, it } from 'vitest'
import { noBrowser, openBrowser, servePage, waitIn } from './browser.ts'
import type { CasesRun } from './ops-page.ts'

describe.skipIf(noBrowser)(`in Chromium${noBrowser ? ` (${noBrowser})` : ''}`, () => {
  it('every op case passes on the page’s WebGPU', async () => {
    const [browser, page] = [await openBrowser(), await servePage('./ops-page.ts')]
    try {
      const tab = await browser.newPage()
      await tab.goto(page.url)
      await waitIn(tab, 'typeof runCases === "function"')
      const { description, wrong } = (await tab.evaluate('runCases()')) as CasesRun
      expect(wrong).toEqual([])
      expect(description).toMatch(/swiftshader/i)
    } finally {
      await browser.close()
      page.close()
    }
  })
})
