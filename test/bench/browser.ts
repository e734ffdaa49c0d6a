// Decoding and a LoRA step of pebble on the wasm target: Chromium (cross-origin isolated, two threads) beside Node, in turns.
// npx tsx test/bench/browser.ts [rounds]
import { join } from 'node:path'
import { measureDecode, measureTraining } from '../../sdk/cli/measure.ts'
import { loadModel } from '../../sdk/index.ts'
import { openBrowser, servePage } from '../browser/browser.ts'

const rounds = Number(process.argv[2] ?? 5)
const pebble = join(process.env.HALFLING_SHARED ?? '../shared', 'models/pebble-7m-instruct')
const [decodeTokens, trainTokens, steps] = [256, 512, 3]

interface Speeds {
  readonly decode: number
  readonly training: number
  readonly threads: number
}

async function inNode(): Promise<Speeds> {
  const lm = await loadModel(pebble, { device: 'wasm', threads: 2 })
  const decode = await measureDecode(lm, decodeTokens)
  const training = await measureTraining(lm, trainTokens, steps)
  await lm.close()
  return { decode, training, threads: 2 }
}

const [browser, page] = [await openBrowser(), await servePage('../bench/browser-page.ts', { pebble })]
const best = { node: { decode: 0, training: 0 }, chromium: { decode: 0, training: 0 } }
try {
  const tab = await browser.newPage()
  await tab.goto(page.url)
  await tab.waitForFunction('typeof measure === "function"')
  for (let round = 0; round < rounds; round++) {
    const node = await inNode()
    const chromium = (await tab.evaluate(`measure(${decodeTokens}, ${trainTokens}, ${steps})`)) as Speeds
    for (const key of ['decode', 'training'] as const) {
      best.node[key] = Math.max(best.node[key], node[key])
      best.chromium[key] = Math.max(best.chromium[key], chromium[key])
    }
    console.log(`round ${round + 1}`, { node, chromium })
  }
} finally {
  await browser.close()
  page.close()
}
for (const key of ['decode', 'training'] as const) {
  const [node, chromium] = [best.node[key], best.chromium[key]]
  console.log(
    `${key}: Node ${node.toFixed(0)} tokens/s, Chromium ${chromium.toFixed(0)}, ${(node / chromium).toFixed(2)}x Node's time`,
  )
}
