// What a teacher costs: building a cache beside a plain forward pass over the same rows, and a distillation step from the
// cache beside an SFT step; each pair is timed in turns in one process. `npx tsx test/bench/distill-cost.ts [rounds]`
import { mkdtempSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { datasetHash } from '../../sdk/data/dataset-hash.ts'
import { scoredTokens } from '../../sdk/data/pack.ts'
import { type Example, tokenizeRows } from '../../sdk/data/tokenize.ts'
import { buildTeacherCache, modelTeacher } from '../../sdk/generate/teacher.ts'
import { DistillTrainer, loadModel, SFTTrainer, scoreExamples } from '../../sdk/index.ts'
import { Programs } from '../../sdk/model/programs.ts'
import { median } from './median.ts'

const shared = process.env.HALFLING_SHARED ?? '../shared'
const rounds = Number(process.argv[2] ?? 5)
const folder = join(shared, 'models/pebble-7m-base')
const work = mkdtempSync(join(tmpdir(), 'halfling-cost-'))
const model = await loadModel(folder, { dtype: 'f32' })
const rows = readFileSync(join(shared, 'data/gsm8k/test.jsonl'), 'utf8')
  .trim()
  .split('\n')
  .slice(0, 64)
  .map((line) => {
    const { question, answer } = JSON.parse(line)
    return { text: `Question: ${question}\nAnswer: ${answer}` }
  })
const examples: Example[] = []
for await (const e of tokenizeRows(rows, model.tokenizer, null, { maxLength: 256, warn() {} })) examples.push(e)
const settings = {
  method: 'topk' as const,
  k: 16,
  temperature: 1,
  seed: 0,
  model: 'pebble-7m-base',
  tokenizer: model.tokenizer.fingerprint,
  template: null,
  dataset: datasetHash(examples),
  vocabSize: 2048,
  rows: examples.length,
  tokens: examples.reduce((n, e) => n + scoredTokens(e), 0),
  shardRows: 256,
}
const seconds = async (run: () => Promise<unknown>): Promise<number> => {
  const start = performance.now()
  await run()
  return (performance.now() - start) / 1000
}

const programs = new Programs(model.model)
const teacher = modelTeacher(model.model, settings, programs)
const [forward, build]: number[][] = [[], []]
for (let round = -1; round < rounds; round++) {
  const plain = await seconds(() => scoreExamples(model.model, examples, { programs }))
  const cache = join(work, `cache${round}`)
  const built = await seconds(async () => buildTeacherCache(cache, settings, teacher, examples))
  // The first round compiles.
  if (round < 0) continue
  forward.push(plain)
  build.push(built)
}
const ratios = build.map((b, i) => b / forward[i])
console.log(
  `forward ${median(forward).toFixed(2)} s, cache ${median(build).toFixed(2)} s: ${median(ratios).toFixed(2)}x`,
)

const [sft, distill]: number[][] = [[], []]
for (let round = 0; round < rounds; round++)
  for (const kind of ['sft', 'distill'] as const) {
    const peft = { r: 16, loraAlpha: 32, targetModules: 'all-linear' as const }
    const args = {
      outputDir: join(work, `${kind}${round}`),
      maxSteps: 6,
      perDeviceTrainBatchSize: 4,
      maxLength: 256,
      packing: false,
      saveStrategy: 'no' as const,
    }
    const options = { model, trainDataset: rows, peft, args, onWarning() {} }
    const trainer =
      kind === 'sft' ? new SFTTrainer(options) : new DistillTrainer({ ...options, teacher: join(work, 'cache0') })
    let [start, tokens] = [0, 0]
    for await (const log of trainer.train()) {
      if (!('loss' in log)) continue
      if (log.step === 2) [start, tokens] = [performance.now(), log.tokens]
      if (log.step === 6) (kind === 'sft' ? sft : distill).push((performance.now() - start) / (log.tokens - tokens))
    }
    await model.setAdapters([])
  }
const steps = distill.map((d, i) => d / sft[i])
console.log(
  `sft ${(1000 / median(sft)).toFixed(0)} tokens/s, distill ${(1000 / median(distill)).toFixed(0)} tokens/s: ${median(steps).toFixed(2)}x (${steps.map((s) => s.toFixed(2)).join(' ')})`,
)
await model.close()
