import { mkdtempSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { tokenizeRows } from '../../sdk/data/tokenize.ts'
import { loadModel } from '../../sdk/load.ts'
import type { MetricsLine } from '../../sdk/train/metrics.ts'
import { SFTTrainer } from '../../sdk/train/sft.ts'
import {
  filesOf,
  foldersWith,
  missing,
  modelFolder,
  readJson,
  readTensors,
  relativeError,
  useAdapter,
} from './golden.ts'

interface Expected {
  readonly args: Record<string, number | string | boolean>
  readonly peft: { r: number; lora_alpha: number; target_modules: string[] }
  readonly firstRows: { inputIds: number[]; labels: number[] }[]
  readonly steps: { step: number; loss: number; gradNorm: number; learningRate: number; num_tokens: number }[]
}

describe.skipIf(missing !== null)(`golden TRL SFTTrainer, wasm${missing ? ` (${missing})` : ''}`, () => {
  for (const parent of foldersWith('sft_trl')) {
    const folder = join(parent, 'sft_trl')
    if (filesOf(folder, /^expected\.json$/).length === 0) continue
    const expected = readJson<Expected>(join(folder, 'expected.json'))
    const data = join(folder, 'train.jsonl')

    it(`${folder}: rows, then loss and norm of every step within 1e-4`, async () => {
      const lm = await loadModel(modelFolder(parent), { device: 'wasm', threads: 2, dtype: 'f32' })
      try {
        const examples = []
        for await (const e of tokenizeRows(data, lm.tokenizer, lm.chatTemplate, {
          maxLength: Number(expected.args.max_length),
        }))
          examples.push({ inputIds: e.inputIds, labels: e.labels })
        expect(examples.slice(0, expected.firstRows.length)).toEqual(expected.firstRows)

        const { r, lora_alpha, target_modules } = expected.peft
        await useAdapter(lm.model, join(folder, 'init.safetensors'), { r, alpha: lora_alpha, targets: target_modules })
        const a = expected.args
        const outputDir = mkdtempSync(join(tmpdir(), 'halfling-'))
        const trainer = new SFTTrainer({
          model: lm,
          trainDataset: data,
          args: {
            outputDir,
            perDeviceTrainBatchSize: Number(a.per_device_train_batch_size),
            gradientAccumulationSteps: Number(a.gradient_accumulation_steps),
            maxSteps: Number(a.max_steps),
            learningRate: Number(a.learning_rate),
            lrSchedulerType: a.lr_scheduler_type as 'cosine',
            warmupSteps: Number(a.warmup_steps),
            weightDecay: Number(a.weight_decay),
            maxGradNorm: Number(a.max_grad_norm),
            adamBeta2: Number(a.adam_beta2),
            maxLength: Number(a.max_length),
            gradientCheckpointing: Boolean(a.gradient_checkpointing),
            trainSamplingStrategy: 'sequential',
            saveStrategy: 'no',
          },
        })
        for await (const log of trainer.train()) {
          if (!('loss' in log)) continue
          const want = expected.steps[log.step - 1]
          expect(Math.abs(log.loss - want.loss) / want.loss, `loss of step ${log.step}`).toBeLessThan(1e-4)
          expect(Math.abs(log.gradNorm - want.gradNorm) / want.gradNorm, `norm of step ${log.step}`).toBeLessThan(1e-4)
          expect(log.learningRate).toBeCloseTo(want.learningRate, 9)
          expect(log.tokens).toBe(want.num_tokens)
        }
        const metrics = readFileSync(join(outputDir, 'metrics.jsonl'), 'utf8').trim().split('\n')
        expect(metrics.length).toBe(expected.steps.length)
        expect((JSON.parse(metrics.at(-1)!) as MetricsLine).step).toBe(expected.steps.length)
        const final = await readTensors(join(folder, 'final.safetensors'))
        const saved = await readTensors(join(outputDir, 'adapter_model.safetensors'))
        for (const [name, want] of final)
          expect(relativeError(saved.get(name)!.data, want.data), name).toBeLessThan(1e-2)
      } finally {
        await lm.close()
      }
    })
  }
})
