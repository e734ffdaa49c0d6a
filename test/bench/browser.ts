// `tsx test/bench/browser.ts [rounds] [threads] [model]`: the wasm target in headless Chromium beside Node's, on pebble. Both are measured
// in turn, the other one idle meanwhile; the best of all rounds counts. Ends with 1 when the page is more than 1.3x slower.
import { existsSync } from 'node:fs'
import { loadModel } from '../../sdk/index.ts'
import { noBrowser, openBrowser, servePage, waitIn } from '../browser/browser.ts'
import { speeds } from './browser-page.ts'

const [rounds, threads] = [Number(process.argv[2] ?? 5), Number(process.argv[3] ?? 2)]
const folder = process.argv[4] ?? '../shared/models/pebble-7m-instruct'
const skip = noBrowser ?? (existsSync(folder) ? undefined : `${folder} is not here`)
if (skip) {
  console.log(`skipped: ${skip}`)
  process.exit(0)
}

const lm = await loadModel(folder, { device: 'wasm', threads })
const [browser, page] = [await openBrowser(), await servePage('../bench/browser-page.ts', { model: folder })]
const tab = await browser.newPage()
await tab.goto(page.url)
await waitIn(tab, 'typeof measure === "function"')
if ((await tab.evaluate(`openModel(${threads})`)) !== threads)
  throw new Error(`the page does not compute on ${threads} threads`)

const best = { node: { decode: 0, train: 0 }, page: { decode: 0, train: 0 } }
for (let round = 1; round <= rounds; round++) {
  const node = await speeds(lm)
  const there = (await tab.evaluate('measure()')) as typeof node
  for (const what of ['decode', 'train'] as const) {
    best.node[what] = Math.max(best.node[what], node[what])
    best.page[what] = Math.max(best.page[what], there[what])
    const line = `Node ${node[what].toFixed(0)}, page ${there[what].toFixed(0)} tokens/s, ${(node[what] / there[what]).toFixed(2)}x`
    console.log(`round ${round}, ${what}: ${line}`)
  }
}
await browser.close()
page.close()
await lm.close()

let slow = false
for (const what of ['decode', 'train'] as const) {
  const ratio = best.node[what] / best.page[what]
  slow ||= ratio > 1.3
  const line = `Node ${best.node[what].toFixed(0)}, page ${best.page[what].toFixed(0)} tokens/s`
  console.log(
    `${ratio > 1.3 ? 'MISSED' : 'holds '}  ${what}, ${threads} threads: ${line}: ${ratio.toFixed(2)}x (at most 1.3)`,
  )
}
process.exit(slow ? 1 : 0)
