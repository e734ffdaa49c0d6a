// Eight chats at once through the server against the same eight one after the other: `npx tsx test/bench/serve.ts FOLDER [THREADS]`
import { loadModel } from '../../sdk/index.ts'
import { serveApp } from '../../sdk/serve/app.ts'
import { median } from './median.ts'

const [folder, threads = '2'] = process.argv.slice(2)
const lm = await loadModel(folder, { device: 'wasm', threads: Number(threads) })
const app = serveApp(lm, { modelName: 'model' })
const ask = async (i: number, round: number): Promise<string> => {
  // No two alike, so that nothing is found in the cache.
  const content = `${round}: Dan has ${i + 12} apples and buys ${3 * i + round + 5} more. How many apples does he have now?`
  const body = JSON.stringify({ messages: [{ role: 'user', content }], temperature: 0, max_tokens: 64 })
  const response = await app.request('/v1/chat/completions', { method: 'POST', body })
  const { choices } = await response.json()
  return choices[0].message.content
}
const all = Array.from({ length: 8 }, (_, i) => i)
const timed = async (work: () => Promise<unknown>): Promise<number> => {
  const start = performance.now()
  await work()
  return (performance.now() - start) / 1000
}
const [together, apart]: [number[], number[]] = [[], []]
await Promise.all(all.map((i) => ask(i, 0)))
for (let round = 1; round <= 9; round++) {
  apart.push(
    await timed(async () => {
      for (const i of all) await ask(i, 2 * round)
    }),
  )
  together.push(await timed(() => Promise.all(all.map((i) => ask(i, 2 * round + 1)))))
}
const [a, b] = [median(together), median(apart)]
console.log(`eight at once ${a.toFixed(2)} s, one after the other ${b.toFixed(2)} s: ${(a / b).toFixed(2)}x`)
await lm.close()
