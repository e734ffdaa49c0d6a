// One process, one thread count: loads the 0.5B shape as q4, prefills, decodes, trains one LoRA step. Prints one JSON line.
// `npx tsx test/bench/half-billion.ts FOLDER THREADS [load decode train]`
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { LanguageModel, loadModel, SFTTrainer } from '../../sdk/index.ts'

const [folder, threads, ...parts] = process.argv.slice(2)
const does = (part: string) => parts.length === 0 || parts.includes(part)
const result: Record<string, number | string> = { threads: Number(threads) }
const now = () => performance.now() / 1000

let t = now()
const lm = await loadModel(folder, { device: 'wasm', threads: Number(threads), dtype: 'q4' })
result.loadSeconds = now() - t
result.weightsMB = [...lm.model.weights].length
const ids = Array.from({ length: 128 }, (_, i) => 1000 + i * 7)

if (does('decode')) {
  await LanguageModel.complete(lm.generate(ids.slice(0, 127), { maxNewTokens: 2, temperature: 0 })) // compiles
  const other = ids.map((id) => id + 1)
  t = now()
  let first = 0
  let count = 0
  for await (const piece of lm.generate(other, {
    maxNewTokens: 33,
    temperature: 0,
    logitBias: { 151645: Number.NEGATIVE_INFINITY },
  })) {
    if (first === 0) first = now()
    count += piece.tokenIds.length
  }
  // The first piece comes after the prefill and, where its text was not whole yet, a few tokens more.
  result.generateSeconds = now() - t
  result.tokens = count
  t = now()
  const prompt = ids.map((id) => id + 2)
  await LanguageModel.complete(lm.generate(prompt, { maxNewTokens: 1, temperature: 0 }))
  const prefill = now() - t
  result.prefillTokensPerSecond = 128 / prefill
  result.decodeTokensPerSecond = (count - 1) / ((result.generateSeconds as number) - prefill)
}
if (does('train')) {
  const text = Array.from({ length: 640 }, (_, i) => ` word${i % 97}`).join('')
  const trainer = new SFTTrainer({
    model: lm,
    trainDataset: [{ text }],
    peft: { r: 16, loraAlpha: 32 },
    args: {
      outputDir: mkdtempSync(join(tmpdir(), 'halfling-')),
      maxLength: 512,
      maxSteps: 2,
      perDeviceTrainBatchSize: 1,
      saveStrategy: 'no',
    },
    onWarning: () => {},
  })
  for await (const log of trainer.train())
    if ('loss' in log) {
      result.trainTokensPerSecond = log.tokensPerSecond
      result.loss = log.loss
    }
  const forecast = trainer.forecast
  if (forecast) result.forecastMB = forecast.total / 1e6
}
delete result.weightsMB
result.peakMB = process.resourceUsage().maxRSS / 1024
await lm.close()
console.log(JSON.stringify(result))
