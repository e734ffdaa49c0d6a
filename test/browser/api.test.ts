import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { makeProblem } from '../../examples/nano/problems.ts'
import type { Lost, Rewarded, Tried } from './api-page.ts'
import { noBrowser, openBrowser, type Served, servePage, waitIn } from './browser.ts'
import { longestTask } from './longest-task.ts'

const rows = Array.from({ length: 8 }, (_, i) => ({ ...makeProblem('backward', 61, i) }))

describe.skipIf(noBrowser)(`the SDK in a page of Chromium${noBrowser ? ` (${noBrowser})` : ''}`, () => {
  let browser: Browser
  let served: Served
  let tab: Page
  const wrong: string[] = []
  beforeAll(async () => {
    ;[browser, served] = await Promise.all([openBrowser(), servePage('./api-page.ts', { nano: 'models/nano' })])
    tab = await browser.newPage()
    tab.on('pageerror', (error) => wrong.push(error.message))
    tab.on('console', (message) => {
      // nano has no chat_template.jinja beside its tokenizer_config.json.
      if (message.type() === 'error' && !message.text().includes('404')) wrong.push(message.text())
    })
    await tab.goto(served.url)
    await waitIn(tab, 'typeof tryApi === "function"')
  })
  afterAll(async () => {
    await browser?.close()
    served?.close()
    expect(wrong).toEqual([])
  })
  const call = <T>(name: string): Promise<T> => tab.evaluate(`${name}(${JSON.stringify(rows)})`)

  it('chats, trains, foretells, aborts; its errors have their classes', async () => {
    const tried = await call<Tried>('tryApi')
    expect(tried.text).toContain('<answer>42</answer>')
    expect(tried.losses).toHaveLength(3)
    expect(tried.losses[2]).toBeLessThan(tried.losses[0])
    expect(tried.wrongRow).toMatchObject({ kind: 'data', code: 'data' })
    expect(tried.wrongRow.message).toMatch(/^row 0: its columns are colour/)
    const { weights, optimizer, activations, total } = tried.forecast
    expect(total).toBe(weights + optimizer + activations)
    expect(tried.aborted.message).toBe('enough')
    expect(tried.busy).toMatchObject({ kind: 'option', message: 'setAdapters: a training runs, end it first' })
    // The first, and the one that was left: what was refused, foretold or aborted left none.
    expect(tried.adapters).toEqual(['default', 'default-2'])
    expect(tried.taken.message).toBe('adapter "default-2" is loaded already: give another name')
    expect(tried.renamed).toEqual([['first'], ['first']])
  })

  it('rewards are closures of the page and answers as mathematics; a second model draws, or is compared with', async () => {
    const { seen, own, asMathematics, broken, drawn, compared } = await call<Rewarded>('tryRewards')
    expect(own).toHaveLength(2)
    for (const log of own) expect(log).toHaveProperty('rewards/accuracyReward')
    expect(asMathematics).toEqual([1, 0, 1])
    expect(broken).toMatchObject({ kind: 'reward', code: 'reward' })
    expect(broken.message).toContain('missing is not defined')
    for (const { reward, loss } of [...own, ...drawn, ...compared]) {
      expect(reward).toBeGreaterThanOrEqual(-1)
      expect(Number.isFinite(loss)).toBe(true)
    }
    expect(drawn[0]).toHaveProperty('importanceWeight')
    expect(compared[0]).toHaveProperty('kl')
    // Three runs of two steps of four tries.
    expect(seen).toBe(24)
  })

  it('a Worker that ends under a training and an answer costs time and nothing else', async () => {
    const { whole, cut, workers } = await call<Lost>('tryLoss')
    expect(whole.lost).toBe(0)
    expect(cut).toEqual({ ...whole, lost: 2 })
    expect(workers).toBe(4)
  })

  it('holds up the page for less than 50 ms while it loads, chats, trains and draws', async () => {
    await call('tryWorks')
    for (const work of ['load', 'chat', 'training', 'rollouts']) {
      const longest = await longestTask(tab, () => tab.evaluate(`works.${work}().then(() => {})`))
      console.log(`${work}: the longest task takes ${longest.toFixed(0)} ms`)
      expect(longest, work).toBeLessThan(50)
    }
    await tab.evaluate('works.end()')
  })
})
