import { describe, expect, it } from 'vitest'
import { LanguageModel, loadModel } from '../../sdk/index.ts'
import { noBrowser, openBrowser, servePage, waitIn } from './browser.ts'

const question = 'Mia has 14 apples and gives 5 to Tom. How many apples does Mia have now?'

describe.skipIf(noBrowser)(`in Chromium${noBrowser ? ` (${noBrowser})` : ''}`, () => {
  it('nano answers on the page’s WebGPU as it does in Node, from a server and from files', async () => {
    const lm = await loadModel('nano', { threads: 1 })
    const here = await LanguageModel.complete(
      lm.chat([{ role: 'user', content: question }], { maxNewTokens: 64, temperature: 0 }),
    )
    await lm.close()
    const [browser, page] = [await openBrowser(), await servePage('./chat-page.ts', { nano: 'models/nano' })]
    try {
      const tab = await browser.newPage()
      const told: string[] = []
      tab.on('pageerror', (error) => told.push(error.message))
      await tab.goto(page.url)
      await waitIn(tab, 'typeof answer === "function"')
      for (const how of ['url', 'files']) {
        const there = await tab.evaluate(`answer(${JSON.stringify(question)}, '${how}')`)
        expect(there, how).toMatchObject({ text: here.text, tokenIds: here.tokenIds })
      }
      expect(told).toEqual([])
    } finally {
      await browser.close()
      page.close()
    }
  })
})
