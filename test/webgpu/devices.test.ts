import { describe, expect, it, vi } from 'vitest'
import { findDevices, openTarget } from '../../sdk/device.ts'
import { useSwiftShader } from '../swiftshader.ts'

// A machine with a driver, where `auto` looks for an adapter.
vi.mock('../../targets/webgpu/node.ts', async (original) => ({
  ...(await original<typeof import('../../targets/webgpu/node.ts')>()),
  whyNoGpu: async () => null,
}))

const skip = useSwiftShader()

describe.skipIf(skip)(`an adapter in software${skip ? ` (${skip})` : ''}`, () => {
  it('is not taken by auto, but measured', async () => {
    const target = await openTarget({ threads: 1 })
    expect(target.name).toBe('wasm')
    await target.close()
    const [, webgpu] = await findDevices({ threads: 1, measure: true })
    expect(webgpu).toMatchObject({
      name: 'webgpu',
      available: false,
      reason: expect.stringMatching(/^webgpu: .* computes in software, wasm is faster/),
      memoryLimit: expect.any(Number),
    })
    for (const rate of [webgpu.speed!.gflops, ...Object.values(webgpu.speed!.gigabytes)])
      expect(rate).toBeGreaterThan(0)
  })
})
