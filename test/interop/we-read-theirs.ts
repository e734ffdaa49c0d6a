// npx tsx test/interop/we-read-theirs.ts FOLDER: loads the adapters that theirs.py made and compares their logits with PEFT's.

import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { loadModel } from '../../sdk/index.ts'
import { loadAdapter } from '../../sdk/load.ts'
import { readTensors } from '../golden/golden.ts'
import { logitsOf, pebble, probes } from './logits.ts'

const folder = process.argv[2]
if (!folder) throw new Error('usage: npx tsx test/interop/we-read-theirs.ts FOLDER')

const lm = await loadModel(pebble, { device: 'wasm', dtype: 'f32' })
let worst = 0
for (const kind of readdirSync(folder).sort()) {
  const at = join(folder, kind)
  if (!existsSync(join(at, 'logits.safetensors'))) continue
  const theirs = await readTensors(join(at, 'logits.safetensors'))
  const largest = async () => {
    let difference = 0
    for (const [i, ids] of probes().entries()) {
      const want = theirs.get(`logits${i}`)!.data
      const got = await logitsOf(lm.model, ids)
      for (const [at, logit] of got.entries()) difference = Math.max(difference, Math.abs(logit - want[at]))
    }
    return difference
  }
  await lm.model.setAdapters([])
  const plain = await largest()
  await loadAdapter(lm, at)
  const adapted = await largest()
  console.log(`${kind.padEnd(14)} ${adapted.toExponential(1)}   (without the adapter ${plain.toExponential(1)})`)
  if (!(plain > 0.1)) throw new Error(`${kind}: the adapter does nothing: nothing is proven`)
  worst = Math.max(worst, adapted)
}
await lm.close()
console.log(`largest difference of any logit: ${worst.toExponential(1)}`)
process.exitCode = worst > 0 && worst <= 1e-4 ? 0 : 1
