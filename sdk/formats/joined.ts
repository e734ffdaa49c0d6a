import { elementCount, sameShape, storedTypes } from '../dtype.ts'
import { FormatError } from '../errors.ts'
import { f32ToF16 } from '../quant/float16.ts'
import { checkRange } from '../store/byte-source.ts'
import { z } from '../zod.ts'
import type { GgufBlock } from './gguf-blocks.ts'
import { layoutOf, type StoredTensor } from './stored.ts'

// Quantized weights of safetensors files lie in several tensors each: what reads them as one tensor of blocks needs.

export const fail = ({ file, name }: StoredTensor, message: string): never => {
  throw new FormatError(`${file}: ${name}: ${message}`)
}

/** Inputs that share a scale: whole blocks of q4a. */
export const groupSizes = z.literal([32, 64, 128])

const supported =
  'compressed-tensors of 8 bits: int, symmetric, groups of 32, weights only; AWQ (gemm), GPTQ and MLX (affine) of 4 bits: groups of 32, 64 or 128'

/** Settings of config.json that fit the schema. Throws FormatError naming the first key that does not. */
export function checkedSettings<T>(schema: z.ZodType<T>, settings: unknown, place: string): T {
  const parsed = schema.safeParse(settings)
  if (parsed.success) return parsed.data
  const [{ path, message }] = parsed.error.issues
  throw new FormatError(
    `${[place, ...path].join('.')}: ${message} (supported is ${supported}. Of others use the model's GGUF, or its unquantized folder)`,
  )
}

/** The tensor of that name, without which `weight` means nothing. */
export function partOf(
  weight: StoredTensor,
  part: { name: string; dtypes: readonly string[]; shape: readonly number[] },
  tensors: ReadonlyMap<string, StoredTensor>,
): StoredTensor {
  const { name, dtypes, shape } = part
  const found = tensors.get(name)
  if (!found) return fail(weight, `is quantized, but ${name} is missing (are all files of the model here?)`)
  if (!dtypes.includes(found.dtype)) fail(found, `${found.dtype} is not supported, ${dtypes.join(', ')} are`)
  if (!sameShape(found.shape, shape))
    fail(found, `expected [${shape.join(', ')}], got [${found.shape.join(', ')}] (does config.json belong to it?)`)
  return found
}

/** A tensor whose blocks are made of other tensors when they are read. */
export function joined(
  { name, dtype, shape, file }: { name: string; dtype: GgufBlock; shape: readonly number[]; file: string },
  makeBlocks: (first: number, count: number) => Promise<Uint8Array>,
): StoredTensor {
  const block = layoutOf(dtype)
  const bytes = (elementCount(shape) / block.elements) * block.bytes
  return {
    name,
    dtype,
    shape,
    bytes,
    file,
    async read(byteOffset = 0, byteLength = bytes - byteOffset) {
      checkRange({ name: `${file}: ${name}`, size: bytes }, byteOffset, byteLength)
      const first = Math.floor(byteOffset / block.bytes)
      const blocks = await makeBlocks(first, Math.ceil((byteOffset + byteLength) / block.bytes) - first)
      const start = byteOffset - first * block.bytes
      return byteLength === blocks.length ? blocks : blocks.slice(start, start + byteLength)
    },
  }
}

/**
 * Scales or minima as f16 bits: to the nearest, so within 2^-11 of each, or 2^-25 where f16 has no normal numbers any more.
 *
 * @param first the place of the first of them in `of`, for errors
 */
export function asHalves(numbers: Float32Array, of: StoredTensor, first = 0): Uint16Array {
  const halves = f32ToF16(numbers)
  const wrong = halves.findIndex((half) => (half & 0x7c00) === 0x7c00)
  if (wrong >= 0)
    fail(
      of,
      `number ${first + wrong} gives ${numbers[wrong]}, which f16 cannot hold (use the model's unquantized folder)`,
    )
  return halves
}

// A view needs an aligned start: a copy has one.
export const wordsOf = (bytes: Uint8Array): Uint32Array => new Uint32Array(new Uint8Array(bytes).buffer)

/** Words of a block of q4a. */
export const blockWords = storedTypes.q4a.bytes / 4

/**
 * Writes one block of q4a, as words.
 *
 * @param codes four words from `from` on, each with eight elements in their order, the first in the lowest bits
 * @param scale of f16, as bits; so is the minimum
 */
export function writeBlock(
  blocks: Uint32Array,
  at: number,
  codes: Uint32Array,
  from: number,
  scale: number,
  minimum: number,
): void {
  blocks[at] = scale | (minimum << 16)
  // A byte has elements i and i + 16: of words 0 and 2, then of 1 and 3.
  for (let k = 0; k < 2; k++) {
    const low = codes[from + k]
    const high = codes[from + k + 2]
    const even = (low & 0x0f0f0f0f) | ((high & 0x0f0f0f0f) << 4) // bytes 0, 2, 4, 6
    const odd = ((low >>> 4) & 0x0f0f0f0f) | (high & 0xf0f0f0f0) // bytes 1, 3, 5, 7
    blocks[at + 1 + 2 * k] = (even & 0xff) | ((odd & 0xff) << 8) | ((even & 0xff00) << 8) | ((odd & 0xff00) << 16)
    blocks[at + 2 + 2 * k] =
      ((even >>> 16) & 0xff) | ((odd >>> 8) & 0xff00) | ((even >>> 8) & 0xff0000) | (odd & 0xff000000)
  }
}
