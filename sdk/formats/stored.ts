import { byteLength, type DType, elementCount } from '../dtype.ts'
import { FormatError } from '../errors.ts'
import { fromFloats } from '../quant/convert.ts'
import { bf16ToF32, f16ToF32 } from '../quant/float16.ts'
import { dequantizeBlocks, type GgufBlock, ggufBlocks } from './gguf-blocks.ts'

/** Bytes per element, under the names of safetensors. */
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

type FloatDType = Exclude<DType, 'i32'>

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
  Q4_0: 'q4',
  I32: 'i32',
}

/**
 * The dtype in which a tensor is kept unless the user asks for another: its own where Halfling has it, f32 for F64, f16 for
 * eight-bit floats and the other block types. Throws FormatError for integers and booleans.
 */
export function storedDType(tensor: StoredTensor): FloatDType {
  const { dtype } = tensor
  const own = same[dtype]
  if (own && own !== 'i32') return own
  if (dtype === 'F64') return 'f32'
  if (dtype === 'F8_E4M3' || dtype === 'F8_E5M2' || dtype in ggufBlocks) return 'f16'
  throw notFloat(tensor)
}

const notFloat = ({ file, name, dtype }: StoredTensor): FormatError =>
  new FormatError(`${file}: ${name}: ${dtype} cannot be read as floating point`)

/** Elements that are f32 at a time: a multiple of every block. */
const chunkElements = 262_144

/**
 * The tensor's numbers as canonical bytes of `dtype` (sdk/dtype.ts), converted in chunks through f32.
 * Throws FormatError for an integer tensor, or a last axis that is no multiple of 32 where q8 or q4 is asked for.
 */
export async function readAs(tensor: StoredTensor, dtype: DType): Promise<Uint8Array> {
  if (same[tensor.dtype] === dtype) return tensor.read()
  if (dtype === 'i32') throw new FormatError(`${tensor.file}: ${tensor.name}: ${tensor.dtype} cannot be read as i32`)
  if ((dtype === 'q8' || dtype === 'q4') && (tensor.shape.at(-1) ?? 1) % 32 !== 0)
    throw new FormatError(
      `${tensor.file}: ${tensor.name}: ${dtype} needs rows of a multiple of 32, this has [${tensor.shape.join(', ')}] (ask for f16)`,
    )
  const out = new Uint8Array(byteLength({ dtype, shape: tensor.shape }))
  let at = 0
  for await (const bytes of convertedChunks(tensor, dtype)) {
    out.set(bytes, at)
    at += bytes.length
  }
  return out
}

/** The numbers of a piece of a tensor, and the bytes that they became. */
export type OnChunk = (floats: Float32Array, bytes: Uint8Array) => void

/**
 * The tensor's numbers as canonical bytes of `dtype` in pieces that follow each other (whole blocks). A tensor of that dtype keeps
 * its bytes. Throws FormatError for integers and booleans.
 */
export async function* convertedChunks(
  tensor: StoredTensor,
  dtype: FloatDType,
  onChunk: OnChunk = () => {},
): AsyncGenerator<Uint8Array, void> {
  storedDType(tensor)
  for await (const [, floats, stored] of floatChunks(tensor)) {
    const bytes = same[tensor.dtype] === dtype ? stored : fromFloats(floats, dtype)
    onChunk(floats, bytes)
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

const ownTypes = { f32: 'F32', f16: 'F16', bf16: 'BF16', q8: 'Q8_0', q4: 'Q4_0' } as const

/** A tensor to be written in another type. Throws ShapeError for q8 and q4 of rows that are no multiple of 32. */
export function convertedStream<D extends FloatDType>(
  tensor: StoredTensor,
  dtype: D,
  onChunk?: OnChunk,
): TensorStream<(typeof ownTypes)[D]> {
  const { name, shape } = tensor
  const chunks = () => convertedChunks(tensor, dtype, onChunk)
  return { name, dtype: ownTypes[dtype], shape, bytes: byteLength({ dtype, shape }), chunks }
}

/** The tensor's numbers as f32. Throws FormatError for integers and booleans. */
export async function readFloats(tensor: StoredTensor): Promise<Float32Array> {
  storedDType(tensor)
  const out = new Float32Array(elementCount(tensor.shape))
  for await (const [start, floats] of floatChunks(tensor)) out.set(floats, start)
  return out
}

async function* floatChunks(
  tensor: StoredTensor,
): AsyncGenerator<[start: number, floats: Float32Array, stored: Uint8Array]> {
  const { bytes, elements } = layoutOf(tensor.dtype)
  const chunkBytes = (chunkElements / elements) * bytes
  for (let at = 0; at < tensor.bytes; at += chunkBytes) {
    const chunk = await tensor.read(at, Math.min(chunkBytes, tensor.bytes - at))
    yield [(at / bytes) * elements, decodeFloats(tensor.dtype, chunk), chunk]
  }
}

/** Stored bytes of a float dtype (whole blocks) to f32. Throws FormatError for integers and booleans. */
export function decodeFloats(dtype: StoredDType, bytes: Uint8Array): Float32Array {
  if (dtype in ggufBlocks) return dequantizeBlocks(dtype as GgufBlock, bytes)
  // A view needs an aligned start.
  const size = plainBytes[dtype as PlainDType]
  const own = bytes.byteOffset % size === 0 ? bytes : new Uint8Array(bytes)
  const view = [own.buffer, own.byteOffset, own.length / size] as const
  if (dtype === 'F32') return new Float32Array(...view)
  if (dtype === 'F64') return Float32Array.from(new Float64Array(...view))
  if (dtype === 'F16') return f16ToF32(new Uint16Array(...view))
  if (dtype === 'BF16') return bf16ToF32(new Uint16Array(...view))
  if (dtype === 'F8_E4M3') return Float32Array.from(own, decodeE4M3)
  if (dtype === 'F8_E5M2') return f16ToF32(Uint16Array.from(own, (byte) => byte << 8))
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
