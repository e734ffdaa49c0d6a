import { BLOCK } from '../blocks.ts'
import { bytesOf } from '../bytes.ts'
import { isObject } from '../options.ts'
import { turn } from '../turn.ts'
import { z } from '../zod.ts'
import {
  asHalves,
  blockWords,
  checkedSettings,
  fail,
  groupSizes,
  joined,
  partOf,
  wordsOf,
  writeBlock,
} from './joined.ts'
import { decodeFloats, layoutOf, type StoredTensor } from './stored.ts'

// Four bits as mlx_lm.convert writes them (mlx.core.quantize, mode affine): `X.weight` as U32 [O, I / 8], eight numbers of a row in a
// word, the first in the lowest bits; `X.scales` and `X.biases` as F16, BF16 or F32 [O, I / g]. w = scale * q + bias: q4a's scale and
// minimum, each for g / 32 blocks. The vocabulary's tables are among them.

const settings = z.looseObject({
  group_size: groupSizes,
  bits: z.literal(4),
  mode: z.literal('affine').optional(),
})

/**
 * A folder's tensors with each weight, its scales and its biases as one tensor of dtype Q4_1.
 *
 * @param quantization of config.json; under names of modules it has settings of their own
 * @throws FormatError for settings that are not supported, and for tensors that do not fit
 */
export function mlxTensors(
  quantization: Record<string, unknown>,
  configFile: string,
  tensors: ReadonlyMap<string, StoredTensor>,
): Map<string, StoredTensor> {
  const place = `${configFile}: quantization`
  const { group_size } = checkedSettings(settings, quantization, place)
  const own = new Map<string, number>()
  for (const [module, value] of Object.entries(quantization))
    if (isObject(value)) own.set(module, checkedSettings(settings, value, `${place}.${module}`).group_size)
  const found = new Map<string, StoredTensor>()
  for (const [name, tensor] of tensors) {
    const [, module, part] = /^(.*)\.(weight|scales|biases)$/.exec(name) ?? []
    const weight = tensors.get(`${module}.weight`)
    if (part === 'weight' && tensor.dtype === 'U32')
      found.set(name, withScales(module, tensor, tensors, own.get(module) ?? group_size))
    else if (part === 'scales' || part === 'biases') {
      if (weight?.dtype !== 'U32') fail(tensor, `there is no ${module}.weight of dtype U32 for it`)
    } else found.set(name, tensor)
  }
  return found
}

function withScales(
  module: string,
  weight: StoredTensor,
  tensors: ReadonlyMap<string, StoredTensor>,
  groupSize: number,
): StoredTensor {
  const { name, file } = weight
  const shape = [weight.shape[0], 8 * weight.shape[1]] // [O, I]
  if (weight.shape.length !== 2 || shape[1] % groupSize !== 0)
    fail(
      weight,
      `[${weight.shape.join(', ')}] is no matrix with rows of a multiple of ${groupSize} numbers, 8 in a word`,
    )
  const part = (kind: string) => {
    const wanted = {
      name: `${module}.${kind}`,
      dtypes: ['F16', 'BF16', 'F32'],
      shape: [shape[0], shape[1] / groupSize],
    }
    return partOf(weight, wanted, tensors)
  }
  const [scales, biases] = [part('scales'), part('biases')]
  const groupBlocks = groupSize / BLOCK
  return joined({ name, dtype: 'Q4_1', shape, file }, async (first, count) => {
    const blocks = new Uint32Array(count * blockWords)
    for (let done = 0; done < count; done += pieceBlocks) {
      const [from, length] = [first + done, Math.min(pieceBlocks, count - done)]
      const group = Math.floor(from / groupBlocks)
      const groups = Math.ceil((from + length) / groupBlocks) - group
      const [bytes, d, m] = await Promise.all([
        weight.read(from * 16, length * 16),
        readHalves(scales, group, groups),
        readHalves(biases, group, groups),
      ])
      const words = wordsOf(bytes)
      for (let b = 0; b < length; b++) {
        const g = Math.floor((from + b) / groupBlocks) - group
        writeBlock(blocks, (done + b) * blockWords, words, 4 * b, d[g], m[g])
      }
      await turn()
    }
    return bytesOf(blocks)
  })
}

/** Blocks that are made at a time. */
const pieceBlocks = 1 << 15

async function readHalves(tensor: StoredTensor, first: number, count: number): Promise<Uint16Array> {
  const { bytes } = layoutOf(tensor.dtype)
  return asHalves(decodeFloats(tensor.dtype, await tensor.read(first * bytes, count * bytes)), tensor, first)
}
