import { describe, expect, it } from 'vitest'
import { cases } from '../store/cases.ts'
import { noBrowser, openBrowser, servePage, waitIn } from './browser.ts'

describe.skipIf(noBrowser)(`the browser's storage${noBrowser ? ` (${noBrowser})` : ''}`, () => {
  it('is a store like the others, in a page and in a worker', async () => {
    const [browser, page] = [await openBrowser(), await servePage('./store-page.ts')]
    try {
      const tab = await browser.newPage()
      await tab.goto(page.url)
      await waitIn(tab, 'typeof runCases === "function"')
      const wanted = Object.fromEntries(Object.entries(cases).map(([name, { gives }]) => [name, gives]))
      expect(await tab.evaluate('runCases()')).toEqual(wanted)
      expect(await tab.evaluate('inWorker()')).toEqual(wanted)
    } finally {
      await browser.close()
      page.close()
    }
  })
})
