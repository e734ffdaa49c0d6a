// A real model's weights as stored, and as `quantizeModel` rounds them, beside PyTorch in float32 on the dequantized weights: perplexities
// of texts in windows of 512, paired; and log-probabilities on exactly the weights that are held.
// `npx tsx test/bench/quantize.ts MODEL.gguf PYTHON [tokens of each text] [threads] [dtype/table,...]`; PYTHON has torch, transformers.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { elementCount, type FloatDType } from '../../sdk/dtype.ts'
import { type Estimate, perplexityChange } from '../../sdk/eval/statistics.ts'
import { type StoredTensor, storedDType } from '../../sdk/formats/stored.ts'
import { openModel } from '../../sdk/formats/stored-model.ts'
import { scoreExamples, textWindows } from '../../sdk/generate/score.ts'
import { loadModel, quantizeModel } from '../../sdk/index.ts'
import { toFloats } from '../../sdk/quant/convert.ts'
import { storeAt } from '../../sdk/store/store.ts'
import { readAs } from '../formats/read-as.ts'

const shared = process.env.HALFLING_SHARED ?? '../shared'
const texts = ['tinyshakespeare.txt', 'tinystories_248k.txt']
const [model, python, tokens = '16384', threads = '2', kinds = 'q8/q8,q4a/q8,q4a/q4a,q4/q8'] = process.argv.slice(2)
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

/** The same by PyTorch, of an HF folder. */
function peer(folder: string, ids: readonly number[][]): number[][] {
  const [input, output] = [join(work, 'ids.json'), join(work, 'scores.json')]
  writeFileSync(input, JSON.stringify(ids))
  execFileSync(python, ['test/bench/peers/score.py', folder, input, output], { stdio: 'inherit' })
  return JSON.parse(readFileSync(output, 'utf8'))
}

/** A tensor as it is held in memory, as numbers. */
const held = (tensor: StoredTensor): StoredTensor => ({
  ...tensor,
  dtype: 'F32',
  bytes: 4 * elementCount(tensor.shape),
  read: async (at = 0, bytes = 4 * elementCount(tensor.shape)) => {
    const dtype = storedDType(tensor)
    const floats = toFloats(await readAs(tensor, dtype), dtype)
    return new Uint8Array(floats.buffer, at, bytes)
  },
})

const source = await openModel(await storeAt(model))
const stored = await score(model)
const all = stored.ids.flat()

const folder = join(work, 'weights')
const tensors = new Map([...source.tensors].map(([name, tensor]) => [name, held(tensor)]))
await quantizeModel({ ...source, tensors }, folder, { dtype: 'f32' })
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
  const [dtype, tokenEmbeddingType] = kind.split('/') as [FloatDType, FloatDType]
  const path = join(work, `${dtype}.gguf`)
  const start = performance.now()
  const { relativeError } = await quantizeModel(folder, path, { dtype, tokenEmbeddingType, force: true })
  const seconds = ((performance.now() - start) / 1000).toFixed(0)
  line(dtype, tokenEmbeddingType, `${(100 * relativeError).toFixed(2)}%`, seconds, await score(path))
}
rmSync(work, { recursive: true })
