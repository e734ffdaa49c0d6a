import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { packBatch } from '../../sdk/data/pack.ts'
import { headWeight, packedHidden } from '../../sdk/model/decoder.ts'
import type { Model } from '../../sdk/model/model.ts'
import { linear } from '../../sdk/ops/index.ts'
import { goldenRoot } from '../golden/golden.ts'

// What both directions of the comparison with Python share.

export const shared = dirname(goldenRoot)
export const pebble = join(shared, 'models', 'pebble-7m-instruct')

/** Token ids that both sides run: the golden folder's texts. */
export function probes(): number[][] {
  const texts = JSON.parse(readFileSync(join(goldenRoot, 'pebble-7m-instruct', 'score.json'), 'utf8'))
  return (texts as { ids: number[] }[]).slice(0, 4).map(({ ids }) => ids)
}

/** Logits of every position of one text, [N, V]. */
export async function logitsOf(model: Model, inputIds: number[]): Promise<Float32Array> {
  const { ids, positions, starts } = packBatch([{ inputIds, labels: inputIds }])
  const n = ids.length
  const executable = await model.compile('logits', (g) => {
    const i32 = (name: string) => g.input(name, { dtype: 'i32', shape: [n] })
    const c = model.context()
    g.output('logits', linear(g, packedHidden(g, c, i32('ids'), i32('positions'), i32('starts')), headWeight(g, c)))
  })
  const logits = (await executable.run({ ids, positions, starts })).logits as Float32Array
  executable.free()
  return logits.subarray(0, inputIds.length * model.config.vocabSize)
}
