// A 3-layer student from a random start, taught through a K = 16 cache, through draws of equal bytes, and by the text alone
// (SFT). `pebble`: teacher pebble-7m-base, the run of golden/pebble-7m-base/learning.json. `nano`: teacher nano-base, problems
// of its own kind. Held-out losses, paired over rows.
// `npx tsx test/bench/distill-learning.ts [pebble|nano] [seeds] [draws]`
import { mkdtempSync, readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { makeMixed } from '../../examples/nano/problems.ts'
import { writeRandomQwen2 } from '../../examples/nano/random-qwen2.ts'
import { datasetHash } from '../../sdk/data/dataset-hash.ts'
import { type Example, tokenizeRows } from '../../sdk/data/tokenize.ts'
import { buildTeacherCache, modelTeacher } from '../../sdk/generate/teacher.ts'
import { DistillTrainer, type LanguageModel, loadModel, SFTTrainer, scoreExamples } from '../../sdk/index.ts'

const shared = process.env.HALFLING_SHARED ?? '../shared'
const [pair = 'pebble', seeds = '3', draws = '170'] = process.argv.slice(2)
const isNano = pair === 'nano'
const teacherFolder = isNano ? 'models/nano-base' : join(shared, 'models/pebble-7m-base')
const work = mkdtempSync(join(tmpdir(), 'halfling-distill-'))
const teacher = await loadModel(teacherFolder, { dtype: 'f32' })
const { tokenizer } = teacher

function pebbleRows(): { text: string }[] {
  const lines = readFileSync(join(shared, 'data/gsm8k/test.jsonl'), 'utf8').trim().split('\n')
  return lines.map((line) => {
    const { question, answer } = JSON.parse(line)
    const ids = tokenizer.encode(`Question: ${question}\nAnswer: ${answer}`)
    return { text: tokenizer.decode(ids.slice(0, 192)) }
  })
}

/** Problems that nano-base has not seen. */
const nanoRows = () =>
  Array.from({ length: 2000 }, (_, i) => {
    const { question, solution, answer } = makeMixed(31, i)
    return { text: `Question: ${question}\nAnswer: ${solution} The answer is ${answer}.` }
  })

const rows = isNano ? nanoRows() : pebbleRows()
const [train, heldOut] = [rows.slice(0, 1000), rows.slice(1000)]
const tokenized = async (list: typeof rows): Promise<Example[]> => {
  const examples: Example[] = []
  for await (const e of tokenizeRows(list, tokenizer, null, { maxLength: 1024 })) examples.push(e)
  return examples
}
const [trainExamples, heldOutExamples] = [await tokenized(train), await tokenized(heldOut)]
const scored = trainExamples.reduce((n, e) => n + e.inputIds.length - 1, 0)

async function cache(method: 'topk' | 'sampled', k: number): Promise<string> {
  const folder = join(work, method)
  const start = performance.now()
  const settings = {
    method,
    k,
    temperature: 1,
    seed: 1,
    model: basename(teacherFolder),
    tokenizer: tokenizer.fingerprint,
    template: null,
    dataset: datasetHash(trainExamples),
    vocabSize: teacher.model.config.vocabSize,
    rows: trainExamples.length,
    tokens: scored,
    shardRows: 256,
  }
  const built = await buildTeacherCache(folder, settings, modelTeacher(teacher.model, settings), trainExamples)
  const seconds = (performance.now() - start) / 1000
  console.log(`${method} k=${k}: ${(built.bytes / scored).toFixed(1)} bytes a token, ${seconds.toFixed(1)} s`)
  return folder
}

const perRow = async (lm: LanguageModel): Promise<number[]> =>
  (await scoreExamples(lm.model, heldOutExamples)).map((row) => -row.reduce((a, b) => a + b, 0) / row.length)
const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length

console.log(`teacher: held-out loss ${mean(await perRow(teacher)).toFixed(4)}`)
const plainStart = performance.now()
await scoreExamples(teacher.model, trainExamples)
console.log(`plain forward pass over the same rows: ${((performance.now() - plainStart) / 1000).toFixed(1)} s`)
const topk = await cache('topk', 16)
// 64 bytes a token hold 16 ids with log-probabilities, or 21 distinct draws of 3 bytes.
const sampled = await cache('sampled', Number(draws))

for (let seed = 0; seed < Number(seeds); seed++) {
  const folder = join(work, `student-${seed}`)
  const read = (name: string) => JSON.parse(readFileSync(join(teacherFolder, name), 'utf8'))
  const shape = {
    vocabSize: teacher.model.config.vocabSize,
    hiddenSize: 128,
    intermediateSize: 384,
    numHiddenLayers: 3,
    numAttentionHeads: 2,
    numKeyValueHeads: 1,
    maxPositionEmbeddings: 1024,
    ropeTheta: 1e6,
    initializerRange: 0.02,
  }
  await writeRandomQwen2(folder, shape, read('tokenizer.json'), seed)
  await writeFile(join(folder, 'tokenizer_config.json'), JSON.stringify(read('tokenizer_config.json')))
  const losses: Record<string, number[]> = {}
  for (const kind of ['sft', 'topk', 'sampled'] as const) {
    const model = await loadModel(folder, { dtype: 'f32' })
    const args = {
      outputDir: join(work, `${kind}-${seed}`),
      maxSteps: 250,
      perDeviceTrainBatchSize: 16,
      learningRate: 2e-3,
      warmupSteps: 20,
      lrSchedulerType: 'linear' as const,
      weightDecay: 0.05,
      maxGradNorm: 1,
      gradientCheckpointing: false,
      saveStrategy: 'no' as const,
      loggingSteps: 50,
      seed,
    }
    const trainer =
      kind === 'sft'
        ? new SFTTrainer({ model, trainDataset: train, peft: null, args })
        : new DistillTrainer({
            model,
            teacher: kind === 'topk' ? topk : sampled,
            trainDataset: train,
            peft: null,
            args,
          })
    let rate = 0
    for await (const log of trainer.train()) if ('loss' in log) rate = log.tokensPerSecond
    losses[kind] = await perRow(model)
    console.log(`seed ${seed} ${kind}: held-out ${mean(losses[kind]).toFixed(4)}, ${rate.toFixed(0)} tokens/s`)
    await model.close()
  }
  for (const kind of ['topk', 'sampled']) {
    const gains = losses.sft.map((loss, i) => loss - losses[kind][i])
    const gain = mean(gains)
    const error = Math.sqrt(gains.reduce((sum, g) => sum + (g - gain) ** 2, 0) / (gains.length - 1) / gains.length)
    console.log(
      `seed ${seed} ${kind}: gain ${gain.toFixed(4)} ± ${error.toFixed(4)}, ${(gain / error).toFixed(1)} errors`,
    )
  }
}
await teacher.close()
