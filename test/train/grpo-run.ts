// GRPO of the random model; run by grpo-resume.test.ts, which kills it. Arguments: output folder, resume or fresh.
import { GRPOTrainer } from '../../sdk/train/grpo.ts'
import { wasmTarget } from '../../targets/wasm/index.ts'
import { randomModel } from './model.ts'

const [outputDir, mode] = process.argv.slice(2)
const lm = await randomModel(await wasmTarget({ threads: 1 }))
const trainer = new GRPOTrainer({
  model: lm,
  trainDataset: Array.from({ length: 10 }, (_, i) => ({ prompt: 'abcdefghij'.slice(0, 3 + (i % 4)) + i })),
  rewardFuncs: function low(completions) {
    return completions.map(({ completionIds }) => completionIds.filter((id) => id < 128).length / completionIds.length)
  },
  peft: { r: 4, loraDropout: 0.1 },
  args: {
    outputDir,
    maxSteps: 12,
    learningRate: 2e-3,
    perDeviceTrainBatchSize: 8,
    gradientAccumulationSteps: 2,
    numGenerations: 4,
    // Two optimizer steps from each batch, twice over it: checkpoints lie in the middle of a batch.
    stepsPerGeneration: 4,
    numIterations: 2,
    maxCompletionLength: 12,
    beta: 0.02,
    dynamicSampling: true,
    saveSteps: 3,
  },
})
const onProgress = (at: { phase: string; done?: number }) => {
  if (at.phase === 'rollouts') console.log(`rollouts ${at.done}`)
}
for await (const log of trainer.train({ resume: mode === 'resume', onProgress })) console.log(`step ${log.step}`)
await lm.close()
