import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { generateBatch } from '../../sdk/generate/batch.ts'
import { LanguageModel } from '../../sdk/generate/language-model.ts'
import { scoreExamples } from '../../sdk/generate/score.ts'
import { loadModel } from '../../sdk/load.ts'
import { filesOf, foldersWith, goldenRoot, missing, modelFolder, readJson } from './golden.ts'

interface Greedy {
  readonly prompt: string
  readonly promptIds: number[]
  readonly outputIds: number[]
  readonly smallestMargin: number
  readonly llamaCppIds?: number[]
}
interface Score {
  readonly ids: number[]
  readonly logProbs: number[]
}

/** PyTorch's ids where its two best logits were further apart than what float32 may move. */
const clear = 1e-3
/** llama.cpp quantizes activations. */
const clearOfLlamaCpp = 0.2

async function checkGreedy(lm: LanguageModel, cases: Greedy[]): Promise<void> {
  let checked = 0
  for (const c of cases) {
    expect(lm.encodePrompt(c.prompt), c.prompt).toEqual(c.promptIds)
    const options = { temperature: 0, maxNewTokens: c.outputIds.length }
    const { tokenIds } = await LanguageModel.complete(lm.generate(c.promptIds, options))
    if (c.smallestMargin > clear) {
      expect(tokenIds, c.prompt).toEqual(c.outputIds)
      checked++
    }
    if (c.llamaCppIds && c.smallestMargin > clearOfLlamaCpp) expect(tokenIds, c.prompt).toEqual(c.llamaCppIds)
  }
  expect(checked).toBeGreaterThan(0)
}

describe.skipIf(missing !== null)(`golden language models, wasm${missing ? ` (${missing})` : ''}`, () => {
  if (foldersWith('greedy.json').length === 0) it.skip(`golden greedy.json: none in ${goldenRoot}`)
  for (const folder of foldersWith('greedy.json'))
    describe(folder, () => {
      let lm: LanguageModel
      beforeAll(async () => {
        lm = await loadModel(modelFolder(folder), { device: 'wasm', threads: 2 })
      })
      afterAll(() => lm?.close())

      it("greedy ids equal PyTorch's", () => checkGreedy(lm, readJson<Greedy[]>(join(folder, 'greedy.json'))))

      it('a batch decodes what one prompt alone decodes', async () => {
        const cases = readJson<Greedy[]>(join(folder, 'greedy.json')).filter((c) => c.smallestMargin > clear)
        const prompts = cases.map((c) => c.promptIds)
        const maxNewTokens = Math.max(...cases.map((c) => c.outputIds.length))
        let done = 0
        for await (const c of generateBatch(lm, prompts, { temperature: 0, maxNewTokens, slots: 5 })) {
          expect(c.tokenIds).toEqual(cases[c.index].outputIds.slice(0, c.tokenIds.length))
          expect(c.tokenIds.length).toBe(cases[c.index].outputIds.length)
          done++
        }
        expect(done).toBe(cases.length)
      })

      it.skipIf(!existsSync(join(folder, 'score.json')))('scores within 1e-4', async () => {
        const cases = readJson<Score[]>(join(folder, 'score.json'))
        const examples = cases.map((c, row) => ({ inputIds: c.ids, labels: [-100, ...c.ids.slice(1)], row }))
        const got = await scoreExamples(lm.model, examples)
        cases.forEach((c, i) => {
          expect(got[i].length).toBe(c.logProbs.length)
          c.logProbs.forEach((want, t) => {
            expect(Math.abs(got[i][t] - want), `row ${i}, token ${t + 1}`).toBeLessThan(
              1e-4 * Math.max(1, Math.abs(want)),
            )
          })
        })
      })
    })

  for (const folder of foldersWith('greedy.json'))
    for (const file of filesOf(folder, /^gguf-.*\.json$/)) {
      const kind = /^gguf-(.*)\.json$/.exec(file)![1]
      const models = join(modelFolder(folder), 'gguf')
      const gguf = filesOf(models, /\.gguf$/).find((name) => name.endsWith(`-${kind}.gguf`))
      it.skipIf(!gguf)(`${folder}/${file}: greedy ids equal PyTorch's and llama.cpp's`, async () => {
        const lm = await loadModel(join(models, gguf!), { device: 'wasm', threads: 2, exactActivations: true })
        try {
          await checkGreedy(lm, readJson<Greedy[]>(join(folder, file)))
        } finally {
          await lm.close()
        }
      })
    }
})

describe.skipIf(missing !== null)(`golden texts${missing ? ` (${missing})` : ''}`, () => {
  const tables = join(goldenRoot, 'tables')
  const texts = filesOf(tables, /^model_.*_expected\.json$/)
  if (texts.length === 0) it.skip(`golden texts: none in ${tables}`)
  for (const table of texts) {
    const name = /^model_(.*)_expected\.json$/.exec(table)![1]
    const { greedy_ids, greedy_text } = readJson<{ greedy_ids: number[]; greedy_text: string }>(join(tables, table))
    const models = join(goldenRoot, '..', 'models', name)
    for (const file of ['', ...filesOf(models, /\.gguf$/)])
      it(`${name} ${file || 'safetensors'}: published greedy text`, async () => {
        const lm = await loadModel(join(models, file), { device: 'wasm', threads: 2 })
        try {
          const options = { temperature: 0, maxNewTokens: greedy_ids.length - 1 }
          const { tokenIds, text } = await LanguageModel.complete(lm.generate(greedy_ids.slice(0, 1), options))
          expect([greedy_ids[0], ...tokenIds]).toEqual(greedy_ids)
          expect(text.trim()).toBe(greedy_text.trim())
        } finally {
          await lm.close()
        }
      })
  }
})
