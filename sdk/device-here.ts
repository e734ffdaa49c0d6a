import { DeviceError } from './errors.ts'
import { isNode } from './runtime.ts'
import type { Speed } from './speed.ts'
import type { CompileProgress, Target, WasmBuild } from './target.ts'

// Devices of this thread: of Node, or of the Worker that computes for a page.

/** `auto` takes webgpu on a GPU that passes its self-test, else wasm. `cpu` is onnxruntime, where it is installed: asked for by name. `reference` is the float64 definition of every operation: slow, for tests. */
export const deviceNames = ['auto', 'webgpu', 'cpu', 'wasm', 'reference'] as const
export type DeviceName = (typeof deviceNames)[number]

/** What computes. */
export interface DeviceOptions {
  /** Default: the HALFLING_DEVICE environment variable, then 'auto'. */
  readonly device?: DeviceName
  /** Compute threads; default: the HALFLING_THREADS environment variable, then as many as the machine has, at most 8. */
  readonly threads?: number
  /** Kernels of wasm; default: relaxed (relaxed SIMD, faster) where the engine computes it rightly. Last bits may differ. */
  readonly build?: WasmBuild
  /** Told while kernels are compiled for the GPU, whenever a shape is new. */
  readonly onCompile?: (progress: CompileProgress) => void
}

/** A target that was looked at. */
export interface DeviceReport {
  readonly name: string
  readonly available: boolean
  /** What it is, or why it cannot be had. */
  readonly reason: string
  readonly threads?: number
  /** Bytes that weights, state and scratch may take together. */
  readonly memoryLimit?: number
  /** With `measure`. */
  readonly speed?: Speed
}

/** What `findDevices` takes: what to open them with. */
export interface FindOptions extends Pick<DeviceOptions, 'threads' | 'build'> {
  /** Their speed too, for about a second each (not that of `reference`). */
  readonly measure?: boolean
}

/** Opens the best target of this thread, or the one asked for. Throws DeviceError. */
export async function openHere({ device = 'auto', threads, build, onCompile }: DeviceOptions): Promise<Target> {
  if (device === 'reference') return (await import('../targets/reference/index.ts')).referenceTarget()
  if (device === 'cpu') return openCpu(threads)
  if (device === 'webgpu') return (await import('../targets/webgpu/node.ts')).openWebGpu({ onCompile })
  if (device === 'auto') {
    const gpu = await findGpu({ onCompile }).catch(() => null)
    if (gpu?.why === null) return gpu.target
    await gpu?.target.close()
  }
  try {
    return await (await import('../targets/wasm/index.ts')).wasmTarget({ threads, build })
  } catch (cause) {
    throw new DeviceError(`wasm: ${(cause as Error).message}`, { cause })
  }
}

/** Every target of this thread with its state, in the order of preference. Throws nothing. */
export async function findHere({ measure = false, ...options }: FindOptions): Promise<DeviceReport[]> {
  return [
    { name: 'cuda', available: false, reason: isNode ? 'not built yet' : 'not in browsers' },
    await report('webgpu', measure, {}),
    await report('cpu', measure, options),
    await report('wasm', measure, options),
    { name: 'reference', available: true, reason: 'float64, slow: for tests' },
  ]
}

/** The machine's own vectors, by onnxruntime. Throws DeviceError in a page. */
async function openCpu(threads: number | undefined): Promise<Target> {
  if (!isNode) throw new DeviceError('cpu: not in browsers')
  return (await import('../targets/onnx/index.ts')).onnxTarget({ threads })
}

/** What is wrong with adapters that were tested. */
const tested = new Map<string, readonly string[]>()

/** WebGPU, and why `auto` does not take it: it takes hardware that computes every op rightly. Throws DeviceError when there is none. */
async function findGpu(
  options: Pick<DeviceOptions, 'onCompile'> = {},
): Promise<{ target: Target; why: string | null }> {
  const { isSoftware, openWebGpu, whyNoGpu } = await import('../targets/webgpu/node.ts')
  const why = await whyNoGpu()
  if (why !== null) throw new DeviceError(`webgpu: ${why}`)
  const target = await openWebGpu(options)
  const { description } = target.info
  if (isSoftware(description))
    return {
      target,
      why: `webgpu: ${description} computes in software, wasm is faster: ask for the device webgpu to have it anyway`,
    }
  const wrong = tested.get(description) ?? (await (await import('./self-test.ts')).selfTest(target))
  tested.set(description, wrong)
  if (wrong.length === 0) return { target, why: null }
  return { target, why: `webgpu: ${description} computes ${wrong.length} operations wrongly (${wrong[0]})` }
}

async function report(
  device: 'webgpu' | 'cpu' | 'wasm',
  measure: boolean,
  options: DeviceOptions,
): Promise<DeviceReport> {
  try {
    const { target, why } =
      device === 'webgpu' ? await findGpu() : { target: await openHere({ ...options, device }), why: null }
    try {
      const { description, threads, features, memoryLimit } = target.info
      const parts = [description, ...(threads > 0 ? [`${threads} threads`] : []), ...features]
      const speed = measure ? await (await import('./speed.ts')).measureSpeed(target) : undefined
      const own = { name: device, available: why === null, reason: why ?? parts.join(', '), memoryLimit }
      return { ...own, ...(threads > 0 && { threads }), ...(speed && { speed }) }
    } finally {
      await target.close()
    }
  } catch (error) {
    return { name: device, available: false, reason: (error as Error).message }
  }
}
