import { z } from '../zod.ts'
import { nibbles, partsOf, type Tensors, withMatrices } from './columns.ts'
import { checkedSettings, groupSizes } from './joined.ts'

// AWQ as AutoAWQ writes it for GEMM (awq/modules/linear/gemm.py, awq/utils/packing_utils.py): qweight I32 [I, O / 8], eight outputs in a
// word, from the lowest bits on in the order 0, 2, 4, 6, 1, 3, 5, 7; qzeros I32 [I / g, O / 8] in the same order; scales F16 [I / g, O].

const settings = z.looseObject({
  quant_method: z.literal('awq'),
  bits: z.literal(4),
  group_size: groupSizes,
  zero_point: z.literal(true).optional(),
  version: z.literal(['gemm', 'GEMM']).optional(),
  backend: z.literal('autoawq').optional(),
})

/** Where in a word the eight outputs are. */
const places = [0, 4, 1, 5, 2, 6, 3, 7]

/** A folder's tensors with what AWQ has of each weight as one tensor of dtype Q4_1. Throws FormatError. */
export async function awqTensors(quantization: unknown, configFile: string, tensors: Tensors): Promise<Tensors> {
  const { group_size } = checkedSettings(settings, quantization, `${configFile}: quantization_config`)
  return withMatrices(tensors, async (module, qweight) => {
    const [inputs, words] = qweight.shape
    const outputs = 8 * words
    const parts = partsOf(module, qweight, { inputs, outputs, groupSize: group_size }, tensors)
    const codes = (words: Uint32Array, output: number, word: number): number => {
      const shift = 4 * places[output & 7]
      let eight = 0
      for (let i = 0, at = word * outputs + (output >>> 3); i < 8; i++, at += outputs / 8)
        eight |= ((words[at] >>> shift) & 15) << (4 * i)
      return eight
    }
    return { ...parts, codes, zeros: (words) => nibbles(words, places), groups: null }
  })
}
