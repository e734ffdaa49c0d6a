import { describe, expect, it, vi } from 'vitest'
import { byteLength } from '../../sdk/dtype.ts'
import { KeyValueCache } from '../../sdk/generate/cache.ts'
import { resolveSampling } from '../../sdk/generate/sampling.ts'
import { decode, type Sequence } from '../../sdk/generate/steps.ts'
import { bindings, type Program } from '../../sdk/graph/program.ts'
import { createAdapter } from '../../sdk/model/lora.ts'
import { relativeError } from '../../sdk/self-test.ts'
import type { Target } from '../../sdk/target.ts'
import { crossEntropy } from '../../sdk/train/objectives.ts'
import { TrainStep } from '../../sdk/train/step.ts'
import { wasmTarget } from '../../targets/wasm/index.ts'
import { qwenModel } from '../qwen-shape.ts'
import { useSwiftShader } from '../swiftshader.ts'
import { openGpu, watch } from './gpu.ts'

// Qwen2.5-0.5B's widths and vocabulary in q4, within the limits that every adapter has, beside the wasm target. In software all 24
// layers take many minutes: HALFLING_LAYERS=24 HALFLING_SCORED=64 npx vitest run test/webgpu/half-billion.test.ts

const skip = useSwiftShader()
const layers = Number(process.env.HALFLING_LAYERS ?? 1)
const scored = Number(process.env.HALFLING_SCORED ?? 10)
const tokens = 32

/** Seconds, printed beside the results. */
const clock = () => {
  const start = performance.now()
  return () => (performance.now() - start) / 1000
}

async function run(target: Target, watch: Watch) {
  const model = await qwenModel(target, layers)
  const seconds: Record<string, number> = {}

  const cache = new KeyValueCache(model, 1)
  const sampling = resolveSampling({ temperature: 0 }, {})
  const sequence: Sequence = {
    ...{ sampling, stream: [0, 0], promptIds: [1234], drawn: [], cached: 0, counted: -1, topLogProbs: 16 },
  }
  let timer = clock()
  const [[token]] = await decode(model, cache, [sequence])
  seconds.decode = timer()
  const cached = 2 * layers * byteLength(cache.type)
  const programs = watch.programs.splice(0)
  // Among them the rotary table, of as many positions as the cache has.
  const bound = new Map(programs.flatMap((program) => [...bindings(program, 'weight')]))
  const weights = [...bound.values()].reduce((sum, type) => sum + byteLength(type), 0)
  watch.check('decoding', weights + cached + (await target.scratchBytes(programs)))
  cache.free()

  model.adapters.set('a', await createAdapter('a', { r: 8, loraAlpha: 16, targetModules: 'all-linear' }, model, 1))
  await model.setAdapters(['a'])
  const step = new TrainStep(model, {
    trains: 'adapter',
    gradientCheckpointing: true,
    dropout: 0,
    objective: crossEntropy,
  })
  const forecast = await step.forecast(tokens, scored)
  const i32 = (n: number, of: (i: number) => number) => Int32Array.from({ length: n }, (_, i) => of(i))
  const id = (i: number) => (i * 2377 + 11) % 151_000
  const batch = {
    ids: i32(tokens, id),
    positions: i32(tokens, (i) => i),
    starts: i32(tokens, () => 0),
    rows: i32(scored, (i) => tokens - scored + i),
  }
  const targets = i32(scored, (i) => id(tokens - scored + i + 1))
  timer = clock()
  watch.restart()
  const { loss } = await step.accumulate(batch, { targets, weights: new Float32Array(scored).fill(1 / scored) }, [1, 0])
  seconds.accumulate = timer()
  timer = clock()
  // With so large an epsilon an update is nearly in proportion to its gradient, not just its sign.
  const norm = await step.apply({
    learningRate: 1,
    weightDecay: 0,
    maxGradNorm: 0,
    adamBeta1: 0.9,
    adamBeta2: 0.999,
    adamEpsilon: 0.1,
  })
  seconds.apply = timer()
  watch.check('training', forecast.total)
  const adapter = [...step.parameters.keys()].filter((name) => /layers\.0\..*lora_B/.test(name))
  const trained = await Promise.all(adapter.map((name) => model.readFloats(name)))
  step.free()
  model.free()
  await watch.end()
  await target.close()
  return { top: token.top!, loss: loss[0], norm, trained, seconds }
}

/** What is looked at meanwhile. */
interface Watch {
  readonly programs: Program[]
  /** The peak of what is live, beside what was forecast. */
  check(what: string, forecast: number): void
  restart(): void
  /** All is freed. */
  end(): Promise<unknown>
}

describe.skipIf(skip)(`the shape of a 0.5B model on webgpu${skip ? ` (${skip})` : ''}`, () => {
  it('decodes and learns as on wasm, in the memory that was forecast', { timeout: 3_600_000 }, async () => {
    const { target, device } = await openGpu()
    const { live } = watch(device)
    const programs: Program[] = []
    let compiling = 0
    const compile = target.compile.bind(target)
    target.compile = async (program, bound) => {
      programs.push(program)
      const timer = clock()
      const made = await compile(program, bound)
      compiling += timer()
      return made
    }
    const report: Record<string, unknown> = { layers, scored }
    const got = await run(target, {
      programs,
      check(what, forecast) {
        report[what] = { peakMB: live.peak / 1e6, forecastMB: forecast / 1e6 }
        expect(live.peak, `peak while ${what}`).toBeLessThanOrEqual(forecast)
        expect(live.peak, `peak while ${what}`).toBeGreaterThan(0.95 * forecast)
      },
      restart: () => {
        live.peak = live.bytes
      },
      // What is read back goes through a buffer that stays.
      end: () => vi.waitFor(() => expect(live.bytes).toBe(4 * 2 ** 20), 10_000),
    })
    console.log(JSON.stringify({ ...report, compiling, ...got.seconds, loss: got.loss, norm: got.norm }))
    expect(compiling).toBeLessThan(20)

    const want = await run(await wasmTarget({ threads: 2 }), {
      programs: [],
      check() {},
      restart() {},
      end: async () => {},
    })
    expect(got.top.ids).toEqual(want.top.ids)
    expect(relativeError(got.top.logProbs, Float64Array.from(want.top.logProbs))).toBeLessThan(1e-3)
    expect(Math.abs(got.loss / want.loss - 1)).toBeLessThan(1e-3)
    expect(Math.abs(got.norm / want.norm - 1)).toBeLessThan(1e-3)
    expect(want.trained.length).toBeGreaterThanOrEqual(7)
    for (const [i, values] of want.trained.entries()) {
      expect(Math.max(...values.map(Math.abs))).toBeGreaterThan(0)
      expect(relativeError(got.trained[i], Float64Array.from(values))).toBeLessThan(1e-3)
    }
  })
})
