// The smallest model that this repository can make by itself: a random Qwen2 of two layers, a token a byte. It knows
// nothing; tests load it and train it.
//
//     npx tsx examples/tiny-model.ts <folder>

import { pathToFileURL } from 'node:url'
import { specialTokens, tagTokens, writeRandomQwen2 } from './nano/random-qwen2.ts'
import { trainTokenizer } from './nano/tokenizer.ts'

const shape = {
  // 256 bytes and the special tokens, up to a multiple of 32.
  vocabSize: 288,
  hiddenSize: 64,
  intermediateSize: 192,
  numHiddenLayers: 2,
  numAttentionHeads: 4,
  numKeyValueHeads: 2,
  maxPositionEmbeddings: 512,
}

/** Writes it as a Hugging Face folder. Same seed, same bytes. */
export async function writeTinyModel(folder: string, seed = 0): Promise<void> {
  await writeRandomQwen2(folder, shape, trainTokenizer([], 256, specialTokens, tagTokens), seed)
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const folder = process.argv[2]
  if (!folder) throw new Error('usage: npx tsx examples/tiny-model.ts <folder>')
  await writeTinyModel(folder)
  console.log(`${folder}: a random Qwen2 of ${shape.numHiddenLayers} layers`)
}
