// npx tsx test/interop/ours.ts FOLDER: trains adapters of every kind on Pebble for a few steps, saves them with the logits that
// they give here. `peft_reads_ours.py FOLDER` compares.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { writeSafetensors } from '../../sdk/formats/safetensors.ts'
import { type LoraConfig, loadModel, SFTTrainer } from '../../sdk/index.ts'
import { logitsOf, pebble, probes, shared } from './logits.ts'

const folder = process.argv[2]
if (!folder) throw new Error('usage: npx tsx test/interop/ours.ts FOLDER')

const kinds: Record<string, Partial<LoraConfig>> = {
  lora: { r: 8 },
  rslora: { r: 8, useRslora: true, targetModules: ['q_proj', 'v_proj'] },
  dora: { r: 4, useDora: true },
  rank_pattern: { r: 8, rankPattern: { q_proj: 5, 'layers.0.mlp.up_proj': 12 }, alphaPattern: { v_proj: 7 } },
  regex: {
    r: 8,
    targetModules: 'model\\.layers\\.[0-3]\\..*(q|down)_proj',
    excludeModules: ['layers.1.mlp.down_proj'],
  },
  norms: { r: 8, modulesToSave: ['norm'] },
  embedding: { r: 8, modulesToSave: ['embed_tokens'] },
  output_layer: { r: 8, useDora: true, modulesToSave: ['lm_head'] },
}

const rows = readFileSync(join(shared, 'data', 'pebble', 'unseen_train.jsonl'), 'utf8')
  .split('\n')
  .slice(0, 40)
  .map((line) => JSON.parse(line))
  .map(({ question, solution, answer }) => ({
    prompt: [{ role: 'user', content: question }],
    completion: [{ role: 'assistant', content: `<think>\n${solution}\n</think>\n<answer>${answer}</answer>` }],
  }))

for (const [kind, peft] of Object.entries(kinds)) {
  const lm = await loadModel(pebble, { device: 'wasm', dtype: 'f32' })
  const out = join(folder, kind)
  const args = { outputDir: out, maxSteps: 5, learningRate: 2e-3, saveStrategy: 'no' } as const
  let loss = 0
  for await (const log of new SFTTrainer({ model: lm, trainDataset: rows, peft, args }).train())
    if ('loss' in log) loss = log.loss
  const tensors = []
  for (const [i, ids] of probes().entries()) {
    const logits = await logitsOf(lm.model, ids)
    const shape = [ids.length, lm.model.config.vocabSize]
    tensors.push({ name: `logits${i}`, dtype: 'F32', shape, data: new Uint8Array(logits.slice().buffer) } as const)
    const bytes = new Uint8Array(Int32Array.from(ids).buffer)
    tensors.push({ name: `ids${i}`, dtype: 'I32', shape: [ids.length], data: bytes } as const)
  }
  await writeSafetensors(join(out, 'logits.safetensors'), tensors)
  await lm.saveMerged(join(out, 'merged'), 'f32')
  await lm.close()
  console.log(`${kind}: loss after 5 steps ${loss.toFixed(4)}, saved in ${out}`)
}
