// One process, one thread count: the 0.5B shape as q4 decodes, prefills and takes a LoRA step, or draws 16 rollouts. Prints one JSON line.
// `npx tsx test/bench/half-billion.ts FOLDER THREADS`
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { measureDecode, measurePrefill, measureTraining } from '../../sdk/cli/measure.ts'
import { LanguageModel, loadModel, rollout, SFTTrainer, type TrainProgress } from '../../sdk/index.ts'

const [folder, threads, what = 'speed'] = process.argv.slice(2)
const start = performance.now()
const lm = await loadModel(folder, { device: 'wasm', threads: Number(threads), dtype: 'q4' })
const result: Record<string, number> = { threads: Number(threads), loadSeconds: (performance.now() - start) / 1000 }

if (what === 'speed') {
  result.decode = await measureDecode(lm, 32)
  result.prefill = await measurePrefill(lm, 128)
  result.train = await measureTraining(lm, 512, 1)
} else if (what === 'rollouts') {
  const prompt = lm.encodePrompt(Array.from({ length: 60 }, (_, i) => ` word${i % 97}`).join(''))
  const draw = (maxCompletionLength: number) =>
    rollout(lm, [prompt], { numGenerations: 16, maxCompletionLength, temperature: 1, seed: 1 })
  await draw(2)
  const begun = performance.now()
  const all = await draw(34)
  const tokens = all.reduce((n, { tokenIds }) => n + tokenIds.length, 0)
  result.rollouts = (1000 * tokens) / (performance.now() - begun)
} else {
  // Memory: one LoRA step at 512 tokens, then 32 tokens, nothing else.
  const trainer = new SFTTrainer({
    model: lm,
    trainDataset: [{ text: Array.from({ length: 700 }, (_, i) => ` word${i % 97}`).join('') }],
    peft: { r: 16, loraAlpha: 32 },
    args: {
      outputDir: mkdtempSync(join(tmpdir(), 'halfling-')),
      maxLength: 512,
      maxSteps: 1,
      perDeviceTrainBatchSize: 1,
      saveStrategy: 'no',
    },
    onWarning: () => {},
  })
  const onProgress = (at: TrainProgress) => {
    if (at.phase !== 'ready') return
    const { weights, optimizer, activations, total } = at.forecast
    Object.assign(result, { weights, optimizer, activations, forecastMB: total / 1e6 })
  }
  for await (const log of trainer.train({ onProgress })) if ('loss' in log) result.loss = log.loss
  const { tokenIds } = await LanguageModel.complete(lm.generate('Hello', { maxNewTokens: 32, temperature: 1, seed: 1 }))
  result.generated = tokenIds.length
}
result.peakMB = process.resourceUsage().maxRSS / 1000
await lm.close()
console.log(JSON.stringify(result))
