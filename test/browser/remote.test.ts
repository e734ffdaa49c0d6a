import { describe, expect, it } from 'vitest'
import { noBrowser, openBrowser, servePage, waitIn } from './browser.ts'

describe.skipIf(noBrowser)(`a target in a Worker of Chromium${noBrowser ? ` (${noBrowser})` : ''}`, () => {
  it('computes every op case; a Worker that is not there or that ends is a typed error', async () => {
    const [browser, page] = [await openBrowser(), await servePage('./remote-page.ts')]
    try {
      const tab = await browser.newPage()
      const wrong: string[] = []
      tab.on('pageerror', (error) => wrong.push(error.message))
      tab.on('console', (message) => {
        if (message.type() === 'error') wrong.push(message.text())
      })
      const open = async () => {
        await tab.goto(page.url)
        await waitIn(tab, 'typeof cases === "function"')
      }
      await open()
      expect(await tab.evaluate("cases('reference')")).toEqual([])
      const lost = "DeviceLostError, device-lost: the device's Worker has ended"
      expect(await tab.evaluate('ended()')).toEqual([lost, lost])
      expect(wrong).toEqual([])
      expect(await tab.evaluate('missing()')).toBe(
        "DeviceError, device: the device's Worker does not start: its script cannot be loaded",
      )
    } finally {
      await browser.close()
      page.close()
    }
  })
})
