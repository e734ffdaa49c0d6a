import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { DeviceError, MemoryError } from '../../sdk/errors.ts'
import { Graph, type Tensor } from '../../sdk/graph/graph.ts'
import { toProgram } from '../../sdk/graph/program.ts'
import { add, exp, linear, scale, sum } from '../../sdk/ops/index.ts'
import type { CompileProgress, Target } from '../../sdk/target.ts'
import type { TrainProgress } from '../../sdk/train/run.ts'
import { SFTTrainer } from '../../sdk/train/sft.ts'
import { lowering } from '../../targets/webgpu/lower/index.ts'
import { longestSubmit, Pace } from '../../targets/webgpu/work.ts'
import { useSwiftShader } from '../swiftshader.ts'
import { randomModel, rows } from '../train/model.ts'
import { openGpu, type Watched, watch } from './gpu.ts'

const skip = useSwiftShader()
const f32 = (...shape: number[]) => ({ dtype: 'f32' as const, shape })

describe.skipIf(skip)(`webgpu at its limits${skip ? ` (${skip})` : ''}`, () => {
  let target: Target
  let device: GPUDevice
  let watched: Watched
  beforeEach(async () => {
    ;({ target, device } = await openGpu())
    watched = watch(device)
  })
  afterEach(async () => {
    vi.restoreAllMocks()
    await target.close()
  })
  const compile = (build: (g: Graph, x: Tensor) => Tensor, n = 8) => {
    const g = new Graph()
    g.output('y', build(g, g.input('x', f32(n))))
    return target.compile(toProgram(g, 'p'), {})
  }

  it('a tensor that the GPU has no memory for is named with its bytes, and the rest goes on', async () => {
    watched.refused = 'gradient of doom'
    const good = target.create(f32(1000), 'good')
    await target.write(good, new Float32Array(1000).fill(3))
    const doomed = target.create(f32(500_000), 'gradient of doom')
    const told =
      /^gradient of doom: the GPU has no 2\.0 MB left for it, .* are in use here \(Not enough memory left\.\)/
    const error = await Promise.resolve(target.write(doomed, new Float32Array(4))).catch((e) => e)
    expect(error).toBeInstanceOf(MemoryError)
    expect(error.message).toMatch(told)
    target.free(doomed)
    // Not written to: the next thing that is waited for says so.
    target.create(f32(500_000), 'gradient of doom')
    await expect(target.read(good)).rejects.toThrow(told)
    expect(new Float32Array(await target.read(good))[999]).toBe(3)
  })

  it('scratch that the GPU has no memory for fails the program alone', async () => {
    const small = await compile((g, x) => scale(g, x, 2))
    watched.refused = 'scratch of programs'
    const before = watched.live.bytes
    await expect(compile((g, x) => add(g, x, scale(g, x, 2)), 100_000)).rejects.toThrow(MemoryError)
    expect(watched.live.bytes).toBeLessThanOrEqual(before)
    watched.refused = ''
    const { y } = await small.run({ x: new Float32Array(8).fill(2) })
    expect((y as Float32Array)[7]).toBe(4)
  })

  it('a tensor larger than a binding, or one that an op cannot take in parts, is named before anything is allocated', async () => {
    const g = new Graph()
    g.output('y', scale(g, g.input('x', f32(2 ** 26)), 2))
    await expect(target.scratchBytes([toProgram(g, 'p')])).rejects.toThrow(
      /program p: x f32\[67108864\] takes 268 MB, this/,
    )
    const parts = new Graph()
    parts.output('y', sum(parts, parts.weight('table', f32(8192, 8192))))
    await expect(target.scratchBytes([toProgram(parts, 'p')])).rejects.toThrow(
      /program p: sum takes table as a whole, 268 MB/,
    )
    expect(watched.live.bytes).toBe(0)
  })

  it('a kernel that does not compile is named with the compiler’s message and the line', async () => {
    const kernel = {
      name: 'broken',
      args: { a: 'float', y: 'floatOut' } as const,
      params: [],
      workgroup: 64,
      code: 'fn kernel(i: u32, local: u32, group: u32) {\n  set_y(i, a(i) * oops);\n}',
    }
    const spy = vi.spyOn(lowering, 'exp')
    spy.mockReturnValue({
      scratchBytes: 0,
      calls: ({ inputs: [a], outputs: [y] }) => [{ kernel, args: [a, y], params: [], groups: 1 }],
    })
    const error = await compile((g, x) => exp(g, x)).catch((e) => e)
    expect(error).toBeInstanceOf(DeviceError)
    expect(error.message).toMatch(/kernel broken does not compile: line \d+, .*oops.*: set_y\(i, a\(i\) \* oops\);$/)
    spy.mockRestore()
    const good = await compile((g, x) => exp(g, x))
    expect(((await good.run({ x: new Float32Array(8) })).y as Float32Array)[0]).toBe(1)
  })

  it('what WebGPU complains of elsewhere fails the run', async () => {
    const good = await compile((g, x) => scale(g, x, 2))
    device.queue.writeBuffer(device.createBuffer({ size: 16, usage: 1 }), 0, new Uint8Array(4))
    await expect(good.run({ x: new Float32Array(8) })).rejects.toThrow(/^webgpu: program p: .*usage/i)
    await good.run({ x: new Float32Array(8) })
  })

  it('submits hold at most 64 dispatches, and fewer where they would take too long', async () => {
    const many = await compile((g, x) => Array.from({ length: 200 }).reduce<Tensor>((y) => scale(g, y, 1.01), x))
    const input = { x: new Float32Array(8).fill(1) }
    vi.spyOn(Pace.prototype, 'isUnknown').mockReturnValue(false)
    const estimate = vi.spyOn(Pace.prototype, 'estimate').mockReturnValue(1e-4)
    const { y } = await many.run(input)
    expect(watched.submits.splice(0)).toEqual([64, 64, 64, 8])
    estimate.mockReturnValue(0.03)
    expect((await many.run(input)).y).toEqual(y)
    expect(watched.submits).toEqual([...Array(33).fill(6), 2])
    expect(Math.max(...watched.submits) * 0.03).toBeLessThanOrEqual(longestSubmit)
  })

  it('a dispatch that would take too long goes in ranges of its workgroups, to the same bits', async () => {
    const g = new Graph()
    g.output('y', linear(g, g.input('x', f32(64, 512)), g.weight('w', f32(512, 512))))
    const w = target.create(f32(512, 512), 'w')
    const numbers = (n: number) => Float32Array.from({ length: n }, (_, i) => Math.sin(i * 1.7))
    await target.write(w, numbers(512 * 512))
    const executable = await target.compile(toProgram(g, 'p'), { w })
    vi.spyOn(Pace.prototype, 'isUnknown').mockReturnValue(false)
    const estimate = vi.spyOn(Pace.prototype, 'estimate').mockReturnValue(0.01)
    const input = { x: numbers(64 * 512) }
    const { y } = await executable.run(input)
    expect(watched.submits.splice(0)).toEqual([1])
    // A second in all: pieces of a fifth at most.
    estimate.mockImplementation(() => 1)
    expect((await executable.run(input)).y).toEqual(y)
    expect(watched.submits.length).toBeGreaterThanOrEqual(5)
    expect(watched.submits.splice(0).every((n) => n === 1)).toBe(true)
    // An interrupted one leaves nothing behind.
    const controller = new AbortController()
    setTimeout(() => controller.abort(), 5)
    await executable.run(input, { signal: controller.signal }).catch(() => {})
    estimate.mockReturnValue(0.01)
    expect((await executable.run(input)).y).toEqual(y)
  })

  it('a profile sums up calls, bytes and operations of each kernel, and is not for adapters without timestamps', async () => {
    const g = new Graph()
    const x = g.input('x', f32(8, 64))
    g.output('y', exp(g, linear(g, linear(g, x, g.weight('a', f32(32, 64))), g.weight('b', f32(16, 32)))))
    const [a, b] = [target.create(f32(32, 64), 'a'), target.create(f32(16, 32), 'b')]
    const executable = await target.compile(toProgram(g, 'p'), { a, b })
    const twice = async () => {
      for (let run = 0; run < 2; run++) await executable.run({ x: new Float32Array(8 * 64).fill(1) })
    }
    const kernels = new Map((await target.profile!(twice)).map(({ kernel, ...rest }) => [kernel, rest]))
    expect([...kernels.keys()].sort()).toEqual(['exp', 'matmul inner inner 1'])
    // 8 rows: [64 -> 32 -> 16], each argument once a call
    const bytes = 2 * 4 * (8 * 64 + 32 * 64 + 8 * 32 + (8 * 32 + 16 * 32 + 8 * 16))
    const operations = 2 * 2 * 8 * (64 * 32 + 32 * 16)
    expect(kernels.get('matmul inner inner 1')).toEqual({
      calls: 4,
      bytes,
      operations,
      milliseconds: expect.any(Number),
    })
    expect(kernels.get('exp')).toMatchObject({ calls: 2, bytes: 2 * 2 * 4 * 8 * 16, operations: null })
    expect(kernels.get('matmul inner inner 1')!.milliseconds).toBeGreaterThan(0)
    vi.spyOn(device.features, 'has').mockReturnValue(false)
    await expect(target.profile!(twice)).rejects.toThrow(/has no timestamp-query/)
  })

  it('says how far compiling is', async () => {
    const told: CompileProgress[] = []
    const { target: own } = await openGpu({ onCompile: (progress) => told.push(progress) })
    const g = new Graph()
    const x = g.input('x', f32(8))
    g.output('y', add(g, exp(g, x), exp(g, scale(g, x, 2))))
    await own.compile(toProgram(g, 'p'), {})
    expect(told).toEqual([0, 1, 2, 3].map((pipelines) => ({ program: 'p', pipelines, totalPipelines: 3 })))
    await own.compile(toProgram(g, 'again'), {})
    expect(told).toHaveLength(4)
    await own.close()
  })

  it('a pace is that of the runs that were timed', () => {
    const pace = new Pace()
    // Unknown: a slow adapter's.
    expect(pace.estimate(1e8)).toBeCloseTo(0.1)
    expect(pace.isUnknown(1000)).toBe(false)
    expect(pace.isUnknown(1e6)).toBe(true)
    pace.learn(1e6, 0.004)
    expect(pace.isUnknown(1e6)).toBe(true)
    pace.learn(1e6, 0.001)
    expect(pace.isUnknown(1e6)).toBe(false)
    expect(pace.estimate(2e6)).toBeCloseTo(0.002)
    expect(pace.isUnknown(4e6)).toBe(false)
    expect(pace.isUnknown(5e6)).toBe(true)
    pace.learn(5e6, 0.002)
    expect(pace.estimate(5e6)).toBeCloseTo(0.002)
  })

  it('scratch in several buffers: training comes out to the same bits', async () => {
    const train = async (bufferBytes?: number) => {
      const { target: own, device: its } = await openGpu({ bufferBytes })
      const { live } = watch(its)
      const lm = await randomModel(own)
      const trainer = new SFTTrainer({
        model: lm,
        trainDataset: rows.slice(0, 6),
        peft: { r: 4 },
        args: { outputDir: null, maxSteps: 2, learningRate: 2e-3, perDeviceTrainBatchSize: 3 },
      })
      const losses: number[] = []
      let total = 0
      const onProgress = (at: TrainProgress) => {
        if (at.phase === 'ready') total = at.forecast.total
      }
      for await (const log of trainer.train({ onProgress })) if ('loss' in log) losses.push(log.loss, log.gradNorm)
      await lm.close()
      return { losses, total, peak: live.peak }
    }
    const whole = await train()
    // The vocabulary's table has 66 kB.
    const pieces = await train(96 * 1024)
    expect(pieces.losses).toEqual(whole.losses)
    for (const { peak, total } of [whole, pieces]) {
      expect(peak).toBeLessThanOrEqual(total)
      expect(peak).toBeGreaterThan(0.95 * total)
    }
  })
})
