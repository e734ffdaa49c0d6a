// Files that `quantizeModel` writes, in llama.cpp: greedy ids of both after the golden prompts of a real model, and how near the two
// best logits were where they first part. `npx tsx test/bench/llama-cpp-greedy.ts MODEL.gguf FOLDER [prompts] [tokens]`; FOLDER has
// node-llama-cpp in its node_modules.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { loadModel, quantizeModel } from '../../sdk/index.ts'

const [model, folder, prompts = '8', tokens = '32'] = process.argv.slice(2)
const golden = join(process.env.HALFLING_SHARED ?? '../shared', 'golden/real', basename(model, '.gguf'), 'greedy.json')
const asked: number[][] = JSON.parse(readFileSync(golden, 'utf8'))
  .slice(0, Number(prompts))
  .map(({ promptIds }: { promptIds: number[] }) => promptIds)
const work = mkdtempSync(join(tmpdir(), 'halfling-greedy-'))
writeFileSync(join(work, 'prompts.json'), JSON.stringify(asked))

async function compare(file: string, what: string): Promise<void> {
  const args = ['test/bench/peers/llama-cpp-greedy.mjs', file, folder, join(work, 'prompts.json'), tokens]
  const theirs: number[][] = JSON.parse(
    execFileSync(process.execPath, args, { encoding: 'utf8' }).trim().split('\n').at(-1)!,
  )
  const lm = await loadModel(file, { device: 'wasm', threads: 2 })
  const margins: number[] = []
  for (const [i, prompt] of asked.entries()) {
    const ids: number[] = []
    const gaps: number[] = []
    const options = { maxNewTokens: Number(tokens), temperature: 0, topLogProbs: 2 }
    for await (const { tokenIds, top } of lm.generate(prompt, options)) {
      ids.push(...tokenIds)
      for (const { logProbs } of top ?? []) gaps.push(logProbs[0] - logProbs[1])
    }
    const at = theirs[i].findIndex((id, t) => id !== ids[t])
    if (at >= 0) margins.push(gaps[at])
  }
  await lm.close()
  const parted =
    margins.length === 0 ? '' : `, the others part at margins of at most ${Math.max(...margins).toFixed(2)}`
  console.log(`${what}: ${asked.length - margins.length} of ${asked.length} texts are llama.cpp's${parted}`)
}

await compare(model, `${basename(model)} itself`)
for (const [dtype, tokenEmbeddingType] of [
  ['q8', 'q8'],
  ['q4a', 'q4a'],
  ['q4', 'q8'],
] as const) {
  const file = join(work, `${dtype}.gguf`)
  await quantizeModel(model, file, { dtype, tokenEmbeddingType })
  await compare(file, `${dtype}, table ${tokenEmbeddingType}`)
}
rmSync(work, { recursive: true })
