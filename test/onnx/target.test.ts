import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { byteLength, floatDTypes } from '../../sdk/dtype.ts'
import { DeviceError } from '../../sdk/errors.ts'
import { Graph } from '../../sdk/graph/graph.ts'
import { toProgram } from '../../sdk/graph/program.ts'
import { add, attention, embed, linear, mul, ops, sum } from '../../sdk/ops/index.ts'
import { fromFloats, toFloats } from '../../sdk/quant/convert.ts'
import { caseProgram } from '../../sdk/self-test.ts'
import type { Target } from '../../sdk/target.ts'
import { onnxTarget } from '../../targets/onnx/index.ts'
import { alive } from '../../targets/onnx/ort/api.ts'
import { normals, relativeError } from '../suite.ts'

const draw = normals('onnx')
const randoms = (n: number): Float32Array => Float32Array.from({ length: n }, draw)

async function withTarget<T>(body: (target: Target) => Promise<T>): Promise<T> {
  const target = await onnxTarget({ threads: 1 })
  try {
    return await body(target)
  } finally {
    await target.close()
  }
}

/** y = x·wᵀ often enough to take a while. */
function products(times: number): Graph {
  const g = new Graph()
  let x = g.input('x', { dtype: 'f32', shape: [256, 256] })
  const w = g.weight('w', { dtype: 'f32', shape: [256, 256] })
  for (let n = 0; n < times; n++) x = linear(g, x, w)
  g.output('y', sum(g, x))
  return g
}

describe('the target cpu', () => {
  afterEach(() => {
    vi.unstubAllEnvs()
  })

  it.each(floatDTypes)('keeps %s to the byte', (dtype) =>
    withTarget(async (target) => {
      const type = { dtype, shape: [3, 64] }
      const bytes = fromFloats(randoms(192), dtype)
      const buffer = target.create(type, 'w')
      await target.write(buffer, bytes)
      expect(new Uint8Array(await target.read(buffer))).toEqual(bytes)
      const row = byteLength({ dtype, shape: [64] })
      await target.write(buffer, bytes.subarray(row, 2 * row), 0)
      expect(new Uint8Array(await target.read(buffer, 0, row))).toEqual(bytes.subarray(row, 2 * row))
    }),
  )

  const residentBytes = () => 1024 * Number(/RssAnon:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))![1])
  it.skipIf(process.platform !== 'linux')('keeps no scores for the log-sum-exps that are read at the end', () =>
    withTarget(async (target) => {
      const [rows, heads, layers] = [1024, 4, 12]
      const g = new Graph()
      const starts = g.input('starts', { dtype: 'i32', shape: [rows] })
      let x = g.input('x', { dtype: 'f32', shape: [rows, heads * 16] })
      const ends = Array.from({ length: layers }, () => {
        const [out, lse] = attention(g, x, x, x, starts, { heads, kvHeads: heads, scale: 0.25, window: 0 })
        x = out
        return sum(g, lse)
      })
      g.output(
        'y',
        [sum(g, x), ...ends].reduce((a, b) => add(g, a, b)),
      )
      const executable = await target.compile(toProgram(g, 'p'), {})
      let [before, most] = [residentBytes(), 0]
      const watching = setInterval(() => {
        most = Math.max(most, residentBytes() - before)
      }, 1)
      before = residentBytes()
      await executable.run({ x: randoms(rows * heads * 16), starts: new Int32Array(rows) })
      clearInterval(watching)
      const scores = 4 * heads * rows * rows
      expect(most).toBeGreaterThan(0)
      // A layer's scores and their exponentials, 5/8 of them in causal blocks; all layers' would be 12 times as much.
      expect(most).toBeLessThan(4 * scores)
    }),
  )

  it('forecasts what its sessions take beside bound memory', () =>
    withTarget(async (target) => {
      const g = new Graph()
      const x = g.input('x', { dtype: 'f32', shape: [64, 256] })
      const w = g.weight('w', { dtype: 'q4', shape: [256, 256] })
      const y = linear(g, linear(g, x, w), w)
      g.output('y', add(g, y, y))
      // Two results of products at a time, the last one an output; the packed codes once; three nodes.
      const [rows, codes] = [4 * 64 * 256, (256 * 256) / 2]
      expect(await target.scratchBytes([toProgram(g, 'p')])).toBe(2 * rows + codes + 3 * 10_000)
    }))

  it.each(Object.values(ops).filter(({ name }) => name !== 'kvCopy'))(
    'knows the shapes of all values of $name',
    (spec) =>
      withTarget(async (target) => {
        for (const c of spec.cases) {
          const bytes = await target.scratchBytes([caseProgram(spec, c)])
          expect(bytes, c.name).toBeGreaterThan(0)
          expect(Number.isSafeInteger(bytes), c.name).toBe(true)
        }
      }),
  )

  it('computes with what was written last, packed weights too', () =>
    withTarget(async (target) => {
      const g = new Graph()
      const w = g.weight('w', { dtype: 'q4', shape: [8, 64] })
      g.output('y', linear(g, g.input('x', { dtype: 'f32', shape: [1, 64] }), w))
      const buffer = target.create(w, 'w')
      const executable = await target.compile(toProgram(g, 'again'), { w: buffer })
      const x = randoms(64)
      for (const _ of [1, 2]) {
        const bytes = fromFloats(randoms(8 * 64), 'q4')
        await target.write(buffer, bytes)
        const floats = toFloats(bytes, 'q4')
        const want = Array.from({ length: 8 }, (_, o) => x.reduce((y, v, i) => y + v * floats[o * 64 + i], 0))
        expect(relativeError((await executable.run({ x })).y, want)).toBeLessThan(1e-5)
      }
    }))

  it('leaves the event loop alone while it computes, and leaves a run that is aborted', () =>
    withTarget(async (target) => {
      const executable = await target.compile(toProgram(products(600), 'long'), {
        w: target.create({ dtype: 'f32', shape: [256, 256] }, 'w'),
      })
      const x = randoms(256 * 256)
      let ticks = 0
      const timer = setInterval(() => ticks++, 1)
      const start = performance.now()
      await executable.run({ x })
      const took = performance.now() - start
      clearInterval(timer)
      expect(ticks).toBeGreaterThan(took / 20)
      const controller = new AbortController()
      const running = executable.run({ x }, { signal: controller.signal })
      setTimeout(() => controller.abort(new Error('enough')), 1)
      await expect(running).rejects.toThrow('enough')
      expect((await executable.run({ x })).y[0]).toBe(0)
    }))

  it('leaves nothing of onnxruntime alive once it is closed, failed programs included', async () => {
    await withTarget(async (target) => {
      const g = new Graph()
      const x = g.input('x', { dtype: 'f32', shape: [4] })
      g.output('y', mul(g, x, x))
      const executable = await target.compile(toProgram(g, 'square'), {})
      expect([...(await executable.run({ x: Float32Array.of(1, 2, 3, 4) })).y]).toEqual([1, 4, 9, 16])
      executable.free()
      const failing = new Graph()
      const ids = failing.input('ids', { dtype: 'i32', shape: [1] })
      failing.output('y', embed(failing, ids, failing.weight('w', { dtype: 'f32', shape: [2, 4] })))
      const w = target.create({ dtype: 'f32', shape: [2, 4] }, 'w')
      const fails = await target.compile(toProgram(failing, 'failing'), { w })
      await expect(fails.run({ ids: Int32Array.of(7) })).rejects.toThrow(/^program failing: .*Gather/)
    })
    expect([...alive].filter(([, count]) => count !== 0)).toEqual([])
  })

  it('says what is wrong with a library', async () => {
    vi.stubEnv('HALFLING_ONNXRUNTIME', '/nowhere/libonnxruntime.so')
    await expect(onnxTarget()).rejects.toThrow(
      'HALFLING_ONNXRUNTIME is /nowhere/libonnxruntime.so, which does not exist',
    )
    const folder = mkdtempSync(join(tmpdir(), 'halfling-ort-'))
    vi.stubEnv('HALFLING_ONNXRUNTIME', folder)
    await expect(onnxTarget()).rejects.toThrow(/has no onnxruntime library for/)
    writeFileSync(join(folder, 'libonnxruntime.so.1'), 'not a library')
    await expect(onnxTarget()).rejects.toThrow(DeviceError)
    await expect(onnxTarget()).rejects.toThrow(/libonnxruntime\.so\.1 is no onnxruntime library/)
  })
})
