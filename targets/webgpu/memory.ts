import { megabytes } from '../../sdk/bytes.ts'
import { MemoryError } from '../../sdk/errors.ts'

/** The flags of the WebGPU standard: Node has no globals for them. */
export const usage = { mapRead: 1, copySource: 4, copyTarget: 8, uniform: 64, storage: 128, query: 512 } as const
const mapForReading = 1
/** Bytes that are read back at a time. */
export const stagingBytes = 4 * 2 ** 20

export const align = (bytes: number, unit: number): number => Math.ceil(bytes / unit) * unit

/** A range of a buffer, in multiples of 4 bytes. */
export type Range = readonly [buffer: GPUBuffer, offset: number, bytes: number]

/** The buffers of one device. What cannot be allocated is known a little later: `settled` throws it, by its name. */
export class DeviceMemory {
  /** Bytes in use. */
  used = 0
  private readonly device: GPUDevice
  private unsettled: Promise<void>[] = []
  private staging: GPUBuffer | null = null

  constructor(device: GPUDevice) {
    this.device = device
  }

  allocate(
    bytes: number,
    name: string,
    flags: number = usage.storage | usage.copySource | usage.copyTarget,
  ): GPUBuffer {
    const { device } = this
    const size = Math.max(4, align(bytes, 4))
    const { maxBufferSize } = device.limits
    if (size > maxBufferSize)
      throw new MemoryError(
        `${name}: ${megabytes(size)}, a buffer of this adapter has ${megabytes(maxBufferSize)} at most`,
      )
    const inUse = this.used
    device.pushErrorScope('out-of-memory')
    device.pushErrorScope('validation')
    const buffer = device.createBuffer({ label: name, size, usage: flags })
    // A device that is lost says so elsewhere.
    const [invalid, full] = [device.popErrorScope(), device.popErrorScope()].map((scope) => scope.catch(() => null))
    this.used += size
    const settled = (async () => {
      const error = (await full) ?? (await invalid)
      if (error)
        throw new MemoryError(
          `${name}: the GPU has no ${megabytes(size)} left for it, ${megabytes(inUse)} are in use here (${error.message.split('\n')[0]}): use a smaller batch, shorter rows or a smaller dtype`,
        )
    })()
    settled.catch(() => {})
    this.unsettled.push(settled)
    return buffer
  }

  free(buffer: GPUBuffer): void {
    buffer.destroy()
    this.used -= buffer.size
  }

  write(buffer: GPUBuffer, offset: number, bytes: Uint8Array<ArrayBuffer>): void {
    // A buffer that could not be had complains of writes as well: that is no other fault.
    const isUnsettled = this.isUnsettled
    if (isUnsettled) this.device.pushErrorScope('validation')
    this.device.queue.writeBuffer(buffer, offset, bytes)
    if (isUnsettled) this.device.popErrorScope().catch(() => {})
  }

  /** Whether allocations are not known to have succeeded. */
  get isUnsettled(): boolean {
    return this.unsettled.length > 0
  }

  /** Until all allocations so far are known to be good. Throws the MemoryError of the first that is not, once. */
  async settled(): Promise<void> {
    const all = this.unsettled
    this.unsettled = []
    await Promise.allSettled(all)
    await Promise.all(all)
  }

  /** Copies of ranges of buffers, once all that was submitted is done. One call at a time. */
  async read(ranges: readonly Range[]): Promise<ArrayBuffer[]> {
    const total = ranges.reduce((sum, [, , bytes]) => sum + bytes, 0)
    if (total === 0) {
      await this.device.queue.onSubmittedWorkDone()
      return []
    }
    this.staging ??= this.allocate(stagingBytes, 'what is read back', usage.mapRead | usage.copyTarget)
    const copies = ranges.map(([, , bytes]) => new Uint8Array(bytes))
    for (let at = 0; at < total; at += stagingBytes) await this.readPiece(this.staging, ranges, copies, at)
    return copies.map((copy) => copy.buffer)
  }

  /** Bytes `at` and on of all ranges put one after the other, as many as fit. */
  private async readPiece(staging: GPUBuffer, ranges: readonly Range[], copies: readonly Uint8Array[], at: number) {
    const encoder = this.device.createCommandEncoder()
    const pieces: { range: number; from: number; bytes: number; to: number }[] = []
    let start = 0
    for (const [r, [buffer, offset, bytes]] of ranges.entries()) {
      const from = Math.max(0, at - start)
      const end = Math.min(bytes, at + stagingBytes - start)
      if (from < end) {
        const to = start + from - at
        encoder.copyBufferToBuffer(buffer, offset + from, staging, to, end - from)
        pieces.push({ range: r, from, bytes: end - from, to })
      }
      start += bytes
    }
    const used = pieces.reduce((sum, { bytes }) => sum + bytes, 0)
    this.device.queue.submit([encoder.finish()])
    await staging.mapAsync(mapForReading, 0, used)
    const mapped = new Uint8Array(staging.getMappedRange(0, used))
    for (const { range, from, bytes, to } of pieces) copies[range].set(mapped.subarray(to, to + bytes), from)
    staging.unmap()
  }
}
