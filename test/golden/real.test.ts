import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { Example } from '../../sdk/data/tokenize.ts'
import { openModel } from '../../sdk/formats/stored-model.ts'
import { scoreExamples } from '../../sdk/generate/score.ts'
import { modelTeacher } from '../../sdk/generate/teacher.ts'
import { parseConfig } from '../../sdk/model/config.ts'
import { Model } from '../../sdk/model/model.ts'
import { storeAt } from '../../sdk/store/store.ts'
import type { Target } from '../../sdk/target.ts'
import { loadTokenizer } from '../../sdk/text/tokenizer.ts'
import { realModel } from '../real.ts'
import { candidates } from '../suite.ts'
import { goldenRoot, greedy, readJson } from './golden.ts'

// Quantized files as people have them, in their own types, beside PyTorch on the dequantized weights: golden/real/README.md.

interface Scored {
  readonly ids: number[]
  readonly logProbs: number[]
}
interface Greedy {
  readonly promptIds: number[]
  readonly outputIds: number[]
  /** Between the two best logits, at each step. */
  readonly margins: number[]
}

/** Texts and prompts that are looked at (there are 8 and 14), where not as many as stands below; the first are long, they come last. */
const asked = process.env.HALFLING_CASES

const models = [
  { name: 'smollm2-135m-q4_1', mean: 2e-5, most: 2e-4, margin: 1e-3, rounded: 0.5, cases: 2 },
  { name: 'qwen2.5-coder-0.5b-q4_k_m', mean: 5e-3, most: 0.1, margin: 0.1, rounded: 0.25, cases: 0 },
  { name: 'gemma-3-270m-q4_k_m', mean: 2e-2, most: 0.3, margin: 0.1, rounded: 0.25, cases: 0 },
]

/** The last `count` tokens are scored. */
const example = (inputIds: number[], row: number, count = inputIds.length): Example => ({
  inputIds,
  labels: inputIds.map((id, i) => (i < inputIds.length - count ? -100 : id)),
  row,
})
const shortFirst = <T>(all: readonly T[], count: number): T[] => [...all.slice(1), all[0]].slice(0, count)

const targets = (await candidates()).filter(({ label }) => /2 threads|webgpu|cpu/.test(label))

for (const { name, mean, most, margin, rounded, cases } of models) {
  const { path: file, missing } = realModel(`${name}.gguf`)
  const golden = join(goldenRoot, 'real', name)
  const absent = missing || (existsSync(golden) ? null : `${golden} is not there`)
  const withModel = async (open: () => Promise<Target>, work: (model: Model) => Promise<void>) => {
    const stored = await openModel(await storeAt(file))
    const target = await open()
    try {
      await work(await Model.load(target, parseConfig(stored.config, stored.configFile), stored.tensors, file))
    } finally {
      await target.close()
    }
  }
  /** The mean is held to where there are hundreds of tokens. */
  const expectNear = async (model: Model, texts: readonly Scored[]) => {
    const rows = texts.map(({ ids }, row) => example(ids, row))
    const logProbs = await scoreExamples(model, rows)
    const differences = texts.flatMap(({ logProbs: want }, i) => want.map((v, t) => Math.abs(v - logProbs[i][t])))
    if (differences.length > 100) expect(differences.reduce((a, b) => a + b, 0) / differences.length).toBeLessThan(mean)
    expect(Math.max(...differences)).toBeLessThan(most)
  }

  it.skipIf(absent)(`${name}: its tokenizer gives Python's ids${absent ? ` (${absent})` : ''}`, async () => {
    const { tokenizerJson, tokenizerConfig } = await openModel(await storeAt(file))
    const tokenizer = loadTokenizer(tokenizerJson, tokenizerConfig)
    for (const { text, ids } of readJson<{ text: string; ids: number[] }[]>(join(golden, 'tokenizer.json')))
      expect(tokenizer.encode(text, { addSpecialTokens: false }), JSON.stringify(text)).toEqual(ids)
  })

  for (const { label, skip, open } of targets) {
    // WebGPU in software takes minutes.
    const isFast = !label.startsWith('webgpu')
    const count = Number(asked ?? (isFast ? cases : 0))
    const why = skip ?? absent ?? (count === 0 ? 'slow: HALFLING_CASES=14 runs it' : null)
    describe.skipIf(why !== null)(`${name} as stored, ${label}${why === null ? '' : ` (${why})`}`, () => {
      const texts = why === null ? readJson<Scored[]>(join(golden, 'score.json')) : []
      const prompts = why === null ? readJson<Greedy[]>(join(golden, 'greedy.json')) : []

      if (isFast)
        it('scores and answers as PyTorch does', () =>
          withModel(open, async (model) => {
            await expectNear(model, shortFirst(texts, count))
            // Every next token of the answers, the answer so far given: exactly, and as answers are computed.
            const answers = shortFirst(prompts, count)
            const rows = answers.map(({ promptIds, outputIds }, row) =>
              example([...promptIds, ...outputIds], row, outputIds.length),
            )
            for (const [activations, least] of [
              ['f32', margin],
              // cpu rounds to 8 bits beside q8 too.
              ['int8', label.startsWith('cpu') ? 1 : rounded],
            ] as const) {
              const question = { method: 'topk', k: 1, temperature: 1, seed: 0 } as const
              const best = await modelTeacher(model, question, undefined, activations)(rows)
              for (const [i, { outputIds, margins }] of answers.entries())
                for (const [t, id] of outputIds.entries())
                  if (margins[t] > least) expect([activations, i, t, best[i].ids[t]]).toEqual([activations, i, t, id])
            }
          }))
      else
        it('scores and answers as PyTorch does, a few tokens', () =>
          withModel(open, async (model) => {
            const [{ ids, logProbs }] = shortFirst(texts, 1)
            await expectNear(model, [{ ids: ids.slice(0, 16), logProbs: logProbs.slice(0, 15) }])
            const [{ promptIds, outputIds }] = shortFirst(prompts, 1)
            expect(await greedy(model, promptIds, 4)).toEqual(outputIds.slice(0, 4))
          }))
    })
  }
}
