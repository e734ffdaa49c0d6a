// What rounding weights costs in perplexity: a model's weights as f32 beside `quantizeModel`'s files of them (scales fitted) and beside
// plain rounding while loading. `npx tsx test/bench/quantize.ts MODEL [tokens of each text] [threads]`, whose own file comes first.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import type { FloatDType } from '../../sdk/dtype.ts'
import { type Estimate, perplexityChange } from '../../sdk/eval/statistics.ts'
import { scoreExamples, textWindows } from '../../sdk/generate/score.ts'
import { loadModel, quantizeModel } from '../../sdk/index.ts'

const shared = process.env.HALFLING_SHARED ?? '../shared'
const texts = ['tinyshakespeare.txt', 'tinystories_248k.txt']
const [model, tokens = '16384', threads = '2', only] = process.argv.slice(2)
const work = mkdtempSync(join(tmpdir(), 'halfling-quantize-bench-'))

/** Log-probabilities of each text's windows. */
async function score(path: string, dtype?: FloatDType): Promise<Float32Array[][]> {
  const lm = await loadModel(path, { dtype, device: 'wasm', threads: Number(threads) })
  const all: Float32Array[][] = []
  for (const text of texts) {
    const whole = readFileSync(join(shared, 'data/text', text), 'utf8')
    all.push(await scoreExamples(lm.model, textWindows(lm.tokenizer, whole, 512, Number(tokens))))
  }
  await lm.close()
  return all
}

const f32 = join(work, 'f32.gguf')
await quantizeModel(model, f32, { dtype: 'f32' })
const base = await score(f32, 'f32')
const perplexities = base.map((windows) => {
  const logProbs = windows.flatMap((window) => [...window])
  return Math.exp(-logProbs.reduce((a, b) => a + b, 0) / logProbs.length).toFixed(3)
})
console.log(`${basename(model)}: perplexity ${texts.map((text, i) => `${perplexities[i]} (${text})`).join(', ')}`)
console.log('| weights | table | weights changed by | change of perplexity, % (standard error) | | seconds to write |')
console.log('|---|---|---|---|---|---|')

const shown = ({ mean, standardError }: Estimate) => `${mean.toFixed(3)} (${standardError.toFixed(3)})`
const line = (name: string, table: string, changed: string, scores: Float32Array[][], seconds: string) =>
  console.log(
    `| ${[name, table, changed, ...scores.map((own, i) => shown(perplexityChange(base[i], own))), seconds].join(' | ')} |`,
  )

line('as stored', 'as stored', '', await score(model), '')
for (const [dtype, tokenEmbeddingType] of [
  ['q8', 'q8'],
  ['q4a', 'q8'],
  ['q4a', 'q4a'],
  ['q4', 'q8'],
] as const) {
  if (only && !only.split(',').includes(`${dtype}/${tokenEmbeddingType}`)) continue
  const path = join(work, `${dtype}.gguf`)
  const start = performance.now()
  const { relativeError } = await quantizeModel(f32, path, { dtype, tokenEmbeddingType, force: true })
  const seconds = ((performance.now() - start) / 1000).toFixed(1)
  const percent = `${(100 * relativeError).toFixed(2)}%`
  line(dtype, tokenEmbeddingType, percent, await score(path), seconds)
  if (tokenEmbeddingType === 'q8') line(`${dtype}, plain`, 'q8', '', await score(f32, dtype), '')
}
rmSync(work, { recursive: true })
