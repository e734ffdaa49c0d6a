// As speed-once.mjs, by node-llama-cpp on the CPU. `node llama-cpp-speed.mjs MODEL.gguf THREADS FOLDER`, which has it in node_modules.
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const [file, threads, folder] = process.argv.slice(2)
const { getLlama } = await import(pathToFileURL(createRequire(`${folder}/`).resolve('node-llama-cpp')).href)
const llama = await getLlama({ gpu: false, maxThreads: Number(threads), logLevel: 'error' })
const model = await llama.loadModel({ modelPath: file })
const context = await model.createContext({ threads: Number(threads), contextSize: 1024 })
const sequence = context.getSequence()
/** @type {(length: number, seed: number) => number[]} */
const prompt = (length, seed) => Array.from({ length }, (_, i) => 1000 + ((seed * 7919 + i * 104729) % 20_000))
/** @type {(length: number, tokens: number, seed: number) => Promise<number>} */
const seconds = async (length, tokens, seed) => {
  await sequence.clearHistory()
  const start = performance.now()
  let drawn = 0
  for await (const _ of sequence.evaluate(prompt(length, seed), { temperature: 0, yieldEogToken: true }))
    if (++drawn >= tokens) break
  return (performance.now() - start) / 1000
}
await seconds(128, 2, 1)
/** @type {number[]} */
const prefill = []
for (let run = 0; run < 5; run++) prefill.push(await seconds(128, 1, 2 + run))
const [best] = prefill.toSorted((a, b) => a - b)
/** @type {number[]} */
const times = []
for (let run = 0; run < 3; run++)
  times.push(-(await seconds(16, 32, 20 + 2 * run)) + (await seconds(16, 96, 21 + 2 * run)))
console.log(JSON.stringify({ prefill: 128 / best, decode: 64 / times.toSorted((a, b) => a - b)[1] }))
process.exit(0)
