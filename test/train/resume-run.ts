// Trains the random model; run by resume.test.ts, which kills it. Arguments: output folder, steps, resume or fresh, full or lora, device.
import { type DeviceName, openTarget } from '../../sdk/device.ts'
import { SFTTrainer } from '../../sdk/train/sft.ts'
import { randomModel, rows } from './model.ts'

const [outputDir, steps, mode, what, device] = process.argv.slice(2)
const lm = await randomModel(await openTarget({ device: device as DeviceName, threads: 1 }))
const trainer = new SFTTrainer({
  model: lm,
  trainDataset: rows,
  evalDataset: rows.slice(0, 4),
  peft: what === 'full' ? null : { r: 4, loraDropout: 0.1 },
  args: {
    outputDir,
    maxSteps: Number(steps),
    learningRate: 2e-3,
    lrSchedulerType: 'cosine',
    warmupSteps: 3,
    perDeviceTrainBatchSize: 2,
    gradientAccumulationSteps: 2,
    loggingSteps: 3,
    evalStrategy: 'steps',
    evalSteps: 10,
    saveSteps: 4,
    saveTotalLimit: 2,
  },
})
for await (const log of trainer.train({ resume: mode === 'resume' })) console.log(`step ${log.step}`)
await lm.close()
