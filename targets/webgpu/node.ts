import { DeviceError } from '../../sdk/errors.ts'
import type { CompileProgress, Target } from '../../sdk/target.ts'
import { webGpuTarget } from './index.ts'

/** Dawn's instance: once collected, the next use of a device crashes the process. */
let instance: GPU | undefined

/** The webgpu of the browser, or Dawn (npm `webgpu`) in Node. Throws DeviceError. */
export async function findGpu(): Promise<GPU> {
  const own = (globalThis as { navigator?: { gpu?: GPU } }).navigator?.gpu
  if (own) return own
  if (instance) return instance
  try {
    // Not in the import itself, or bundlers would take it along; they see through a constant.
    const name = ['web', 'gpu'].join('')
    const { create } = (await import(name)) as { create(options: readonly string[]): GPU }
    instance = create([])
    return instance
  } catch (cause) {
    throw new DeviceError(
      `webgpu: Node needs the package "webgpu" for it: npm install webgpu (${(cause as Error).message})`,
      { cause },
    )
  }
}

/** Why a look for an adapter would be in vain; null where it may find one. Loading Dawn takes a while, and it complains. */
export async function whyNoGpu(): Promise<string | null> {
  if (typeof process === 'undefined' || process.platform !== 'linux') return null
  const { access } = await import('node:fs/promises')
  const nodes = ['/dev/dri', '/dev/nvidiactl', '/dev/dxg']
  const found = await Promise.all(
    nodes.map((path) =>
      access(path).then(
        () => true,
        () => false,
      ),
    ),
  )
  return found.includes(true) ? null : `no GPU (none of ${nodes.join(', ')})`
}

/** Vulkan on the CPU, by the names of its drivers. */
export const isSoftware = (description: string): boolean => /swiftshader|llvmpipe|lavapipe|software/i.test(description)

/** The adapter's name, as good as it is told. */
export const describeAdapter = ({ info: { vendor, architecture, description } }: GPUAdapter): string =>
  description || `${vendor} ${architecture}`.trim() || 'unnamed adapter'

/** Opens the best adapter with all that it has. Throws DeviceError. */
export async function openWebGpu(options: { onCompile?: (progress: CompileProgress) => void } = {}): Promise<Target> {
  const gpu = await findGpu()
  const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance' })
  if (!adapter) throw new DeviceError('webgpu: no adapter (no GPU, or no Vulkan driver)')
  const { maxBufferSize, maxStorageBufferBindingSize, maxStorageBuffersPerShaderStage } = adapter.limits
  const device = await adapter.requestDevice({
    requiredLimits: { maxBufferSize, maxStorageBufferBindingSize, maxStorageBuffersPerShaderStage },
    requiredFeatures: adapter.features.has('timestamp-query') ? ['timestamp-query'] : [],
  })
  const { onCompile } = options
  return webGpuTarget(device, { description: describeAdapter(adapter), memoryLimit: await hostMemory(), onCompile })
}

/**
 * Bytes. WebGPU does not tell how much memory a GPU has: the host's is the bound that is known, and a GPU that has less says so when it
 * is full (MemoryError). Pages are told at most 8 GiB, or nothing: then it is what a wasm memory has.
 */
async function hostMemory(): Promise<number> {
  const { deviceMemory } = (globalThis as { navigator?: { deviceMemory?: number } }).navigator ?? {}
  if (deviceMemory !== undefined) return deviceMemory * 2 ** 30
  if (typeof process === 'undefined') return 4 * 2 ** 30
  return (await import('node:os')).totalmem()
}
