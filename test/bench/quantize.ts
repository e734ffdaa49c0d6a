// A real model's weights as stored, and as `quantizeModel` rounds them, beside PyTorch in float32 on the dequantized weights: perplexities
// of texts in windows of 512, paired; and log-probabilities on exactly the weights that are held.
// `npx tsx test/bench/quantize.ts MODEL.gguf PYTHON [tokens of each text] [threads] [dtype/table[/calibration],...]`; PYTHON has torch, transformers.
// A calibration is `rest` (4,096 tokens of each text after those that are measured), or a file as `--calibration-data` takes it.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import type { FloatDType } from '../../sdk/dtype.ts'
import { type Estimate, perplexityChange } from '../../sdk/eval/statistics.ts'
import { openModel } from '../../sdk/formats/stored-model.ts'
import { scoreExamples, textWindows } from '../../sdk/generate/score.ts'
import { loadModel, quantizeModel } from '../../sdk/index.ts'
import { storeAt } from '../../sdk/store/store.ts'
import { loadTokenizer } from '../../sdk/text/tokenizer.ts'
import { writeHeld } from './held-folder.ts'

const shared = process.env.HALFLING_SHARED ?? '../shared'
const texts = ['tinyshakespeare.txt', 'tinystories_248k.txt']
const [model, python, tokens = '16384', threads = '2', kinds = 'q8/q8,q4a/q8,q4a/q4a,q4/q8,q4a/q4a/rest'] =
  process.argv.slice(2)
const work = mkdtempSync(join(tmpdir(), 'halfling-quantize-bench-'))
/** Windows of each text on which log-probabilities are compared one by one. */
const compared = 2

/** Log-probabilities of each text's windows, and the seconds that they took. */
async function score(path: string): Promise<{ scores: Float32Array[][]; ids: number[][][]; seconds: number }> {
  const lm = await loadModel(path, { device: 'wasm', threads: Number(threads) })
  const windows = texts.map((text) =>
    textWindows(lm.tokenizer, readFileSync(join(shared, 'data/text', text), 'utf8'), 512, Number(tokens)),
  )
  const start = performance.now()
  const scores: Float32Array[][] = []
  for (const own of windows) scores.push(await scoreExamples(lm.model, own))
  const seconds = (performance.now() - start) / 1000
  await lm.close()
  return { scores, ids: windows.map((own) => own.map(({ inputIds }) => [...inputIds])), seconds }
}

/** What follows in the texts after the tokens that are measured, in a file. */
function writeRest(path: string): void {
  const tokenizer = loadTokenizer(source.tokenizerJson, source.tokenizerConfig)
  const rest = texts.map((text) => {
    const ids = tokenizer.encode(readFileSync(join(shared, 'data/text', text), 'utf8'))
    return tokenizer.decode(ids.slice(Number(tokens), Number(tokens) + 4096))
  })
  writeFileSync(path, rest.join('\n'))
}

/** The same by PyTorch, of an HF folder. */
function peer(folder: string, ids: readonly number[][]): number[][] {
  const [input, output] = [join(work, 'ids.json'), join(work, 'scores.json')]
  writeFileSync(input, JSON.stringify(ids))
  execFileSync(python, ['test/bench/peers/score.py', folder, input, output], { stdio: 'inherit' })
  return JSON.parse(readFileSync(output, 'utf8'))
}

const source = await openModel(await storeAt(model))
const stored = await score(model)
const all = stored.ids.flat()

const folder = join(work, 'weights')
await writeHeld(source, folder)
const same = peer(
  folder,
  stored.ids.flatMap((own) => own.slice(0, compared)),
)
const ours = stored.scores.flatMap((own) => own.slice(0, compared))
const apart = same.flatMap((window, i) => window.map((x, j) => Math.abs(x - ours[i][j])))
const average = apart.reduce((a, b) => a + b, 0) / apart.length
console.log(
  `${basename(model)}: PyTorch on the weights as held, ${apart.length} log-probabilities: ${Math.max(...apart).toExponential(1)} apart at most, ${average.toExponential(1)} in the mean`,
)

await quantizeModel(source, folder, { dtype: 'f32', force: true })
const flat = peer(folder, all)
const base = stored.ids.map((own) => flat.splice(0, own.length))
const perplexity = (windows: readonly number[][]) => Math.exp(-mean(windows.flat()))
function mean(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0) / values.length
}
console.log(`perplexity: ${texts.map((text, i) => `${perplexity(base[i]).toFixed(3)} (${text})`).join(', ')}`)
console.log(
  '| weights | table | weights changed by | change of perplexity, % (standard error) | | seconds to write | to score |',
)
console.log('|---|---|---|---|---|---|---|')
const shown = ({ mean, standardError }: Estimate) => `${mean.toFixed(3)} (${standardError.toFixed(3)})`
const line = (name: string, table: string, changed: string, writing: string, { scores, seconds }: typeof stored) =>
  console.log(
    `| ${[name, table, changed, ...scores.map((own, i) => shown(perplexityChange(base[i], own))), writing, seconds.toFixed(0)].join(' | ')} |`,
  )
line('as stored', 'as stored', '', '', stored)
for (const kind of kinds.split(',')) {
  const [dtype, tokenEmbeddingType, ...named] = kind.split('/') as [FloatDType, FloatDType, ...string[]]
  const path = join(work, `${dtype}.gguf`)
  const calibrationData = named[0] === 'rest' ? join(work, 'rest.txt') : named.join('/') || undefined
  if (named[0] === 'rest') writeRest(calibrationData!)
  const start = performance.now()
  const options = { dtype, tokenEmbeddingType, calibrationData, force: true }
  const { relativeError } = await quantizeModel(folder, path, options)
  const seconds = ((performance.now() - start) / 1000).toFixed(0)
  line(
    [dtype, ...named].join(', '),
    tokenEmbeddingType,
    `${(100 * relativeError).toFixed(2)}%`,
    seconds,
    await score(path),
  )
}
rmSync(work, { recursive: true })
