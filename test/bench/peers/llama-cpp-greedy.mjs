// Greedy ids by node-llama-cpp on the CPU: `node llama-cpp-greedy.mjs MODEL.gguf FOLDER PROMPTS.json TOKENS`; a list of ids a prompt.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const [file, folder, prompts, tokens] = process.argv.slice(2)
const { getLlama } = await import(pathToFileURL(createRequire(`${folder}/`).resolve('node-llama-cpp')).href)
const llama = await getLlama({ gpu: false, maxThreads: 2, logLevel: 'error' })
const model = await llama.loadModel({ modelPath: file })
const context = await model.createContext({ threads: 2, contextSize: 1024 })
const sequence = context.getSequence()
const all = []
for (const prompt of JSON.parse(readFileSync(prompts, 'utf8'))) {
  await sequence.clearHistory()
  const ids = []
  for await (const id of sequence.evaluate(prompt, { temperature: 0 })) {
    if (model.isEogToken(id) || ids.push(id) === Number(tokens)) break
  }
  all.push(ids)
}
console.log(JSON.stringify(all))
process.exit(0)
