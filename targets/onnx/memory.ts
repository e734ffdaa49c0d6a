// Memory of weights and states. Numbers of f32, f16 and bf16 are f32 here: x86 multiplies no other floats, and a conversion at each use
// costs more than the memory. Blocks of q8, q4a and q4 are taken apart into codes, scales and offsets (lower/weights.ts).
import { BLOCK } from '../../sdk/blocks.ts'
import { elementCount, isQuantized, storedTypes, type TensorType } from '../../sdk/dtype.ts'
import { ShapeError } from '../../sdk/errors.ts'
import { fromFloats, toFloats } from '../../sdk/quant/convert.ts'
import { halfBits, halfToNumber, numberToHalf, writeHalf } from '../../sdk/quant/float16.ts'
import type { Part } from './model.ts'

export interface Memory {
  readonly type: TensorType
  readonly parts: Readonly<Partial<Record<Part, ArrayBuffer>>>
  /** Made of the parts when first asked for. */
  derived: Partial<Record<Part, ArrayBuffer>>
  /** Of writes: what onnxruntime packed of an earlier one is out of date. */
  version: number
}

export function allocate(type: TensorType): Memory {
  const elements = elementCount(type.shape)
  if (!isQuantized(type.dtype))
    return { type, parts: { values: new ArrayBuffer(4 * elements) }, derived: {}, version: 0 }
  const floats = () => new ArrayBuffer((4 * elements) / BLOCK)
  return {
    type,
    parts: {
      codes: new ArrayBuffer(type.dtype === 'q8' ? elements : elements / 2),
      scales: floats(),
      ...(type.dtype === 'q4a' && { offsets: floats() }),
    },
    derived: {},
    version: 0,
  }
}

/** A part's memory. */
export function partOf({ parts, derived }: Memory, part: Part): ArrayBuffer {
  if (part === 'high' || part === 'low')
    derived[part] ??= nibbles(new Uint8Array(parts.codes!), part === 'high' ? 4 : 0)
  return derived[part] ?? parts[part]!
}

/** Halves of bytes, two in a byte. */
function nibbles(codes: Uint8Array, shift: number): ArrayBuffer {
  const out = new Uint8Array(codes.length / 2)
  for (let j = 0; j < out.length; j++)
    out[j] = ((codes[2 * j] >> shift) & 15) | (((codes[2 * j + 1] >> shift) & 15) << 4)
  return out.buffer
}

/** Canonical bytes (sdk/dtype.ts) from an offset on. */
export function write(memory: Memory, byteOffset: number, bytes: Uint8Array): void {
  memory.version++
  memory.derived = {}
  const { dtype } = memory.type
  if (dtype === 'f32' || dtype === 'i32') {
    new Uint8Array(memory.parts.values!).set(bytes, byteOffset)
    return
  }
  const first = wholeBlocks(memory, byteOffset, bytes.length)
  if (dtype === 'f16' || dtype === 'bf16') {
    new Float32Array(memory.parts.values!).set(toFloats(bytes, dtype), first)
    return
  }
  const { codes, scales, offsets } = memory.parts
  const [own, scale, offset] = [new Uint8Array(codes!), new Float32Array(scales!), offsets && new Float32Array(offsets)]
  const size = storedTypes[dtype].bytes
  const head = dtype === 'q4a' ? 4 : 2
  for (let b = 0; b * size < bytes.length; b++) {
    const at = b * size
    scale[first + b] = halfToNumber(halfBits(bytes, at))
    if (offset) offset[first + b] = halfToNumber(halfBits(bytes, at + 2)) + 8 * scale[first + b]
    if (dtype === 'q8') {
      const to = (first + b) * BLOCK
      for (let i = 0; i < BLOCK; i++) own[to + i] = bytes[at + 2 + i] ^ 0x80
      continue
    }
    // Elements 2j and 2j + 1 stand in the low nibbles of bytes 2j and 2j + 1, the second half of the block in the high ones.
    const to = ((first + b) * BLOCK) / 2
    for (let j = 0; j < 8; j++) {
      const [even, odd] = [bytes[at + head + 2 * j], bytes[at + head + 2 * j + 1]]
      own[to + j] = (even & 15) | ((odd & 15) << 4)
      own[to + 8 + j] = (even >> 4) | (odd & 0xf0)
    }
  }
}

export function read(memory: Memory, byteOffset: number, length: number): ArrayBuffer {
  const { dtype } = memory.type
  if (dtype === 'f32' || dtype === 'i32') return memory.parts.values!.slice(byteOffset, byteOffset + length)
  const first = wholeBlocks(memory, byteOffset, length)
  const { elements, bytes: size } = storedTypes[dtype]
  const count = length / size
  if (elements === 1)
    return fromFloats(new Float32Array(memory.parts.values!).slice(first, first + count), dtype).slice()
      .buffer as ArrayBuffer
  const { codes, scales, offsets } = memory.parts
  const [own, scale, offset] = [new Uint8Array(codes!), new Float32Array(scales!), offsets && new Float32Array(offsets)]
  const bytes = new Uint8Array(length)
  const head = dtype === 'q4a' ? 4 : 2
  for (let b = 0; b < count; b++) {
    const at = b * size
    writeHalf(bytes, at, numberToHalf(scale[first + b]))
    if (offset) writeHalf(bytes, at + 2, numberToHalf(offset[first + b] - 8 * scale[first + b]))
    if (dtype === 'q8') {
      const from = (first + b) * BLOCK
      for (let i = 0; i < BLOCK; i++) bytes[at + 2 + i] = own[from + i] ^ 0x80
      continue
    }
    const from = ((first + b) * BLOCK) / 2
    for (let j = 0; j < 8; j++) {
      const [low, high] = [own[from + j], own[from + 8 + j]]
      bytes[at + head + 2 * j] = (low & 15) | ((high & 15) << 4)
      bytes[at + head + 2 * j + 1] = (low >> 4) | (high & 0xf0)
    }
  }
  return bytes.buffer
}

/** The first block, or element of a float. Throws ShapeError for a part of one. */
function wholeBlocks({ type }: Memory, byteOffset: number, length: number): number {
  const { bytes } = storedTypes[type.dtype]
  if (byteOffset % bytes !== 0 || length % bytes !== 0)
    throw new ShapeError(
      `bytes ${byteOffset} to ${byteOffset + length} of ${type.dtype}: expected whole blocks of ${bytes}`,
    )
  return byteOffset / bytes
}
