import { execFileSync } from 'node:child_process'
import { statSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { loadModel } from '../../sdk/index.ts'
import { parseConfig } from '../../sdk/model/config.ts'
import { type LoadProgress, Model } from '../../sdk/model/model.ts'
import { storeAt } from '../../sdk/store/store.ts'
import { referenceTarget } from '../../targets/reference/index.ts'
import { library } from '../built.ts'
import { tinySource } from '../formats/tiny-source.ts'
import { realModel } from '../real.ts'

describe('a table of more than one piece', () => {
  // 40,000 rows of 32 bf16: 2^20 elements and the rest.
  const { config, configFile, tensors } = tinySource({ vocab_size: 40_000 })
  const load = (onProgress: (progress: LoadProgress) => void, signal?: AbortSignal) =>
    Model.load(referenceTarget(), parseConfig(config, configFile), tensors, 'tiny', { onProgress, signal })

  it('is told of piece by piece, up to all bytes', async () => {
    const told: LoadProgress[] = []
    const model = await load((progress) => told.push(progress))
    const table = told.filter(({ name }) => name === 'model.embed_tokens.weight').map(({ loadedBytes }) => loadedBytes)
    expect(table).toEqual([2 ** 21, 40_000 * 32 * 2].map((n) => n + table[0] - 2 ** 21))
    expect(told.every(({ loadedBytes }, i) => i === 0 || loadedBytes > told[i - 1].loadedBytes)).toBe(true)
    expect(told.at(-1)).toMatchObject({ loadedBytes: model.weightBytes, totalBytes: model.weightBytes })
  })

  it('can be left between two pieces', async () => {
    const [stop, reason] = [new AbortController(), new Error('enough')]
    const told: string[] = []
    const loading = load(({ name }) => {
      told.push(name)
      if (name === 'model.embed_tokens.weight') stop.abort(reason)
    }, stop.signal)
    await expect(loading).rejects.toBe(reason)
    expect(told.filter((name) => name === 'model.embed_tokens.weight').length).toBe(1)
  })
})

const { path, missing } = realModel('smollm2-135m-q4_1.gguf')
describe.skipIf(missing)(`SmolLM2 135M, Q4_1${missing ? ` (${missing})` : ''}`, () => {
  it('is read once, a piece at a time', async () => {
    const store = await storeAt(path)
    const reads: { offset: number; length: number }[] = []
    const open = async (file: string) => {
      const source = await store.open(file)
      return (
        source && {
          ...source,
          read(offset: number, length: number) {
            reads.push({ offset, length })
            return source.read(offset, length)
          },
        }
      )
    }
    const lm = await loadModel({ ...store, open }, { device: 'wasm', threads: 1 })
    const [header, ...data] = reads
    const sorted = data.toSorted((a, b) => a.offset - b.offset)
    const { size } = statSync(path)
    expect(lm.model.weightBytes / size).toBeCloseTo(0.982, 3)
    expect(header.length).toBe(2 ** 23)
    expect(Math.max(...data.map(({ length }) => length))).toBeLessThanOrEqual(2 ** 22)
    expect(sorted.every(({ offset }, i) => i === 0 || offset >= sorted[i - 1].offset + sorted[i - 1].length)).toBe(true)
    // All of them in their own types.
    expect(data.reduce((sum, { length }) => sum + length, 0)).toBe(lm.model.weightBytes)
    await lm.close()
  })

  it.skipIf(process.platform !== 'linux')('takes at most 250 MB beside its weights, and no more while it loads', () => {
    const code = `
      const { readFileSync } = await import('node:fs')
      const { loadModel } = await import(${JSON.stringify(library)})
      const anonymous = () => 1024 * Number(/RssAnon:\\s+(\\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1])
      let peak = 0
      const onProgress = () => { peak = Math.max(peak, anonymous()) }
      const lm = await loadModel(${JSON.stringify(path)}, { device: 'wasm', threads: 2, onProgress })
      console.log(JSON.stringify({ peak, resident: anonymous(), weights: lm.model.weightBytes }))
      await lm.close()`
    const loader = library.endsWith('.ts') ? ['--import', import.meta.resolve('tsx')] : []
    const out = execFileSync(process.execPath, [...loader, '--input-type=module', '-e', code], { encoding: 'utf8' })
    const { peak, resident, weights } = JSON.parse(out)
    expect(resident - weights).toBeLessThan(250e6)
    // Its largest tensor, the table.
    expect(peak - resident).toBeLessThan(49_152 * 576 * (34 / 32))
  })
})
