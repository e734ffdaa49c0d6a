import type { Page } from 'playwright-core'
import { expect } from 'vitest'

/** Of Chromium's trace format; `tdur` is the microseconds of the processor that a task took. */
interface TraceEvent {
  readonly pid: number
  readonly tid: number
  readonly tdur?: number
  readonly args: { readonly name?: string }
}

/**
 * The longest time in milliseconds that a page kept others waiting during `work`: the processor's time of its largest task, since other
 * programs hold a page up too.
 */
export async function longestTask(tab: Page, work: () => Promise<unknown>): Promise<number> {
  const browser = tab.context().browser()!
  await browser.startTracing(tab, { categories: ['toplevel'] })
  await work()
  const { traceEvents } = JSON.parse(String(await browser.stopTracing())) as { traceEvents: TraceEvent[] }
  const thread = traceEvents.find(({ args }) => args.name === 'CrRendererMain')!
  const tasks = traceEvents.filter(
    ({ pid, tid, tdur }) => pid === thread.pid && tid === thread.tid && tdur !== undefined,
  )
  expect(tasks.length).toBeGreaterThan(10)
  return Math.max(...tasks.map(({ tdur }) => tdur! / 1000))
}
