import { DeviceError, DeviceLostError } from '../../sdk/errors.ts'

/** Milliseconds in which a loss is told, after what came of it. */
const told = 100

/** What goes wrong with a device and is no error of a call: it is lost, or WebGPU complains outside of every error scope. */
export class Faults {
  private readonly device: GPUDevice
  private lost: string | null = null
  private complaint: string | null = null
  private closed = false
  /** Rejects of what is waited for now: a promise of a lost device may never settle. */
  private readonly waiting = new Set<(reason: Error) => void>()

  constructor(device: GPUDevice) {
    this.device = device
    void device.lost.then(({ message, reason }) => {
      this.lost = message || reason
      for (const reject of this.waiting) reject(this.fault()!)
    })
    device.addEventListener('uncapturederror', (event) => {
      this.complaint ??= (event as GPUUncapturedErrorEvent).error.message
    })
  }

  /** From now on the device may go, and runs end at the next submit. */
  close(): void {
    this.closed = true
  }

  get isLost(): boolean {
    return this.lost !== null
  }

  /** DeviceError of a closed target, DeviceLostError; null: it works. */
  private fault(): DeviceError | DeviceLostError | null {
    if (this.closed) return new DeviceError('webgpu: the target is closed')
    if (this.lost === null) return null
    return new DeviceLostError(`webgpu: the device was lost (${this.lost}): open the target again`)
  }

  /** Throws DeviceError, DeviceLostError. */
  check(): void {
    const fault = this.fault()
    if (fault) throw fault
  }

  /** Rejects with DeviceLostError where the device is lost meanwhile, whatever came of it. */
  async guard<T>(task: () => T | Promise<T>): Promise<T> {
    this.check()
    let reject: (reason: Error) => void = () => {}
    const lost = new Promise<never>((_, fail) => {
      reject = fail
    })
    this.waiting.add(reject)
    let result: T
    try {
      result = await Promise.race([task(), lost])
    } catch (error) {
      await Promise.race([this.device.lost, new Promise((resolve) => setTimeout(resolve, told))])
      this.check()
      throw error
    } finally {
      this.waiting.delete(reject)
    }
    this.check()
    return result
  }

  /** What WebGPU complained of since the last time; null: of nothing. */
  takeComplaint(): string | null {
    const { complaint } = this
    this.complaint = null
    return complaint
  }
}
