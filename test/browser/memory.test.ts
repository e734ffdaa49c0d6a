import type { CDPSession, Page } from 'playwright-core'
import { describe, expect, it } from 'vitest'
import { missing, model } from '../formats/shared.ts'
import { noBrowser, openBrowser, servePage, waitIn } from './browser.ts'

/** Bytes that a page and its Workers hold outside of the GPU: objects and ArrayBuffers, without garbage. */
class HeapWatch {
  private readonly cdp: CDPSession
  private readonly workers = new Set<string>()
  private readonly answers = new Map<number, (result: HeapUsage) => void>()
  private calls = 0

  private constructor(cdp: CDPSession) {
    this.cdp = cdp
    cdp.on('Target.attachedToTarget', ({ sessionId }) => this.workers.add(sessionId))
    cdp.on('Target.detachedFromTarget', ({ sessionId }) => this.workers.delete(sessionId))
    cdp.on('Target.receivedMessageFromTarget', ({ message }) => {
      const { id, result } = JSON.parse(message)
      this.answers.get(id)?.(result)
    })
  }

  static async of(tab: Page): Promise<HeapWatch> {
    const cdp = await tab.context().newCDPSession(tab)
    const watch = new HeapWatch(cdp)
    await cdp.send('Target.setAutoAttach', { autoAttach: true, waitForDebuggerOnStart: false, flatten: false })
    return watch
  }

  get workerCount(): number {
    return this.workers.size
  }

  async bytes(): Promise<number> {
    await this.cdp.send('HeapProfiler.collectGarbage')
    const usages = [(await this.cdp.send('Runtime.getHeapUsage')) as HeapUsage]
    for (const sessionId of this.workers) {
      await this.ask(sessionId, 'HeapProfiler.collectGarbage')
      usages.push(await this.ask(sessionId, 'Runtime.getHeapUsage'))
    }
    return usages.reduce((sum, { usedSize, backingStorageSize }) => sum + usedSize + backingStorageSize, 0)
  }

  private async ask(sessionId: string, method: string): Promise<HeapUsage> {
    const id = ++this.calls
    const answer = new Promise<HeapUsage>((resolve) => this.answers.set(id, resolve))
    await this.cdp.send('Target.sendMessageToTarget', { sessionId, message: JSON.stringify({ id, method }) })
    return answer
  }
}

interface HeapUsage {
  readonly usedSize: number
  readonly backingStorageSize: number
}

describe.skipIf(noBrowser)(`memory in Chromium${noBrowser ? ` (${noBrowser})` : ''}`, () => {
  it.skipIf(missing(model('pebble-7m-base')))(
    'weights on the GPU are held nowhere else: less than 5% of them stay in the page and its Worker (shared)',
    async () => {
      const [browser, page] = [
        await openBrowser(),
        await servePage('./memory-page.ts', { model: model('pebble-7m-base') }),
      ]
      try {
        const tab = await browser.newPage()
        const watch = await HeapWatch.of(tab)
        await tab.goto(page.url)
        await waitIn(tab, 'typeof load === "function"')
        const held: Record<string, [weights: number, outside: number]> = {}
        // The first load brings the code too.
        for (const dtype of ['q4', 'q4', 'f32'])
          held[dtype] = [(await tab.evaluate(`load('${dtype}')`)) as number, await watch.bytes()]
        expect(watch.workerCount).toBe(1)
        const more = held.f32.map((bytes, i) => bytes - held.q4[i])
        console.log(`of ${more[0]} more bytes of weights ${more[1]} are held outside of the GPU`)
        expect(more[0]).toBeGreaterThan(20e6)
        expect(more[1]).toBeLessThan(0.05 * more[0])
      } finally {
        await browser.close()
        page.close()
      }
    },
  )
})
