import { elementCount, storedTypes } from '../dtype.ts'
import { z } from '../zod.ts'
import { checkedSettings, fail, joined, partOf } from './joined.ts'
import { convertedChunks, type OnChunk, type StoredTensor, type TensorStream } from './stored.ts'

// q8 in safetensors, as the library compressed-tensors has it (llm-compressor, transformers): `X.weight` as I8 [O, I] and
// `X.weight_scale` as F16 [O, I / 32]. The same numbers as GGUF's Q8_0, where the scale lies before its 32 bytes.

const { elements: group, bytes: blockBytes } = storedTypes.q8

const none = z.null().optional()
const supported = z.looseObject({
  quant_method: z.literal('compressed-tensors'),
  format: z.enum(['int-quantized', 'naive-quantized']),
  quantization_status: z.literal('compressed').optional(),
  kv_cache_scheme: none,
  config_groups: z.record(
    z.string(),
    z.looseObject({
      weights: z.looseObject({
        num_bits: z.literal(8),
        type: z.literal('int'),
        symmetric: z.literal(true),
        strategy: z.literal('group'),
        group_size: z.literal(group),
        dynamic: z.literal(false).optional(),
      }),
      input_activations: none,
      output_activations: none,
      format: z.enum(['int-quantized', 'naive-quantized']).nullish(),
    }),
  ),
})

/** What config.json says under `quantization_config` of the tensors that `compressedTensor` makes. */
export const compressedConfig = (ignore: readonly string[]): Record<string, unknown> => ({
  quant_method: 'compressed-tensors',
  format: 'int-quantized',
  quantization_status: 'compressed',
  global_compression_ratio: null,
  kv_cache_scheme: null,
  ignore,
  config_groups: {
    group_0: {
      targets: ['Linear'],
      // Without it, eight bits without quantized activations are taken for packed ones.
      format: 'int-quantized',
      weights: {
        num_bits: 8,
        type: 'int',
        symmetric: true,
        strategy: 'group',
        group_size: group,
        dynamic: false,
      },
      input_activations: null,
      output_activations: null,
    },
  },
})

/**
 * A model folder's config and tensors with pairs of int8 weight and scale as single tensors of dtype Q8_0, and without
 * `quantization_config`. Unchanged where config.json has none.
 *
 * @throws FormatError for any other quantization, naming what is supported, and for pairs that do not fit
 */
export function uncompressed(
  config: Record<string, unknown>,
  configFile: string,
  tensors: ReadonlyMap<string, StoredTensor>,
): { config: Record<string, unknown>; tensors: ReadonlyMap<string, StoredTensor> } {
  const { quantization_config: quantization, ...rest } = config
  if (quantization === undefined || quantization === null) return { config, tensors }
  checkedSettings(supported, quantization, `${configFile}: quantization_config`)
  const found = new Map<string, StoredTensor>()
  for (const [name, tensor] of tensors) {
    const scale = /^(.*\.weight)_(scale|zero_point|shape|packed|g_idx|global_scale)$/.exec(name)
    if (!scale) found.set(name, tensor.dtype === 'I8' ? withScale(tensor, tensors) : tensor)
    else if (scale[2] !== 'scale') fail(tensor, 'belongs to a kind of quantization that is not supported')
    else if (tensors.get(scale[1])?.dtype !== 'I8') fail(tensor, `there is no ${scale[1]} of dtype I8 to scale`)
  }
  return { config: rest, tensors: found }
}

/** Weights and scales as one tensor of Q8_0. */
function withScale(weight: StoredTensor, tensors: ReadonlyMap<string, StoredTensor>): StoredTensor {
  const { name, shape, file } = weight
  const [rows, columns] = shape
  if (shape.length !== 2 || columns % group !== 0)
    return fail(weight, `[${shape.join(', ')}] is no matrix with rows of a multiple of ${group}`)
  const scale = partOf(weight, { name: `${name}_scale`, dtypes: ['F16'], shape: [rows, columns / group] }, tensors)
  return joined({ name, dtype: 'Q8_0', shape, file }, async (first, count) => {
    const [numbers, scales] = await Promise.all([
      weight.read(first * group, count * group),
      scale.read(first * 2, count * 2),
    ])
    const blocks = new Uint8Array(count * blockBytes)
    for (let i = 0; i < count; i++) {
      if ((scales[2 * i + 1] & 0x7c) === 0x7c) fail(scale, `number ${first + i} is not finite`)
      blocks[i * blockBytes] = scales[2 * i]
      blocks[i * blockBytes + 1] = scales[2 * i + 1]
      blocks.set(numbers.subarray(i * group, (i + 1) * group), i * blockBytes + 2)
    }
    return blocks
  })
}

/** Bytes `from` to `to` of each block, one after the other. */
function cut(blocks: Uint8Array, from: number, to: number): Uint8Array {
  const width = to - from
  const out = new Uint8Array((blocks.length / blockBytes) * width)
  for (let i = 0, at = from; at < blocks.length; i++, at += blockBytes)
    out.set(blocks.subarray(at, at + width), i * width)
  return out
}

/** A matrix with rows of a multiple of 32 as its pair of tensors. A tensor of dtype Q8_0 keeps its numbers. */
export function compressedTensor(
  tensor: StoredTensor,
  onChunk?: OnChunk,
): [weight: TensorStream<'I8'>, scale: TensorStream<'F16'>] {
  const { name, shape } = tensor
  const blocks = elementCount(shape) / group
  return [
    {
      name,
      dtype: 'I8',
      shape,
      bytes: blocks * group,
      async *chunks() {
        for await (const chunk of convertedChunks(tensor, 'q8', onChunk)) yield cut(chunk, 2, blockBytes)
      },
    },
    {
      name: `${name}_scale`,
      dtype: 'F16',
      shape: [shape[0], shape[1] / group],
      bytes: blocks * 2,
      async *chunks() {
        for await (const chunk of convertedChunks(tensor, 'q8')) yield cut(chunk, 0, 2)
      },
    },
  ]
}
