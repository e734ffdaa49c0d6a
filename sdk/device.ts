import { DeviceError, OptionError } from './errors.ts'
import type { Speed } from './speed.ts'
import type { Target } from './target.ts'

/** `reference` is the float64 definition of every operation: slow, for tests. */
export type DeviceName = 'auto' | 'wasm' | 'reference'

/** What computes. */
export interface DeviceOptions {
  /** Default: the HALFLING_DEVICE environment variable, then 'auto'. */
  readonly device?: DeviceName
  /** Compute threads; default: as many as the machine has, at most 8. */
  readonly threads?: number
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

const names: readonly DeviceName[] = ['auto', 'wasm', 'reference']

/** Opens the best target, or the one asked for. Throws DeviceError, OptionError. */
export async function openTarget(options: DeviceOptions = {}): Promise<Target> {
  const fromEnvironment = typeof process === 'undefined' ? undefined : process.env.HALFLING_DEVICE
  const device = options.device ?? ((fromEnvironment || 'auto') as DeviceName)
  if (!names.includes(device)) throw new OptionError(`device: "${device}" is not one of ${names.join(', ')}`)
  if (device === 'reference') return (await import('../targets/reference/index.ts')).referenceTarget()
  try {
    return await (await import('../targets/wasm/index.ts')).wasmTarget({ threads: options.threads })
  } catch (cause) {
    throw new DeviceError(`wasm: ${(cause as Error).message}`, { cause })
  }
}

/**
 * Every target with its state, in the order of preference: what `halfling devices` prints. Throws nothing.
 *
 * @param options `threads` to open them with; `measure` their speed, for about a second each (not that of `reference`)
 */
export async function findDevices({
  threads,
  measure = false,
}: Pick<DeviceOptions, 'threads'> & { readonly measure?: boolean } = {}): Promise<DeviceReport[]> {
  const reports: DeviceReport[] = [
    { name: 'cuda', available: false, reason: 'not built yet' },
    { name: 'webgpu', available: false, reason: 'not built yet' },
  ]
  try {
    const target = await openTarget({ device: 'wasm', threads })
    try {
      const { description, threads, features, memoryLimit } = target.info
      const reason = `${description}, ${threads} threads, ${features.join(', ')}`
      const speed = measure ? await (await import('./speed.ts')).measureSpeed(target) : undefined
      reports.push({ name: 'wasm', available: true, reason, threads, memoryLimit, ...(speed && { speed }) })
    } finally {
      await target.close()
    }
  } catch (error) {
    reports.push({ name: 'wasm', available: false, reason: (error as Error).message })
  }
  reports.push({ name: 'reference', available: true, reason: 'float64, slow: for tests' })
  return reports
}
