import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { DeviceError, MemoryError, ShapeError } from '../../sdk/errors.ts'
import { Graph } from '../../sdk/graph/graph.ts'
import { toProgram } from '../../sdk/graph/program.ts'
import { add, linear, scale } from '../../sdk/ops/index.ts'
import { selfTest } from '../../sdk/self-test.ts'
import type { Target } from '../../sdk/target.ts'
import { useSwiftShader } from '../swiftshader.ts'
import { openGpu, watch } from './gpu.ts'

const skip = useSwiftShader()

describe.skipIf(skip)(`webgpu${skip ? ` (${skip})` : ''}`, () => {
  let target: Target
  beforeAll(async () => {
    target = (await openGpu()).target
  })
  afterAll(() => target?.close())

  const f32 = (...shape: number[]) => ({ dtype: 'f32' as const, shape })

  it('passes its self-test, and a target that computes wrongly does not', async () => {
    expect(await selfTest(target)).toEqual([])
    const liar: Target = {
      ...target,
      name: target.name,
      info: target.info,
      supports: (...args) => target.supports(...args),
      create: (...args) => target.create(...args),
      write: (...args) => target.write(...args),
      read: (...args) => target.read(...args),
      free: (...args) => target.free(...args),
      close: async () => {},
      async compile(program, bound) {
        const own = await target.compile(program, bound)
        return {
          ...own,
          async run(inputs, options) {
            const outputs = await own.run(inputs, options)
            if (program.name.startsWith('rmsnorm/')) (outputs.output0 as Float32Array)[0] += 0.01
            return outputs
          },
        }
      },
    }
    const wrong = await selfTest(liar)
    expect(wrong).toHaveLength(1)
    expect(wrong[0]).toMatch(/^rmsnorm: output0: relative error/)
  })

  it('a tensor of more than a binding holds lies in parts: written, read and used as one', async () => {
    // 128 MiB is what every adapter binds.
    const [rows, columns] = [8300, 4096]
    const table = target.create(f32(rows, columns), 'table')
    const row = (r: number) => Float32Array.from({ length: columns }, (_, c) => ((r * 31 + c) % 97) / 97)
    const interesting = [0, 8191, 8192, 8193, rows - 1]
    for (const r of interesting) await target.write(table, row(r), r * columns * 4)
    const across = new Float32Array(await target.read(table, 8191 * columns * 4, 2 * columns * 4))
    expect([...across]).toEqual([...row(8191), ...row(8192)])
    const g = new Graph()
    g.output('y', linear(g, g.input('x', f32(1, columns)), g.weight('table', f32(rows, columns))))
    const executable = await target.compile(toProgram(g, 'parts'), { table })
    const x = row(5)
    const { y } = (await executable.run({ x })) as { y: Float32Array }
    for (const r of interesting)
      expect(y[r]).toBeCloseTo(
        row(r).reduce((sum, v, c) => sum + v * x[c], 0),
        2,
      )
    expect(y[1234]).toBe(0)
    executable.free()
    target.free(table)
  })

  it('refuses what it cannot do by name', async () => {
    const { target: other } = await openGpu()
    const theirs = other.create(f32(4), 'theirs')
    expect(() => other.write(theirs, new Float32Array(5))).toThrow(ShapeError)
    expect(() => target.write(theirs, new Float32Array(4))).toThrow(DeviceError)
    await other.close()
    expect(() => other.create(f32(4), 'late')).toThrow(DeviceError)
    expect(() => target.create(f32(1, 2 ** 26), 'a row')).toThrow(MemoryError)
    const g = new Graph()
    g.output('y', scale(g, g.input('x', f32(2 ** 26)), 2))
    await expect(target.compile(toProgram(g, 'large'), {})).rejects.toThrow(
      /x f32.* takes 268 MB, this adapter binds 134 MB/,
    )
  })

  it('runs of several programs come out in the order of the calls, whatever their scratch', async () => {
    const program = async (n: number) => {
      const g = new Graph()
      const x = g.input('x', f32(n))
      g.output('y', add(g, x, scale(g, x, 2)))
      return target.compile(toProgram(g, `n ${n}`), {})
    }
    const [small, large] = [await program(8), await program(200_000)]
    const runs = [1, 2, 3, 4].map((v) =>
      (v % 2 ? small : large).run({ x: new Float32Array(v % 2 ? 8 : 200_000).fill(v) }),
    )
    for (const [i, { y }] of (await Promise.all(runs)).entries()) expect((y as Float32Array)[7]).toBe(3 * (i + 1))
    large.free()
    const { y } = await small.run({ x: new Float32Array(8).fill(5) })
    expect((y as Float32Array)[0]).toBe(15)
    await expect(large.run({ x: new Float32Array(200_000) })).rejects.toThrow(DeviceError)
  })
  it('a write is seen by the runs that are asked for after it, not by those before', async () => {
    const g = new Graph()
    g.output('y', linear(g, g.input('x', f32(64, 256)), g.weight('w', f32(128, 256))))
    const w = target.create(f32(128, 256), 'w')
    const executable = await target.compile(toProgram(g, 'p'), { w })
    const x = new Float32Array(64 * 256).fill(1)
    const given = new Float32Array(128 * 256)
    const runs = [1, 2, 3, 4].map((v) => {
      void target.write(w, given.fill(v))
      return executable.run({ x })
    })
    given.fill(9)
    for (const [i, { y }] of (await Promise.all(runs)).entries())
      expect([Math.min(...y), Math.max(...y)]).toEqual([256 * (i + 1), 256 * (i + 1)])
    executable.free()
    target.free(w)
  })
  it('programs that are freed at the same time, with another one running next, leave nothing behind', async () => {
    const { target: own, device } = await openGpu()
    const { live } = watch(device)
    const program = async (n: number) => {
      const g = new Graph()
      const x = g.input('x', f32(n))
      g.output('y', add(g, x, scale(g, x, 2)))
      return own.compile(toProgram(g, `n ${n}`), {})
    }
    const [small, ...others] = [await program(8), await program(1000), await program(50_000)]
    for (const other of others) other.free()
    expect((await small.run({ x: new Float32Array(8).fill(1) })).y[7]).toBe(3)
    // What is read back goes through a buffer that stays.
    const staging = 4 * 2 ** 20
    expect(live.bytes - staging).toBeLessThan(4096)
    small.free()
    await new Promise((resolve) => setTimeout(resolve, 20))
    expect(live.bytes).toBe(staging)
    await own.close()
  })
})
