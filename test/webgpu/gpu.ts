import type { CompileProgress, Target } from '../../sdk/target.ts'
import { webGpuTarget } from '../../targets/webgpu/index.ts'
import { describeAdapter, findGpu } from '../../targets/webgpu/node.ts'

/**
 * A target within the limits that every adapter has, and its device: `device.destroy()` loses it. With `bufferBytes` the device says
 * that it binds no more.
 */
export async function openGpu(
  options: { bufferBytes?: number; onCompile?: (progress: CompileProgress) => void } = {},
): Promise<{ target: Target; device: GPUDevice }> {
  const { bufferBytes, onCompile } = options
  const adapter = (await (await findGpu()).requestAdapter())!
  const device = await adapter.requestDevice({
    requiredFeatures: adapter.features.has('timestamp-query') ? ['timestamp-query'] : [],
  })
  if (bufferBytes !== undefined) {
    const limits = new Proxy(device.limits, {
      get: (own, name) => (name === 'maxStorageBufferBindingSize' ? bufferBytes : Reflect.get(own, name)),
    })
    Object.defineProperty(device, 'limits', { value: limits })
  }
  return {
    device,
    target: webGpuTarget(device, { description: describeAdapter(adapter), memoryLimit: 2 ** 33, onCompile }),
  }
}

export interface Watched {
  /** Bytes of buffers that are not destroyed. */
  readonly live: { bytes: number; peak: number }
  /** Of each submit that computes: its dispatches. */
  readonly submits: number[]
  /** Buffers that were mapped. */
  readbacks: number
  /** The device has no memory left for buffers of this label. */
  refused: string
}

/** Keeps an eye on what is allocated on a device, submitted to it and read back. */
export function watch(device: GPUDevice): Watched {
  const watched: Watched = { readbacks: 0, live: { bytes: 0, peak: 0 }, submits: [], refused: '' }
  const { live } = watched

  let pops = 0
  const createBuffer = device.createBuffer.bind(device)
  device.createBuffer = (descriptor) => {
    if (descriptor.label === watched.refused) pops = 2
    const buffer = createBuffer(descriptor)
    const destroy = buffer.destroy.bind(buffer)
    let isLive = true
    live.bytes += descriptor.size
    live.peak = Math.max(live.peak, live.bytes)
    buffer.destroy = () => {
      if (isLive) live.bytes -= descriptor.size
      isLive = false
      destroy()
    }
    const mapAsync = buffer.mapAsync.bind(buffer)
    buffer.mapAsync = (...range) => {
      watched.readbacks++
      return mapAsync(...range)
    }
    return buffer
  }
  // The outer one of the two scopes is that of memory.
  const popErrorScope = device.popErrorScope.bind(device)
  device.popErrorScope = async () => {
    const full = pops > 0 && --pops === 0
    const error = await popErrorScope()
    return full ? ({ message: 'Not enough memory left.' } as GPUError) : error
  }

  const dispatches = new Map<GPUCommandBuffer, number>()
  const createCommandEncoder = device.createCommandEncoder.bind(device)
  device.createCommandEncoder = (descriptor) => {
    const encoder = createCommandEncoder(descriptor)
    let count = 0
    const [begin, finish] = [encoder.beginComputePass.bind(encoder), encoder.finish.bind(encoder)]
    encoder.beginComputePass = (options) => {
      const pass = begin(options)
      const dispatch = pass.dispatchWorkgroups.bind(pass)
      pass.dispatchWorkgroups = (...size) => {
        count++
        dispatch(...size)
      }
      return pass
    }
    encoder.finish = () => {
      const commands = finish()
      dispatches.set(commands, count)
      return commands
    }
    return encoder
  }
  const submit = device.queue.submit.bind(device.queue)
  device.queue.submit = (commands) => {
    for (const one of commands) if (dispatches.get(one)) watched.submits.push(dispatches.get(one)!)
    submit(commands)
  }
  return watched
}
