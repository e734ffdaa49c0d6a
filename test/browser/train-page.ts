// Runs in the browser: nano learns, by examples and by a reward, and its adapter is taken away as files.
import { GRPOTrainer, loadModel, SFTTrainer, urlFolder } from '../../sdk/index.ts'

export interface Trained {
  readonly losses: readonly number[]
  readonly rewards: readonly number[]
  readonly files: Readonly<Record<string, number>>
}
type Rows = readonly Record<string, unknown>[]

async function train(rows: Rows, steps: number): Promise<Trained> {
  const model = await loadModel(urlFolder(new URL('nano/', location.href)), { device: 'webgpu', dtype: 'f32' })
  const losses: number[] = []
  const sft = new SFTTrainer({
    model,
    trainDataset: rows,
    peft: { r: 8 },
    args: { outputDir: null, maxSteps: steps, learningRate: 2e-3, perDeviceTrainBatchSize: 8 },
  })
  for await (const log of sft.train()) if ('loss' in log) losses.push(log.loss)
  const files = Object.fromEntries([...(await model.adapterFiles('default'))].map(([name, blob]) => [name, blob.size]))
  await model.setAdapters([])
  const rewards: number[] = []
  const grpo = new GRPOTrainer({
    model,
    trainDataset: rows,
    // Short answers: something that every model can learn at once.
    rewardFuncs: (completions) => completions.map(({ completionIds }) => -completionIds.length / 32),
    peft: { r: 8 },
    args: {
      ...{ outputDir: null, maxSteps: steps, learningRate: 5e-3, perDeviceTrainBatchSize: 16, numGenerations: 8 },
      ...{ maxCompletionLength: 32, temperature: 1.3 },
    },
  })
  for await (const log of grpo.train()) if ('loss' in log) rewards.push(log.reward!)
  await model.close()
  return { losses, rewards, files }
}

Object.assign(globalThis, { train })
