import type { RecoveringTarget } from '../../targets/webgpu/recovering.ts'

export interface Watched {
  readonly device: GPUDevice
  /** Bytes of buffers that are not destroyed. */
  readonly live: { bytes: number; peak: number }
  /** Of each submit that computes: its dispatches. */
  readonly submits: number[]
  /** The device has no memory left for buffers of this label. */
  refused: string
}

/** The device under a target, with an eye on what is allocated on it and submitted to it. */
export function watch(target: RecoveringTarget): Watched {
  const { device } = (target as unknown as { target: { device: GPUDevice } }).target
  const watched: Watched = { device, live: { bytes: 0, peak: 0 }, submits: [], refused: '' }
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
