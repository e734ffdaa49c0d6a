// A fine-tune on your own rows, start to end: accuracy before, training, accuracy after, an adapter on disk that PEFT loads.
//
//     npx tsx examples/finetune-laptop.ts <train.jsonl> <test.jsonl> <output folder> [model]
//
// A row has question and answer, and solution where the steps are known.

import { readFile } from 'node:fs/promises'
import { evaluate, loadModel, type Question, SFTTrainer } from '../sdk/index.ts'

const [trainFile, testFile, outputDir, modelName] = process.argv.slice(2)
if (!outputDir) throw new Error('usage: npx tsx examples/finetune-laptop.ts <train.jsonl> <test.jsonl> <output folder>')

const test: Question[] = (await readFile(testFile, 'utf8'))
  .split('\n')
  .filter(Boolean)
  .map((line) => JSON.parse(line))
const model = await loadModel(modelName)
const percent = async () => `${(100 * (await evaluate(model, test, { grader: 'exact' })).accuracy).toFixed(1)}%`
console.log(`before: ${await percent()} of ${test.length} right`)

const trainer = new SFTTrainer({
  model,
  trainDataset: trainFile,
  peft: { r: 16, loraAlpha: 32, targetModules: 'all-linear' },
  args: { outputDir, numTrainEpochs: 1, perDeviceTrainBatchSize: 16, learningRate: 2e-3, saveSteps: 100 },
  onWarning: console.warn,
})
// Interrupted? Start it again: it goes on from the last checkpoint.
for await (const log of trainer.train({ resume: true })) {
  if (!('loss' in log)) continue
  const { step, totalSteps, loss, tokensPerSecond } = log
  if (step % 10 === 0)
    console.log(`step ${step}/${totalSteps}  loss ${loss.toFixed(4)}  ${tokensPerSecond.toFixed(0)} tokens/s`)
}
console.log(`after: ${await percent()}, adapter in ${outputDir}`)
await model.close()
