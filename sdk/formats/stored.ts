import { byteLength, type DType, elementCount, type FloatDType, isQuantized } from '../dtype.ts'
import { FormatError } from '../errors.ts'
import { fromFloats, toFloats } from '../quant/convert.ts'
import { fittedFloats } from '../quant/fit.ts'
import { f16ToF32 } from '../quant/float16.ts'
import { turn } from '../turn.ts'
import { dequantizeBlocks, type GgufBlock, ggufBlocks } from './gguf-blocks.ts'
import { transcodings } from './gguf-transcode.ts'

/** Bytes per element, under the names of safetensors, in the order (last first) in which its reference library writes them. */
export const plainBytes = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E5M2: 1,
  F8_E4M3: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  F64: 8,
  I64: 8,
  U64: 8,
} as const

export type PlainDType = keyof typeof plainBytes
/** What tensors in safetensors and GGUF files are made of. */
export type StoredDType = PlainDType | GgufBlock

/** A tensor in a file; its bytes are read when asked for. */
export interface StoredTensor {
  readonly name: string
  readonly dtype: StoredDType
  /** Row-major: the last axis is contiguous. */
  readonly shape: readonly number[]
  readonly bytes: number
  /** Named in errors. */
  readonly file: string
  /** A fresh copy of the bytes, or of a range of them. Throws FormatError. */
  read(byteOffset?: number, byteLength?: number): Promise<Uint8Array>
}

/** Bytes and elements of the smallest readable unit. */
export const layoutOf = (dtype: StoredDType): { readonly bytes: number; readonly elements: number } =>
  dtype in ggufBlocks ? ggufBlocks[dtype as GgufBlock] : { bytes: plainBytes[dtype as PlainDType], elements: 1 }

const same: Partial<Record<StoredDType, DType>> = {
  F32: 'f32',
  F16: 'f16',
  BF16: 'bf16',
  Q8_0: 'q8',
  Q4_1: 'q4a',
  Q4_0: 'q4',
  I32: 'i32',
}

/**
 * The dtype that a stored type opens in unless the user asks for another (its own where Halfling has it, q8 or q4a for the other
 * blocks), and whether its numbers stay what they are. null for integers and booleans.
 */
export function opensAs(dtype: StoredDType): { readonly dtype: FloatDType; readonly isExact: boolean } | null {
  const own = same[dtype]
  if (own && own !== 'i32') return { dtype: own, isExact: true }
  if (dtype === 'F64') return { dtype: 'f32', isExact: false }
  if (dtype === 'F8_E4M3' || dtype === 'F8_E5M2') return { dtype: 'f16', isExact: true }
  if (isBlock(dtype)) return transcodings[dtype] ?? { dtype: 'q8', isExact: false }
  return null
}

const isBlock = (dtype: StoredDType): dtype is GgufBlock => dtype in ggufBlocks

/** As `opensAs`. Throws FormatError for integers and booleans. */
export function storedDType(tensor: StoredTensor): FloatDType {
  const opened = opensAs(tensor.dtype)
  if (!opened) throw notFloat(tensor)
  return opened.dtype
}

/** Whether asking for `dtype` rounds a tensor that is quantized already once more than it must be. */
export const isRoundedAgain = (tensor: StoredTensor, dtype: FloatDType): boolean =>
  isBlock(tensor.dtype) && isQuantized(dtype) && storedDType(tensor) !== dtype

const notFloat = ({ file, name, dtype }: StoredTensor): FormatError =>
  new FormatError(`${file}: ${name}: ${dtype} cannot be read as floating point`)

/** Elements that are converted at a time: a multiple of every block. */
const chunkElements = 2 ** 20
/** What takes long for each is done for about so many in whole rows. */
const slowElements = 2 ** 16

/** Stored bytes (whole blocks) to canonical bytes of `dtype`, where they need not become f32 on the way. */
function shortcut(from: StoredDType, dtype: FloatDType): ((stored: Uint8Array) => Uint8Array) | undefined {
  if (same[from] === dtype) return (stored) => stored
  const transcoding = isBlock(from) ? transcodings[from] : undefined
  return transcoding?.dtype === dtype ? transcoding.transcode : undefined
}

/** The numbers of a piece of a tensor, and the bytes that they became. */
export type OnChunk = (floats: Float32Array, bytes: Uint8Array) => void

export type Encode = (floats: Float32Array, dtype: FloatDType) => Uint8Array

/**
 * The tensor's numbers as canonical bytes of `dtype` in pieces that follow each other (whole blocks), rounded by `encode`. A tensor of that dtype keeps its bytes. Throws FormatError for integers and booleans.
 */
export async function* convertedChunks(
  tensor: StoredTensor,
  dtype: FloatDType,
  onChunk?: OnChunk,
  encode: Encode = fromFloats,
  chunk = chunkElements,
): AsyncGenerator<Uint8Array, void> {
  storedDType(tensor)
  const short = shortcut(tensor.dtype, dtype)
  for await (const stored of storedChunks(tensor, chunk)) {
    if (short && !onChunk) {
      yield short(stored)
      continue
    }
    const floats = decodeFloats(tensor.dtype, stored)
    const bytes = short?.(stored) ?? encode(floats, dtype)
    onChunk?.(floats, bytes)
    yield bytes
  }
}

/** A tensor to be written, made a piece at a time. */
export interface TensorStream<D extends StoredDType = StoredDType> {
  readonly name: string
  readonly dtype: D
  readonly shape: readonly number[]
  readonly bytes: number
  /** Its bytes in pieces, made when asked for. */
  chunks(): AsyncIterable<Uint8Array>
}

const ownTypes = { f32: 'F32', f16: 'F16', bf16: 'BF16', q8: 'Q8_0', q4a: 'Q4_1', q4: 'Q4_0' } as const

/** A tensor to be written in another type, rounded by what `rounding` gives. Throws ShapeError for rows that are no whole blocks. */
export function convertedStream<D extends FloatDType>(
  tensor: StoredTensor,
  dtype: D,
  onChunk?: OnChunk,
  rounding?: () => Promise<Encode> | undefined,
): TensorStream<(typeof ownTypes)[D]> {
  const { name, shape } = tensor
  async function* chunks(): AsyncGenerator<Uint8Array, void> {
    const encode = await rounding?.()
    const columns = shape.at(-1)!
    const chunk = encode && columns * Math.ceil(slowElements / columns)
    yield* convertedChunks(tensor, dtype, onChunk, encode ?? fittedFloats, chunk)
  }
  return { name, dtype: ownTypes[dtype], shape, bytes: byteLength({ dtype, shape }), chunks }
}

/** The tensor's numbers as f32. Throws FormatError for integers and booleans. */
export async function readFloats(tensor: StoredTensor): Promise<Float32Array> {
  storedDType(tensor)
  const out = new Float32Array(elementCount(tensor.shape))
  let at = 0
  for await (const stored of storedChunks(tensor)) {
    const floats = decodeFloats(tensor.dtype, stored)
    out.set(floats, at)
    at += floats.length
  }
  return out
}

/** A tensor's bytes in pieces of whole blocks; the next is read while one is worked on. */
export async function* storedChunks(tensor: StoredTensor, chunk = chunkElements): AsyncGenerator<Uint8Array> {
  const { bytes, elements } = layoutOf(tensor.dtype)
  const chunkBytes = (chunk / elements) * bytes
  const read = (at: number) => {
    const reading = tensor.read(at, Math.min(chunkBytes, tensor.bytes - at))
    // Nobody may come for it.
    reading.catch(() => {})
    return reading
  }
  let next = tensor.bytes > 0 ? read(0) : undefined
  for (let at = chunkBytes; next; at += chunkBytes) {
    const stored = await next
    next = at < tensor.bytes ? read(at) : undefined
    await turn()
    yield stored
  }
}

/** Stored bytes of a float dtype (whole blocks) to f32. Throws FormatError for integers and booleans. */
export function decodeFloats(dtype: StoredDType, bytes: Uint8Array): Float32Array {
  const own = same[dtype]
  if (own && own !== 'i32') return toFloats(bytes, own)
  if (isBlock(dtype)) return dequantizeBlocks(dtype, bytes)
  // A view needs an aligned start: a copy has one.
  if (dtype === 'F64') return Float32Array.from(new Float64Array(new Uint8Array(bytes).buffer))
  if (dtype === 'F8_E4M3') return Float32Array.from(bytes, decodeE4M3)
  if (dtype === 'F8_E5M2') return f16ToF32(Uint16Array.from(bytes, (byte) => byte << 8))
  throw new FormatError(`${dtype} cannot be read as floating point`)
}

/** Sign, 4 exponent bits (bias 7), 3 fraction bits; no infinity, NaN where all bits but the sign are set. */
function decodeE4M3(byte: number): number {
  const exponent = (byte >>> 3) & 15
  const fraction = byte & 7
  const magnitude =
    (byte & 127) === 127 ? Number.NaN : exponent === 0 ? fraction * 2 ** -9 : (8 + fraction) * 2 ** (exponent - 10)
  return byte & 128 ? -magnitude : magnitude
}
