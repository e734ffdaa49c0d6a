import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { packBatch } from '../../sdk/data/pack.ts'
import type { TeacherRow } from '../../sdk/data/teacher-cache.ts'
import { gradientName } from '../../sdk/graph/graph.ts'
import { distillation } from '../../sdk/train/objectives.ts'
import { TrainStep } from '../../sdk/train/step.ts'
import { teacherInputs } from '../../sdk/train/teacher.ts'
import { candidates } from '../suite.ts'
import {
  bareModel,
  foldersWith,
  type GoldenLora,
  goldenRoot,
  missing,
  readJson,
  readTensors,
  useAdapter,
} from './golden.ts'

// The trainer's own objective on every target against PyTorch: top-k with the rest, mixed with cross-entropy, JSD, reverse.
// (Full-vocabulary cases are objectives.test.ts's, on the reference.)

interface Golden {
  readonly ids: number[][]
  readonly labels: number[][]
  readonly K: number
  readonly teachers: Record<string, { top_ids: number[][][]; top_logp: number[][][]; tail_logp: number[][] }>
  readonly lora: GoldenLora
  readonly cases: { name: string; teacher: string; loss: number; grad_norm: number }[]
}

const folders = foldersWith('train').filter((folder) => existsSync(join(folder, 'train/kd.json')))

for (const candidate of await candidates())
  describe.skipIf(missing !== null || candidate.skip !== undefined)(
    `golden distillation, ${candidate.label}${missing ? ` (${missing})` : ''}`,
    () => {
      if (folders.length === 0) it.skip(`golden distillation: none in ${goldenRoot}`)
      for (const folder of folders) {
        const d = readJson<Golden>(join(folder, 'train/kd.json'))
        for (const c of d.cases.filter(({ name }) => /topk/.test(name) && !name.includes('renormalized')))
          it(`${folder}: ${c.name}`, async () => {
            const model = await bareModel(await candidate.open(), folder, 'f32')
            try {
              await useAdapter(model, join(folder, 'train/kd.adapter.safetensors'), d.lora)
              const alpha = c.name.startsWith('ce_plus') ? 0.5 : 0
              const beta = c.name.startsWith('reverse') ? 1 : c.name.startsWith('jsd') ? 0.5 : 0
              const step = new TrainStep(model, {
                trains: 'adapter',
                gradientCheckpointing: false,
                dropout: 0,
                objective: distillation({ width: d.K, temperature: 1, alpha, beta }),
              })
              const batch = packBatch(
                d.ids.map((inputIds, row) => ({ inputIds, labels: [-100, ...d.labels[row].slice(1)] })),
              )
              const teacher = d.teachers[c.teacher]
              const said = d.ids.map((_, b): TeacherRow => {
                const places = d.labels[b].flatMap((label, t) => (t > 0 && label !== -100 ? [t - 1] : []))
                return {
                  ids: Int32Array.from(places.flatMap((t) => teacher.top_ids[b][t])),
                  logProbs: Float32Array.from(places.flatMap((t) => teacher.top_logp[b][t])),
                  tail: Float32Array.from(places, (t) => teacher.tail_logp[b][t]),
                }
              })
              const weights = Float32Array.from(batch.rows, (row) => (row < 0 ? 0 : 1 / batch.scored))
              const inputs: Record<string, Float32Array | Int32Array> = {
                weights,
                temperature: Float32Array.of(1),
                ...teacherInputs(batch.targets, said, d.K, alpha > 0),
              }
              const { loss } = await step.accumulate(batch, inputs, [0, 0])
              const tolerance = c.name.includes('peaked') ? 1e-4 : 1e-5
              expect(Math.abs(loss[0] - c.loss) / c.loss, 'loss').toBeLessThan(tolerance)
              let squares = 0
              const grads = new Map<string, Float32Array>()
              for (const name of step.parameters.keys()) {
                const grad = await model.readFloats(gradientName(name))
                grads.set(name, grad)
                squares += grad.reduce((sum, x) => sum + x * x, 0)
              }
              expect(Math.abs(Math.sqrt(squares) - c.grad_norm) / c.grad_norm, 'gradient norm').toBeLessThan(tolerance)
              const stored = join(folder, `train/kd.grads.${c.name}.safetensors`)
              if (!existsSync(stored)) return
              for (const [key, { data }] of await readTensors(stored)) {
                const name = key.replace(/^base_model\.model\./, 'adapter/0/').replace(/\.weight$/, '')
                const got = grads.get(name)!
                const size = data.reduce((a, b) => Math.max(a, Math.abs(b)), 0)
                expect(Math.max(...data.map((x, i) => Math.abs(x - got[i]))) / size, key).toBeLessThan(1e-4)
              }
            } finally {
              await model.target.close()
            }
          })
      }
    },
  )
