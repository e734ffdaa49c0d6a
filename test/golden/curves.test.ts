import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { packBatch } from '../../sdk/data/pack.ts'
import { adapterToPeft } from '../../sdk/model/lora.ts'
import type { Target } from '../../sdk/target.ts'
import { crossEntropy } from '../../sdk/train/objectives.ts'
import { TrainStep } from '../../sdk/train/step.ts'
import { candidates } from '../suite.ts'
import {
  bareModel,
  filesOf,
  foldersWith,
  type GoldenLora,
  goldenRoot,
  missing,
  readJson,
  readTensors,
  useAdapter,
} from './golden.ts'

interface Curve {
  readonly kind: string
  readonly lora: GoldenLora | null
  readonly optimizer: { lr: number; betas: [number, number]; eps: number; weight_decay: number; clip: number }
  readonly log: { loss: number; grad_norm: number; lr: number }[]
  readonly data: { ids: number[][]; labels: number[][] }[]
}

for (const candidate of await candidates())
  describe.skipIf(missing !== null || candidate.skip !== undefined)(
    `golden training curves, ${candidate.label}${missing ? ` (${missing})` : ''}`,
    () => {
      // Its kernels are compiled once.
      let target: Target
      beforeAll(async () => {
        target = await candidate.open()
      })
      afterAll(() => target.close())
      if (foldersWith('train').length === 0) it.skip(`golden train: none in ${goldenRoot}`)
      for (const folder of foldersWith('train'))
        for (const file of filesOf(join(folder, 'train'), /\.json$/)) {
          const path = join(folder, 'train', file)
          const curve = readJson<Curve>(path)
          if (curve.kind !== 'sft') continue
          // The golden splits its batch in two where its name says so; the numbers are the same.
          const parts = /accum(\d+)/.exec(file)?.[1] ?? '1'
          it(`${path}: loss and gradient norm of every step within 1e-4, result within 1e-3`, async () => {
            const model = await bareModel(target, folder, 'f32')
            try {
              if (curve.lora) await useAdapter(model, path.replace(/json$/, 'init.safetensors'), curve.lora)
              const step = new TrainStep(model, {
                trains: curve.lora ? 'adapter' : 'model',
                gradientCheckpointing: parts === '2',
                dropout: 0,
                objective: crossEntropy,
              })
              const { betas, eps, weight_decay, clip } = curve.optimizer
              for (const [s, { ids, labels }] of curve.data.entries()) {
                const rows = ids.map((inputIds, row) => ({ inputIds, labels: [-100, ...labels[row].slice(1)], row }))
                const scored = packBatch(rows).scored
                const size = rows.length / Number(parts)
                let loss = 0
                for (let at = 0; at < rows.length; at += size) {
                  const batch = packBatch(rows.slice(at, at + size))
                  const weights = Float32Array.from(batch.rows, (row) => (row < 0 ? 0 : 1 / scored))
                  loss += (await step.accumulate(batch, { targets: batch.targets, weights }, [0, 0])).loss[0]
                }
                const want = curve.log[s]
                // PyTorch's run decays biases and norms too, which a trainer leaves as they are.
                for (const [name, type] of step.parameters) {
                  if (!/bias|norm/.test(name)) continue
                  const decayed = (await model.readFloats(name)).map((x) => x * (1 - want.lr * weight_decay))
                  await model.target.write(model.buffer(name, type), decayed)
                }
                const norm = await step.apply({
                  learningRate: want.lr,
                  weightDecay: weight_decay,
                  maxGradNorm: clip,
                  adamBeta1: betas[0],
                  adamBeta2: betas[1],
                  adamEpsilon: eps,
                })
                expect(Math.abs(loss - want.loss) / want.loss, `loss of step ${s + 1}`).toBeLessThan(1e-4)
                expect(Math.abs(norm - want.grad_norm) / want.grad_norm, `norm of step ${s + 1}`).toBeLessThan(1e-4)
              }
              const final = await readTensors(path.replace(/json$/, 'final.safetensors'))
              await model.pullAdapters()
              const trained = curve.lora ? adapterToPeft(model.adapters.get('golden')!, model.config).tensors : null
              for (const [name, want] of final) {
                const got = trained ? trained.get(name)!.data : await model.readFloats(name)
                const errors = got.map((x, i) => x - want.data[i])
                // Adam makes noise of elements whose gradient is nearly zero: one element may move by 1e-4, even in f64.
                expect(Math.hypot(...errors) / Math.hypot(...want.data), name).toBeLessThan(1e-3)
                expect(Math.max(...errors.map(Math.abs)), name).toBeLessThan(1e-3)
              }
            } finally {
              model.free()
            }
          })
        }
    },
  )
