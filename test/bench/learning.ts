// `halfling sft`'s work on Pebble's unseen families from our own LoRA start: accuracy and time beside PyTorch's run.
// `npx tsx test/bench/learning.ts [seed] [python with torch, transformers, peft] [device]`: with a Python, both run in the same minutes.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type DeviceName, evaluate, loadModel, SFTTrainer } from '../../sdk/index.ts'

const shared = process.env.HALFLING_SHARED ?? '../shared'
const [seed = '0', python, device = 'wasm'] = process.argv.slice(2)
const folder = join(shared, 'models/pebble-7m-instruct')
const [train, test] = ['unseen_train', 'unseen_test'].map((name) => join(shared, 'data/pebble', `${name}.jsonl`))
const rows = readFileSync(test, 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line))

const start = performance.now()
const seconds = () => (performance.now() - start) / 1000
const lm = await loadModel(folder, { device: device as DeviceName, dtype: 'f32' })
const trainer = new SFTTrainer({
  model: lm,
  trainDataset: train,
  peft: { r: 16, loraAlpha: 32, targetModules: 'all-linear' },
  args: {
    outputDir: mkdtempSync(join(tmpdir(), 'halfling-')),
    maxSteps: 150,
    perDeviceTrainBatchSize: 16,
    learningRate: 1e-3,
    warmupSteps: 10,
    lrSchedulerType: 'linear',
    gradientCheckpointing: false,
    saveStrategy: 'no',
    seed: Number(seed),
  },
})
let last = {}
for await (const log of trainer.train()) {
  last = log
  if (log.step % 30 === 0) console.log(JSON.stringify(log))
}
const trainSeconds = seconds()
const result = await evaluate(lm, rows, { grader: 'exact', maxNewTokens: 96, slots: 64 })
const totalSeconds = seconds()
console.log(JSON.stringify({ seed, trainSeconds, totalSeconds, accuracy: result.accuracy, last }))
await lm.close()
if (python) {
  const peer = execFileSync(python, ['test/bench/peers/pebble_sft.py', folder, train, test], { encoding: 'utf8' })
  const { totalSeconds: theirs, accuracy } = JSON.parse(peer.trim().split('\n').at(-1)!)
  console.log(`PyTorch: ${theirs} s, accuracy ${accuracy}; ours takes ${(totalSeconds / theirs).toFixed(2)}x`)
}
