// As load-once.mjs, by node-llama-cpp on the CPU. `node llama-cpp-load.mjs MODEL.gguf THREADS PROMPT FOLDER`, which has it in node_modules.
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const [file, threads, prompt, folder] = process.argv.slice(2)
const { getLlama } = await import(pathToFileURL(createRequire(`${folder}/`).resolve('node-llama-cpp')).href)
const llama = await getLlama({ gpu: false, maxThreads: Number(threads), logLevel: 'error' })
const start = performance.now()
const model = await llama.loadModel({ modelPath: file })
const loaded = performance.now()
const context = await model.createContext({ threads: Number(threads), contextSize: 2048 })
for await (const _ of context.getSequence().evaluate(model.tokenize(prompt), { temperature: 0 })) break
console.log(JSON.stringify({ load: loaded - start, firstToken: performance.now() - start }))
process.exit(0)
