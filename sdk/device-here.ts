import { DeviceError } from './errors.ts'
import { isNode } from './runtime.ts'
import type { Speed } from './speed.ts'
import { type CompileProgress, type Target, type WasmBuild, type Workload, workloads } from './target.ts'

// Devices of this thread: of Node, or of the Worker that computes for a page.

/** `auto` takes webgpu on a GPU that passes its self-test, else whichever of cpu and wasm is faster at the workload. `cpu` is onnxruntime, where it is installed (`halfling setup cpu`). `reference` is the float64 definition of every operation: slow, for tests. */
export const deviceNames = ['auto', 'webgpu', 'cpu', 'wasm', 'reference'] as const
export type DeviceName = (typeof deviceNames)[number]

/** What computes. */
export interface DeviceOptions {
  /** Default: the HALFLING_DEVICE environment variable, then 'auto'. */
  readonly device?: DeviceName
  /** What `auto` is to be fast at; default: decoding. Speeds are measured once, and remembered. */
  readonly workload?: Workload
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
  /** What `auto` takes it for, with `measure`. */
  readonly autoFor?: readonly Workload[]
}

/** What `findDevices` takes: what to open them with. */
export interface FindOptions extends Pick<DeviceOptions, 'threads' | 'build'> {
  /** Their speed too, for some seconds each (not that of `reference`). */
  readonly measure?: boolean
}

/** Opens the best target of this thread, or the one asked for. Throws DeviceError. */
export async function openHere({
  device = 'auto',
  workload,
  threads,
  build,
  onCompile,
}: DeviceOptions): Promise<Target> {
  if (device === 'reference') return (await import('../targets/reference/index.ts')).referenceTarget()
  if (device === 'cpu') return openCpu(threads)
  if (device === 'webgpu') return (await import('../targets/webgpu/node.ts')).openWebGpu({ onCompile })
  if (device === 'auto') {
    const gpu = await findGpu({ onCompile }).catch(() => null)
    if (gpu?.why === null) return gpu.target
    await gpu?.target.close()
    const cpu = await openCpu(threads).catch(() => null)
    if (cpu) return fasterOf(cpu, await openWasm({ threads, build }).catch(() => null), workload)
  }
  return openWasm({ threads, build })
}

/** The other one is closed. */
async function fasterOf(cpu: Target, wasm: Target | null, workload: Workload = 'decoding'): Promise<Target> {
  if (!wasm) return cpu
  const { speedAt } = await import('./calibration.ts')
  const isFaster = (await speedAt(cpu, workload)) > (await speedAt(wasm, workload))
  const [taken, other] = isFaster ? [cpu, wasm] : [wasm, cpu]
  await other.close()
  return taken
}

async function openWasm(options: Pick<DeviceOptions, 'threads' | 'build'>): Promise<Target> {
  try {
    return await (await import('../targets/wasm/index.ts')).wasmTarget(options)
  } catch (cause) {
    throw new DeviceError(`wasm: ${(cause as Error).message}`, { cause })
  }
}

/** Every target of this thread with its state, in the order of preference. Throws nothing. */
export async function findHere({ measure = false, ...options }: FindOptions): Promise<DeviceReport[]> {
  const [webgpu, cpu, wasm] = [
    await report('webgpu', measure, {}),
    await report('cpu', measure, options),
    await report('wasm', measure, options),
  ]
  const best = (workload: Workload) =>
    webgpu.available ? webgpu : rateOf(cpu, workload) > rateOf(wasm, workload) || !wasm.available ? cpu : wasm
  const chosen = [webgpu, cpu, wasm].map((device) =>
    measure
      ? { ...device, autoFor: workloads.filter((workload) => device.available && best(workload) === device) }
      : device,
  )
  return [
    { name: 'cuda', available: false, reason: isNode ? 'not built yet' : 'not in browsers' },
    ...chosen,
    { name: 'reference', available: true, reason: 'float64, slow: for tests' },
  ]
}

const rateOf = ({ speed }: DeviceReport, workload: Workload): number => speed?.tokensOfHalfBillion[workload] ?? 0

/** The machine's own vectors, by onnxruntime. Throws DeviceError in a page. */
async function openCpu(threads: number | undefined): Promise<Target> {
  if (!isNode) throw new DeviceError('cpu: not in browsers')
  const { onnxTarget, untested } = await import('../targets/onnx/index.ts')
  const target = await onnxTarget({ threads })
  if (!target.info.features.includes(untested)) return target
  const why = await whyWrong(target)
  if (why === null) return target
  await target.close()
  throw new DeviceError(why)
}

/** What is wrong with devices that were tested. */
const tested = new Map<string, readonly string[]>()

/** null: it computes every op rightly. */
async function whyWrong(target: Target): Promise<string | null> {
  const { description } = target.info
  const wrong = tested.get(description) ?? (await (await import('./self-test.ts')).selfTest(target))
  tested.set(description, wrong)
  if (wrong.length === 0) return null
  return `${target.name}: ${description} computes ${wrong.length} operations wrongly (${wrong[0]})`
}

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
  return { target, why: await whyWrong(target) }
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
