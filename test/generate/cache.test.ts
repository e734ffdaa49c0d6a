import { describe, expect, it } from 'vitest'
import { byteLength } from '../../sdk/dtype.ts'
import { MemoryError, OptionError } from '../../sdk/errors.ts'
import { type BatchOptions, generateBatch } from '../../sdk/generate/batch.ts'
import { KeyValueCache } from '../../sdk/generate/cache.ts'
import { LanguageModel } from '../../sdk/generate/language-model.ts'
import { type GenerateOptions, requestsOf } from '../../sdk/generate/request.ts'
import { rollout } from '../../sdk/generate/rollout.ts'
import { resolveSampling } from '../../sdk/generate/sampling.ts'
import { Scheduler } from '../../sdk/generate/scheduler.ts'
import { decode, feed, type Sequence } from '../../sdk/generate/steps.ts'
import { loadModel } from '../../sdk/load.ts'
import { type CacheDType, cacheBytes } from '../../sdk/model/precision.ts'
import type { Target } from '../../sdk/target.ts'
import { wasmTarget } from '../../targets/wasm/index.ts'
import { candidates } from '../suite.ts'
import { randomModel } from '../train/model.ts'

const letters = (n: number, offset = 0) => Array.from({ length: n }, (_, i) => 97 + ((i * 7 + offset) % 26))
const greedy: GenerateOptions = { temperature: 0, maxNewTokens: 20, logitBias: { 257: Number.NEGATIVE_INFINITY } }

/** A target that holds so many bytes of caches; `types`: those it was asked for. */
function watched(target: Target, limit = Number.POSITIVE_INFINITY) {
  const watch = { limit, used: 0, most: 0, types: new Set<string>() }
  const [create, free] = [target.create.bind(target), target.free.bind(target)]
  target.create = (type, name) => {
    if (!/^cache\/[kv]/.test(name)) return create(type, name)
    if (watch.used + byteLength(type) > watch.limit) throw new MemoryError(`${name}: there is no more`)
    watch.used += byteLength(type)
    watch.most = Math.max(watch.most, watch.used)
    watch.types.add(type.dtype)
    return create(type, name)
  }
  target.free = (buffer) => {
    if (/^cache\/[kv]/.test(buffer.name)) watch.used -= buffer.bytes
    free(buffer)
  }
  return watch
}

for (const candidate of await candidates())
  describe.skipIf(candidate.skip)(`an f16 cache, ${candidate.label}`, () => {
    it('takes half of the memory, and moves log-probabilities a little', async () => {
      const target = await candidate.open()
      const watch = watched(target)
      const { model } = await randomModel(target)
      const likeliest = async (cacheDType: CacheDType) => {
        const cache = new KeyValueCache(model, 2, { cacheDType })
        const sampling = resolveSampling({ temperature: 0, seed: 1 }, {})
        const row = (n: number): Sequence => ({
          ...{ promptIds: letters(n), sampling, stream: [0, 0], topLogProbs: 8, drawn: [], cached: 0, counted: -1 },
        })
        const rows = [row(70), row(5)]
        for (const [slot, s] of rows.entries()) await feed(model, cache, slot, s, s.promptIds.slice(0, -1))
        const drawn = await decode(model, cache, rows)
        expect(watch.used).toBe(cacheBytes(model.config, 2, 256, cacheDType))
        cache.free()
        return drawn.flatMap(([{ top }]) => top!.logProbs)
      }
      const [exact, rounded] = [await likeliest('f32'), await likeliest('f16')]
      const far = Math.max(...exact.map((x, i) => Math.abs(x - rounded[i])))
      expect(far).toBeGreaterThan(0)
      expect(far).toBeLessThan(2e-3)
      await target.close()
    })
  })

describe('the type of the cache', () => {
  it('is the model’s for answers, another where a batch says so, and f32 for rollouts', async () => {
    const target = await wasmTarget({ threads: 1 })
    const watch = watched(target)
    const lm = await randomModel(target, 'f32', 256, undefined, { cacheDType: 'f16' })
    const typesOf = async (work: () => Promise<unknown>) => {
      watch.types.clear()
      await work()
      return [...watch.types]
    }
    const batch = async (options: BatchOptions) => {
      for await (const _ of generateBatch(lm, [letters(9)], { ...greedy, ...options }));
    }
    expect(await typesOf(() => LanguageModel.complete(lm.generate(letters(9), greedy)))).toEqual(['f16'])
    expect(await typesOf(() => batch({}))).toEqual(['f16'])
    expect(await typesOf(() => batch({ cacheDType: 'f32' }))).toEqual(['f32'])
    expect(await typesOf(() => rollout(lm, [letters(9)], { seed: 1, maxCompletionLength: 4 }))).toEqual(['f32'])
    await expect(batch({ cacheDType: 'q8' as CacheDType })).rejects.toThrow('cacheDType: "q8" is not one of f32, f16')
    await expect(batch({ exactActivations: 'no' as never })).rejects.toThrow('exactActivations: wanted true or false')
    await expect(loadModel('nano', { cacheDType: 'bf16' as CacheDType })).rejects.toThrow(OptionError)
    await lm.close()
  })
})

describe('a cache that cannot grow', () => {
  /** Two slots of 256 positions and their growth to 512 half way through. */
  const twoSlots = 4 * 2 ** 16
  const halfWay = twoSlots + 200 * 2 ** 10

  const limited = async (limit: number, most: number) => {
    const target = await wasmTarget({ threads: 1 })
    const watch = watched(target)
    const lm = await randomModel(target, 'f32', 2048)
    const answer = async (scheduler: Scheduler, prompt: readonly number[], maxNewTokens = 20) => {
      const [request] = requestsOf(lm, [prompt], { ...greedy, maxNewTokens }, { isRead: true })
      return (await LanguageModel.complete(scheduler.pieces(request))).tokenIds
    }
    const alone = async (prompt: readonly number[], maxNewTokens?: number) => {
      const scheduler = new Scheduler(lm, 1)
      const ids = await answer(scheduler, prompt, maxNewTokens)
      scheduler.close()
      return ids
    }
    const scheduler = new Scheduler(lm, most)
    const short = { prompt: letters(20, 3), ids: await alone(letters(20, 3), 60) }
    watch.limit = limit
    return { lm, watch, scheduler, alone, short, ask: answer.bind(null, scheduler) }
  }

  it.each([
    ['a long prompt', 300, 20],
    ['a long answer', 250, 40],
  ])('%s fails alone, and can be had once there is memory', async (_, length, maxNewTokens) => {
    const { lm, watch, scheduler, alone, short, ask } = await limited(halfWay, 2)
    const others = ask(short.prompt, 60)
    await expect(ask(letters(length), maxNewTokens)).rejects.toThrow(/^cache\/k\/1: there is no more/)
    expect(await others).toEqual(short.ids)
    expect(watch.used).toBe(twoSlots)
    watch.limit = Number.POSITIVE_INFINITY
    expect(await ask(letters(length), maxNewTokens)).toEqual(await alone(letters(length), maxNewTokens))
    scheduler.close()
    await lm.close()
  })

  it('a request without a slot fails alone', async () => {
    const { lm, scheduler, short, ask } = await limited(twoSlots / 2, 2)
    const first = ask(short.prompt, 60)
    await expect(ask(letters(9))).rejects.toThrow(MemoryError)
    expect(await first).toEqual(short.ids)
    scheduler.close()
    await lm.close()
  })

  it('holds one layer twice while it grows, and is refused before anything is allocated where the forecast says so', async () => {
    const target = await wasmTarget({ threads: 1 })
    const watch = watched(target)
    const { model } = await randomModel(target, 'f32', 2048)
    const cache = new KeyValueCache(model, 2)
    await cache.reserve(200)
    await cache.reserve(500)
    const [before, after] = [256, 512].map((positions) => cacheBytes(model.config, 2, positions, 'f32'))
    expect(watch.used).toBe(after)
    expect(watch.most).toBe(after + before / 4)
    Object.assign(target, { info: { ...target.info, memoryLimit: model.weightBytes + 3 * after } })
    await expect(cache.reserve(2000)).rejects.toThrow(
      "the key/value cache of 2 slots with 2048 positions needs 2.1 MB in f32, the weights 0.3 MB, and wasm has 1.9 MB (shorten the prompt, answer fewer at once, or use cacheDType: 'f16')",
    )
    expect([watch.used, cache.capacity, cache.slots]).toEqual([after, 512, 2])
    cache.free()
    await target.close()
  })
})
