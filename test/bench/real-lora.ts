// LoRA on a real model beside PyTorch and PEFT on the same weights, adapter and tokens: losses and gradient norms of four steps.
// `npx tsx test/bench/real-lora.ts MODEL.gguf PYTHON [tokens of each of 2 rows]`; PYTHON has torch, transformers, peft.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { packBatch } from '../../sdk/data/pack.ts'
import { openModel } from '../../sdk/formats/stored-model.ts'
import { textWindows } from '../../sdk/generate/score.ts'
import { loadModel } from '../../sdk/index.ts'
import { createAdapter } from '../../sdk/model/lora.ts'
import { storeAt } from '../../sdk/store/store.ts'
import { crossEntropy } from '../../sdk/train/objectives.ts'
import { TrainStep } from '../../sdk/train/step.ts'
import { writeHeld } from './held-folder.ts'

const [file, python, tokens = '64'] = process.argv.slice(2)
const steps = 4
const work = mkdtempSync(join(tmpdir(), 'halfling-real-lora-'))
const [weights, adapter, ids] = ['weights', 'adapter', 'ids.json'].map((name) => join(work, name))
const text = readFileSync(join(process.env.HALFLING_SHARED ?? '../shared', 'data/text/tinystories_248k.txt'), 'utf8')

const lm = await loadModel(file, { device: 'wasm', threads: 2 })
const { model } = lm
const rows = textWindows(lm.tokenizer, text, Number(tokens), 2 * Number(tokens))
model.adapters.set('own', await createAdapter('own', { r: 8, loraAlpha: 16 }, model, 1))
await model.setAdapters(['own'])
await lm.saveAdapter('own', adapter)
const step = new TrainStep(model, {
  ...({ trains: 'adapter', gradientCheckpointing: true, dropout: 0, objective: crossEntropy } as const),
})
const batch = packBatch(rows.map((row) => ({ ...row, labels: [-100, ...row.inputIds.slice(1)] })))
const each = Float32Array.from(batch.rows, (row) => (row < 0 ? 0 : 1 / batch.scored))
const ours: { loss: number; norm: number }[] = []
for (let s = 0; s < steps; s++) {
  const { loss } = await step.accumulate(batch, { targets: batch.targets, weights: each }, [0, 0])
  const norm = await step.apply({
    ...{ learningRate: 1e-4, weightDecay: 0, maxGradNorm: 1 },
    ...{ adamBeta1: 0.9, adamBeta2: 0.999, adamEpsilon: 1e-8 },
  })
  ours.push({ loss: loss[0], norm })
}
await lm.close()

await writeHeld(await openModel(await storeAt(file)), weights)
writeFileSync(ids, JSON.stringify(rows.map(({ inputIds }) => [...inputIds])))
const peer = ['test/bench/peers/lora.py', weights, adapter, ids, String(steps)]
const theirs: typeof ours = JSON.parse(execFileSync(python, peer, { encoding: 'utf8' }).trim().split('\n').at(-1)!)
const off = (key: 'loss' | 'norm') => Math.max(...ours.map((own, i) => Math.abs(own[key] / theirs[i][key] - 1)))
console.log(`${basename(file)}: losses ${ours.map(({ loss }) => loss.toFixed(5)).join(', ')}`)
console.log(`PyTorch ${theirs.map(({ loss }) => loss.toFixed(5)).join(', ')}`)
console.log(
  `relative difference: losses ${off('loss').toExponential(1)}, norms ${off('norm').toExponential(1)} at most`,
)
rmSync(work, { recursive: true })
