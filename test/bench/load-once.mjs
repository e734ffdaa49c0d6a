// One fresh process (load.ts): a model from its file to its first token, with the built package. Prints one JSON line.
import { readFileSync } from 'node:fs'

const { loadModel } = await import('../../dist/sdk/index.js')
/** MB that this process has to itself. */
const anonymous = () => Number(/RssAnon:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) / 1024
const [file, threads, prompt] = process.argv.slice(2)
let peakMB = 0
const start = performance.now()
const lm = await loadModel(file, {
  device: 'wasm',
  threads: Number(threads),
  onProgress: () => {
    peakMB = Math.max(peakMB, anonymous())
  },
})
const [loaded, residentMB] = [performance.now(), anonymous()]
for await (const _ of lm.generate(prompt, { maxNewTokens: 1, temperature: 0 })) break
const first = performance.now()
const weightsMB = lm.model.weightBytes / 2 ** 20
const largestMB = Math.max(...[...lm.model.weights].map(([name, type]) => lm.model.buffer(name, type).bytes)) / 2 ** 20
console.log(
  JSON.stringify({ load: loaded - start, firstToken: first - start, weightsMB, largestMB, residentMB, peakMB }),
)
await lm.close()
