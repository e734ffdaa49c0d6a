// A long prompt on a real model, with the built package: seconds, and the memory that it takes beside the forecast of its cache.
// `npm run build && node test/bench/long-prompt.mjs MODEL.gguf TEXT TOKENS [f32|f16] [threads]`
import { readFileSync } from 'node:fs'

const { loadModel } = await import('../../dist/sdk/index.js')
const { cacheBytes } = await import('../../dist/sdk/model/precision.js')
/** MB that this process has to itself. */
const anonymous = () => (Number(/RssAnon:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) * 1024) / 1e6
const [file, text, tokens, asked, threads = '2'] = process.argv.slice(2)
const cacheDType = asked === 'f16' ? 'f16' : 'f32'
const lm = await loadModel(file, { device: 'wasm', threads: Number(threads), cacheDType })
// Kernels, programs and the garbage of loading are not the prompt's.
for await (const _ of lm.generate('Once', { maxNewTokens: 1, temperature: 0 }));
const ids = lm.tokenizer.encode(readFileSync(text, 'utf8').slice(0, 8 * Number(tokens))).slice(0, Number(tokens))
const prompt = lm.tokenizer.decode(ids)
const before = anonymous()
let peak = before
const watch = setInterval(() => {
  peak = Math.max(peak, anonymous())
}, 100)
const start = performance.now()
for await (const _ of lm.generate(prompt, { maxNewTokens: 2, temperature: 0 }));
const seconds = (performance.now() - start) / 1000
clearInterval(watch)
const count = lm.tokenizer.encode(prompt).length
const forecast = cacheBytes(lm.model.config, 1, count + 2, cacheDType) / 1e6
console.log(
  `${file.split('/').at(-1)}, ${count} tokens, ${cacheDType} cache: ${seconds.toFixed(0)} s (${(count / seconds).toFixed(0)} tokens/s); cache ${forecast.toFixed(0)} MB, ${(peak - before).toFixed(0)} MB more at the peak than the ${before.toFixed(0)} MB before`,
)
await lm.close()
