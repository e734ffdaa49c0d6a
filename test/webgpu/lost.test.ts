import { describe, expect, it } from 'vitest'
import { DeviceError, DeviceLostError } from '../../sdk/errors.ts'
import { Graph } from '../../sdk/graph/graph.ts'
import { toProgram } from '../../sdk/graph/program.ts'
import { linear } from '../../sdk/ops/index.ts'
import { useSwiftShader } from '../swiftshader.ts'
import { lostCases } from '../train/lost-cases.ts'
import { openGpu } from './gpu.ts'

const skip = useSwiftShader()

describe.skipIf(skip)(`webgpu whose device is destroyed${skip ? ` (${skip})` : ''}`, () => {
  const f32 = (...shape: number[]) => ({ dtype: 'f32' as const, shape })
  const program = () => {
    const g = new Graph()
    g.output('y', linear(g, g.input('x', f32(256, 512)), g.weight('w', f32(512, 512))))
    return toProgram(g, 'p')
  }
  const open = async () => {
    const { target, device } = await openGpu()
    const w = target.create(f32(512, 512), 'w')
    await target.write(w, new Float32Array(512 * 512).fill(0.5))
    const executable = await target.compile(program(), { w })
    const x = new Float32Array(256 * 512).fill(1)
    /** All that may be waited for; a write may throw as well. */
    const all = () => [
      executable.run({ x }),
      executable.run({ x: new Float32Array(3 * 256 * 512) }, { steps: 3 }),
      target.read(w),
      (async () => target.write(w, Float32Array.of(1)))(),
      target.compile(program(), { w }),
    ]
    return { target, device, w, all }
  }
  const areLost = async (all: readonly Promise<unknown>[]) => {
    for (const promise of await Promise.allSettled(all)) {
      expect(promise.status).toBe('rejected')
      const { reason } = promise as PromiseRejectedResult
      expect(reason).toBeInstanceOf(DeviceLostError)
      expect(reason.code).toBe('device-lost')
      expect(reason.message).toMatch(/^webgpu: the device was lost \(.+\): open the target again$/)
    }
  }

  it('says so at every await, again and again; nothing hangs, and making buffers does not fail', async () => {
    const { target, device, w, all } = await open()
    device.destroy()
    await areLost(all())
    await areLost(all())
    const late = target.create(f32(1000), 'late')
    await areLost([target.read(late), (async () => target.write(late, new Float32Array(1000)))()])
    target.free(late)
    target.free(w)
    await target.close()
  })

  it('in the midst of runs, reads and compilations', async () => {
    for (const milliseconds of [0, 2, 10]) {
      const { target, device, all } = await open()
      const under = all()
      setTimeout(() => device.destroy(), milliseconds)
      const results = await Promise.allSettled(under)
      for (const result of results)
        if (result.status === 'rejected') expect(result.reason).toBeInstanceOf(DeviceLostError)
      expect(results.some(({ status }) => status === 'rejected')).toBe(true)
      await areLost(all())
      await target.close()
    }
  })

  it('a target that was closed is no lost one', async () => {
    const { target, all } = await open()
    await target.close()
    for (const promise of await Promise.allSettled(all())) {
      const { reason } = promise as PromiseRejectedResult
      expect(reason).toBeInstanceOf(DeviceError)
      expect(reason).not.toBeInstanceOf(DeviceLostError)
    }
  })
})

describe.skipIf(skip)(`a GPU that is lost${skip ? ` (${skip})` : ''}`, () =>
  lostCases(async () => {
    const { target, device } = await openGpu()
    return { target, lose: () => device.destroy() }
  }),
)
