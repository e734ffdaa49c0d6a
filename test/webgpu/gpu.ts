import type { RecoveringTarget } from '../../targets/webgpu/recovering.ts'

/** The device under a target, with an eye on what is allocated on it. Before anything is. */
export function gpuOf(target: RecoveringTarget): { device: GPUDevice; live: { bytes: number; peak: number } } {
  const { device } = (target as unknown as { target: { device: GPUDevice } }).target
  const live = { bytes: 0, peak: 0 }
  const createBuffer = device.createBuffer.bind(device)
  device.createBuffer = (descriptor) => {
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
  return { device, live }
}
