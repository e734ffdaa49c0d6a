import { byteLength, type TensorType } from '../sdk/dtype.ts'
import { DeviceError } from '../sdk/errors.ts'
import type { Buffer } from '../sdk/target.ts'

/** A buffer with the target whose it is, and what that target knows its memory by. */
export class OwnedBuffer<Memory> implements Buffer {
  readonly name: string
  readonly type: TensorType
  readonly bytes: number
  readonly memory: Memory
  readonly owner: object
  freed = false

  constructor(name: string, type: TensorType, memory: Memory, owner: object) {
    this.name = name
    this.type = { dtype: type.dtype, shape: [...type.shape] }
    this.bytes = byteLength(type)
    this.memory = memory
    this.owner = owner
  }
}

/** Throws DeviceError for a buffer that is not the owner's, or is free already. */
export function memoryOf<Memory>(buffer: Buffer, owner: object): Memory {
  if (!(buffer instanceof OwnedBuffer) || buffer.owner !== owner)
    throw new DeviceError(`${buffer.name}: a buffer of another target`)
  if (buffer.freed) throw new DeviceError(`${buffer.name}: used after free`)
  return buffer.memory
}

/** Calls `release` where the buffer is the owner's and not free yet. */
export function freeBuffer<Memory>(buffer: Buffer, owner: object, release: (memory: Memory) => void): void {
  if (!(buffer instanceof OwnedBuffer) || buffer.owner !== owner || buffer.freed) return
  buffer.freed = true
  release(buffer.memory)
}
