// One fresh process (speed.ts): tokens/s of a model on a device, with the built package. Prints one JSON line.
// `node speed-once.mjs MODEL THREADS DEVICE`
const { loadModel, generateBatch } = await import('../../dist/sdk/index.js')
const [file, threads, given] = process.argv.slice(2)
const device = given === 'cpu' ? 'cpu' : 'wasm'
const lm = await loadModel(file, { device, threads: Number(threads) })
const forced = { temperature: 0, logitBias: Object.fromEntries([...lm.eosTokenIds].map((id) => [id, -Infinity])) }
/** Token ids that nothing has cached.
 * @type {(length: number, seed: number) => number[]} */
const prompt = (length, seed) => Array.from({ length }, (_, i) => 1000 + ((seed * 7919 + i * 104729) % 20_000))
/** @type {(rows: number, length: number, tokens: number, seed: number) => Promise<number>} */
const seconds = async (rows, length, tokens, seed) => {
  const prompts = Array.from({ length: rows }, (_, row) => prompt(length, 31 * seed + row))
  const options = { ...forced, maxNewTokens: tokens }
  const start = performance.now()
  if (rows === 1) for await (const _ of lm.generate(prompts[0], options));
  else for await (const _ of generateBatch(lm, prompts, { ...options, slots: rows }));
  return (performance.now() - start) / 1000
}
/** What is compiled is compiled before; a decode rate is a difference of two lengths, the median of three.
 * @type {(rows: number, length: number, tokens: number) => Promise<number>} */
const rate = async (rows, length, tokens) => {
  await seconds(rows, length, tokens, 1)
  /** @type {number[]} */
  const times = []
  for (let run = 0; run < 3; run++)
    times.push(
      -(await seconds(rows, length, tokens, 2 * run + 2)) + (await seconds(rows, length, 3 * tokens, 2 * run + 3)),
    )
  return (rows * 2 * tokens) / times.toSorted((a, b) => a - b)[1]
}
await seconds(1, 128, 1, 4)
/** @type {number[]} */
const prefill = []
for (let run = 0; run < 5; run++) prefill.push(await seconds(1, 128, 1, 5 + run))
const [best] = prefill.toSorted((a, b) => a - b)
const decode = await rate(1, 16, 32)
const decode16 = await rate(16, 16, 8)
console.log(JSON.stringify({ prefill: 128 / best, decode, decode16 }))
await lm.close()
