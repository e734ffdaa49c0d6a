import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { packBatch } from '../../sdk/data/pack.ts'
import { headWeight, packedHidden } from '../../sdk/model/decoder.ts'
import type { Model } from '../../sdk/model/model.ts'
import { linear } from '../../sdk/ops/index.ts'
import { crossEntropy } from '../../sdk/train/objectives.ts'
import { TrainStep } from '../../sdk/train/step.ts'
import { candidates } from '../suite.ts'
import { bareModel, foldersWith, goldenRoot, greedy, missing, readJson, readTensors, relativeError } from './golden.ts'

interface Expected {
  readonly input_ids: number[][]
  readonly attention_mask: number[][]
  readonly labels: number[][]
  readonly loss: number
  readonly greedy_from_row0: number[]
}

const folders = foldersWith('expected.safetensors')

for (const candidate of await candidates())
  describe.skipIf(missing !== null || candidate.skip !== undefined)(
    `golden forward and gradients, ${candidate.label}${missing ? ` (${missing})` : ''}`,
    () => {
      if (foldersWith('expected.safetensors').length === 0)
        it.skip(`golden expected.safetensors: none in ${goldenRoot}`)
      for (const folder of folders)
        describe(folder, () => {
          const expected = readJson<Expected>(join(folder, 'expected.json'))
          let tensors: Awaited<ReturnType<typeof readTensors>>
          let model: Model
          // Padding goes: packed rows have none. The rows keep their labels.
          const rows = expected.input_ids.map((ids, b) => {
            const kept = ids.map((_, t) => t).filter((t) => expected.attention_mask[b][t] === 1)
            return {
              kept,
              inputIds: kept.map((t) => ids[t]),
              labels: kept.map((t, i) => (i === 0 ? -100 : expected.labels[b][t])),
              row: b,
            }
          })

          beforeAll(async () => {
            tensors = await readTensors(join(folder, 'expected.safetensors'))
            model = await bareModel(await candidate.open(), folder, 'f32')
          })
          afterAll(() => model?.target.close())

          it('logits within 1e-4', async () => {
            const batch = packBatch(rows)
            const n = batch.ids.length
            const executable = await model.compile('logits', (g) => {
              const i32 = (name: string) => g.input(name, { dtype: 'i32', shape: [n] })
              const c = model.context()
              const hidden = packedHidden(g, c, i32('ids'), i32('positions'), i32('starts'))
              g.output('logits', linear(g, hidden, headWeight(g, c)))
            })
            const { ids, positions, starts } = batch
            const logits = (await executable.run({ ids, positions, starts })).logits as Float32Array
            const golden = tensors.get('logits')!
            const [, length, vocabulary] = golden.shape
            let at = 0
            for (const { kept, row } of rows)
              for (const t of kept) {
                const want = golden.data.subarray((row * length + t) * vocabulary, (row * length + t + 1) * vocabulary)
                expect(relativeError(logits.subarray(at * vocabulary, (at + 1) * vocabulary), want)).toBeLessThan(1e-4)
                at++
              }
          })

          for (const gradientCheckpointing of [false, true])
            it(`loss and every gradient within 1e-4, ${gradientCheckpointing ? 'recomputed' : 'kept'}`, async () => {
              const batch = packBatch(rows)
              const step = new TrainStep(model, {
                trains: 'model',
                gradientCheckpointing,
                dropout: 0,
                objective: crossEntropy,
              })
              const weights = Float32Array.from(batch.rows, (row) => (row < 0 ? 0 : 1 / batch.scored))
              const { loss } = await step.accumulate(batch, { targets: batch.targets, weights }, [0, 0])
              expect(Math.abs(loss[0] - expected.loss) / expected.loss).toBeLessThan(1e-5)
              for (const [name, want] of tensors) {
                if (!name.startsWith('grad.')) continue
                const got = await model.readFloats(`grad/${name.slice(5)}`)
                expect(relativeError(got, want.data), name).toBeLessThan(1e-4)
              }
              step.free()
            })

          it('greedy ids through the KV cache', async () => {
            const prompt = expected.input_ids[0]
            const want = expected.greedy_from_row0.slice(prompt.length)
            expect(await greedy(model, prompt, want.length)).toEqual(want)
          })
        })
    },
  )
