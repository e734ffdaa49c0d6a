import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { writeTinyModel } from '../../examples/tiny-model.ts'
import { packBatch } from '../../sdk/data/pack.ts'
import type { TeacherRow } from '../../sdk/data/teacher-cache.ts'
import { modelTeacher } from '../../sdk/generate/teacher.ts'
import { gradientName } from '../../sdk/graph/graph.ts'
import { type LanguageModel, loadModel } from '../../sdk/index.ts'
import { Programs } from '../../sdk/model/programs.ts'
import { normal } from '../../sdk/random.ts'
import { distillation } from '../../sdk/train/objectives.ts'
import { TrainStep } from '../../sdk/train/step.ts'
import { teacherInputs } from '../../sdk/train/teacher.ts'
import { prepareAdapter } from '../../sdk/train/trained.ts'

// Random sampling KD (arXiv 2503.16870): the mean gradient over many draws is the gradient of the full KL. The likeliest ids
// alone, as if there were no others, are biased, and the same test sees it.

const vocabSize = 288
const draws = 8
const caches = 2000
const example = { inputIds: [72, 101, 108, 108, 111, 33], labels: [-100, 101, 108, 108, 111, 33], row: 0 }

let folder: string
let teacher: LanguageModel
let student: LanguageModel
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'halfling-unbiased-'))
  for (const seed of [0, 1]) await writeTinyModel(join(folder, String(seed)), seed)
  teacher = await loadModel(join(folder, '0'), { dtype: 'f32', threads: 1 })
  student = await loadModel(join(folder, '1'), { dtype: 'f32', threads: 1 })
  await prepareAdapter(student, { r: 4, targetModules: ['q_proj', 'down_proj'] }, 1)
})
afterAll(async () => {
  await teacher.close()
  await student.close()
  await rm(folder, { recursive: true, force: true })
})

it('2,000 sampled caches: the mean gradient is the full one within 3 standard errors; top-k alone is not', async () => {
  const batch = packBatch([example])
  const weights = Float32Array.from(batch.rows, (row) => (row < 0 ? 0 : 1 / batch.scored))

  const stepOf = (width: number) =>
    new TrainStep(student.model, {
      trains: 'adapter',
      gradientCheckpointing: false,
      dropout: 0,
      objective: distillation({ width, temperature: 1, alpha: 0, beta: 0 }),
    })
  /** The adapter's gradient along fixed random directions. */
  async function projections(step: TrainStep, said: TeacherRow, width: number): Promise<number[]> {
    const picks = teacherInputs(batch.targets, [said], width, false)
    await step.accumulate(batch, { weights, temperature: Float32Array.of(1), ...picks }, [0, 0])
    const sums = new Array<number>(6).fill(0)
    let at = 0
    for (const name of step.parameters.keys())
      for (const value of await student.model.readFloats(gradientName(name))) {
        for (let d = 0; d < sums.length; d++) sums[d] += value * normal(99, d, at)
        at++
      }
    // Clears the gradients; the learning rate 0 leaves the adapter as it is.
    const hyper = {
      learningRate: 0,
      weightDecay: 0,
      maxGradNorm: 0,
      adamBeta1: 0.9,
      adamBeta2: 0.99,
      adamEpsilon: 1e-8,
    }
    await step.apply(hyper)
    return sums
  }

  const ask = async (method: 'topk' | 'sampled', k: number, seed: number, programs: Programs) =>
    (await modelTeacher(teacher.model, { method, k, temperature: 1, seed }, programs)([example]))[0]
  const programs = new Programs(teacher.model)

  const fullStep = stepOf(vocabSize)
  const full = await projections(fullStep, await ask('topk', vocabSize, 0, programs), vocabSize)
  fullStep.free()

  const step = stepOf(draws)
  const likeliest = await ask('topk', draws, 0, programs)
  const masses = likeliest.tail.map((tail) => Math.log1p(-Math.exp(tail)))
  const alone = {
    ids: likeliest.ids,
    logProbs: likeliest.logProbs.map((p, i) => p - masses[Math.floor(i / draws)]),
    tail: likeliest.tail.map(() => -1e30),
  }
  const biased = await projections(step, alone, draws)

  const all: number[][] = []
  for (let seed = 0; seed < caches; seed++)
    all.push(await projections(step, await ask('sampled', draws, seed, programs), draws))
  step.free()
  programs.clear()

  let seen = 0
  for (const [d, want] of full.entries()) {
    const own = all.map((sums) => sums[d])
    const mean = own.reduce((a, b) => a + b) / caches
    const error = Math.sqrt(own.reduce((sum, x) => sum + (x - mean) ** 2, 0) / (caches - 1) / caches)
    expect(Math.abs(mean - want) / error, `direction ${d}`).toBeLessThan(3)
    if (Math.abs(biased[d] - want) / error > 3) seen++
  }
  expect(seen, 'directions in which top-k alone is off').toBeGreaterThanOrEqual(5)
})
