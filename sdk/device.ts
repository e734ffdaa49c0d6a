import {
  type DeviceName,
  type DeviceOptions,
  type DeviceReport,
  deviceNames,
  type FindOptions,
  findHere,
  openHere,
} from './device-here.ts'
import { checkWord } from './options.ts'
import { isNode } from './runtime.ts'
import { type Target, type WasmBuild, type Workload, wasmBuilds, workloads } from './target.ts'

export {
  type DeviceName,
  type DeviceOptions,
  type DeviceReport,
  deviceNames,
  type FindOptions,
  type WasmBuild,
  type Workload,
  wasmBuilds,
}

/** In a page what computes has a Worker of its own: whatever it does, the page goes on. (The name: thread.ts.) */
const startWorker = (): Worker =>
  new Worker(new URL('./device-worker.js', import.meta.url), { type: 'module', name: 'halfling' })

/** Opens the best target, or the one asked for. Throws DeviceError, OptionError. */
export async function openTarget(options: DeviceOptions = {}): Promise<Target> {
  const fromEnvironment = typeof process === 'undefined' ? undefined : process.env.HALFLING_DEVICE
  const { workload, threads, build, onCompile } = options
  const device = options.device ?? ((fromEnvironment || 'auto') as DeviceName)
  checkWord(device, deviceNames, 'device')
  checkWord(build, wasmBuilds, 'build')
  checkWord(workload, workloads, 'workload')
  if (isNode) return openHere({ device, workload, threads, build, onCompile })
  return (await import('../targets/remote/index.ts')).remoteTarget(startWorker(), { device, threads, build, onCompile })
}

/** Every target with its state, in the order of preference: what `halfling devices` prints. Throws DeviceError in a page without Workers. */
export async function findDevices(options: FindOptions = {}): Promise<DeviceReport[]> {
  if (isNode) return findHere(options)
  return (await import('../targets/remote/index.ts')).askWorker(startWorker(), 'find', options)
}
