import { describe, expect, it } from 'vitest'
import { cases } from '../formats/file-system-cases.ts'
import { noBrowser, openBrowser, servePage } from './browser.ts'

describe.skipIf(noBrowser)(`the browser's storage${noBrowser ? ` (${noBrowser})` : ''}`, () => {
  it('behaves as the files of Node, in a page and in a worker', async () => {
    const [browser, page] = [await openBrowser(), await servePage('./file-system-page.ts')]
    try {
      const tab = await browser.newPage()
      await tab.goto(page.url)
      await tab.waitForFunction('typeof runCases === "function"')
      const wanted = Object.fromEntries(Object.entries(cases).map(([name, { gives }]) => [name, gives]))
      expect(await tab.evaluate('runCases()')).toEqual(wanted)
      expect(await tab.evaluate('inWorker()')).toEqual(wanted)
    } finally {
      await browser.close()
      page.close()
    }
  })
})
